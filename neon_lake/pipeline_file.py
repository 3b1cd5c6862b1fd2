"""The pipeline file: how it is found, read, and refused with the line of a mistake."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import TypeAdapter, ValidationError

from neon_lake.config import (
    SECRETS,
    DatabricksConfig,
    DeltaConfig,
    Limits,
    Orchestration,
    Parity,
    Pipeline,
    SourceConfig,
    StagingConfig,
    Table,
    UnityConfig,
)
from neon_lake.errors import ConfigError

DEFAULT_FILE: Final = "neon_lake.yaml"


def config_path(given: str | None = None) -> Path:
    """The pipeline file: as given, else `NEON_LAKE_CONFIG`, else `neon_lake.yaml` in the working directory."""
    return Path(given or os.environ.get("NEON_LAKE_CONFIG") or DEFAULT_FILE)


def load(path: Path, environment: Mapping[str, str] | None = None) -> Pipeline:
    """Read a pipeline file. Relative paths in it are relative to it. Raises `ConfigError`, with the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(
            f"The pipeline file {path} cannot be read ({exc.strerror}); "
            "give its path with --config or NEON_LAKE_CONFIG."
        ) from exc
    return parse(text, path, os.environ if environment is None else environment)


# A variable stands in the YAML as a plain word between two private-use characters, so that neither the braces of
# `${VAR}` nor the characters of a password can change how the file is read.
_OPEN, _CLOSE = "\ue000", "\ue001"


def parse(text: str, path: Path, environment: Mapping[str, str]) -> Pipeline:
    """Read the text of a pipeline file that lies at `path`. Raises `ConfigError`."""
    marked = re.sub(r"\$\{(\w+)\}", rf"{_OPEN}\1{_CLOSE}", text)
    try:
        node = yaml.compose(marked, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise ConfigError(f"{path.name} line {line}: this is not YAML: {exc.problem}.") from exc
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        data = _mapping(_build(node, (), lines, environment))
        _root_paths(data, path.resolve().parent)
        return TypeAdapter(Pipeline).validate_python(data)
    except _Mistake as exc:
        raise ConfigError(f"{path.name} line {exc.line}: {exc.what}.") from exc
    except ValidationError as exc:
        raise ConfigError(_sentence(exc, path, lines)) from None


def _mapping(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _Mistake(1, "a pipeline file is a mapping with pipeline, source, staging, destination and tables")
    return data


class _Mistake(Exception):
    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what


def _build(
    node: yaml.Node | None, loc: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int], env: Mapping[str, str]
) -> Any:
    """The data of a YAML node; `lines` learns where each part of it stands (1-based)."""
    if node is None:
        return None
    lines.setdefault(loc, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in result:
                raise _Mistake(line, f"the key {key!r} is given twice")
            lines[(*loc, key)] = line
            result[key] = _build(value, (*loc, key), lines, env)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*loc, i), lines, env) for i, item in enumerate(node.value)]
    if loc and _is_secret(loc) and isinstance(node, yaml.ScalarNode) and not _is_reference(node.value):
        what = f"{loc[-1]} is a secret, which is not written here: name an environment variable, as ${{VAR}}"
        raise _Mistake(node.start_mark.line + 1, what)
    if isinstance(node, yaml.ScalarNode) and _OPEN in node.value:
        return _expanded(node, env)
    return yaml.SafeLoader("").construct_object(node)


def _is_secret(loc: tuple[str | int, ...]) -> bool:
    """Whether a key holds a secret. Of `options`, all do whose name says so: object_store has many."""
    if loc[0] not in ("staging", "destination"):
        return False
    if "options" in loc:
        return re.search("secret|password|token|_key$|sas", str(loc[-1])) is not None
    return loc[-1] in SECRETS


def _is_reference(text: str) -> bool:
    return re.fullmatch(rf"{_OPEN}\w+{_CLOSE}", text) is not None


def _expanded(node: yaml.ScalarNode, env: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if not env.get(match[1]):
            line = node.start_mark.line + 1
            raise _Mistake(line, f"the environment variable {match[1]} is not set; set it or write the value here")
        return env[match[1]]

    return re.sub(f"{_OPEN}(\\w+){_CLOSE}", value, str(node.value))


def _sentence(error: ValidationError, path: Path, lines: Mapping[tuple[str | int, ...], int]) -> str:
    """One sentence for the first mistake; pydantic's own text would show the value, which may be a secret."""
    mistakes = error.errors(include_input=False, include_url=False)
    # a misspelt key is also a missing one; the first says more
    first = min(mistakes, key=lambda mistake: mistake["type"] != "unexpected_keyword_argument")
    loc = tuple(first["loc"])
    kind = str(loc[1]) if len(loc) > 1 else ""
    if loc[:1] == ("destination",):
        # the second part tells of which kind, and is no key of the file
        loc = ("destination", *loc[2:])
    line = next((lines[loc[:n]] for n in range(len(loc), -1, -1) if loc[:n] in lines), 1)
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")
    if first["type"] == "unexpected_keyword_argument":
        known = ", ".join(_keys(loc[:-1], kind))
        what = f"unknown key {str(loc[-1])!r}; the keys here are {known}"
    elif first["type"] in ("missing", "missing_argument"):
        what = f"{where} is missing"
    else:
        message = str(first["msg"]).removeprefix("Value error, ")
        what = f"{where}: {message[:1].lower()}{message[1:]}" if where else message
    return f"{path.name} line {line}: {what}."


_SECTIONS: Final[Mapping[str, Any]] = {
    "source": SourceConfig,
    "staging": StagingConfig,
    "destination": DeltaConfig,
    "destination: databricks": DatabricksConfig,
    "destination: unity": UnityConfig,
    "tables": Table,
    "limits": Limits,
    "parity": Parity,
    "orchestration": Orchestration,
}


def _keys(loc: tuple[str | int, ...], kind: str) -> Iterator[str]:
    section = _SECTIONS[str(loc[0])] if loc else Pipeline
    if loc and loc[0] == "destination":
        which = "unity" if loc[-1] == "unity" else kind
        section = _SECTIONS.get(f"destination: {which}", DeltaConfig)
    return ("pipeline" if name == "name" and not loc else name for name in section.__dataclass_fields__)


def _root_paths(data: dict[str, Any], root: Path) -> None:
    """Make the local paths of the file absolute: they are meant relative to where the file lies."""
    for name in ("staging", "destination"):
        section = data.get(name)
        if isinstance(section, dict) and isinstance(section.get("path"), str) and "://" not in section["path"]:
            section["path"] = str(root / Path(section["path"]).expanduser())
