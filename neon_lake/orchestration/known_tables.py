"""Which tables there are, also while the source cannot be asked: assets must not vanish with a lost connection."""

import json
import logging
from dataclasses import replace
from typing import Any, Final

from neon_lake.config import Pipeline
from neon_lake.errors import ConfigError, NeonLakeError, StagingError
from neon_lake.orchestration.resources import PostgresResource
from neon_lake.pipeline import Replication
from neon_lake.pipeline.opening import storage_of
from neon_lake.schema import Relation, TableName
from neon_lake.staging.storage import Storage

FILE: Final = "relations.json"
"""In staging. A cache: what the source last said, and never a reason for what is replicated."""

PATIENCE: Final = 5
"""Seconds that loading the definitions waits for the source, at most."""

_log = logging.getLogger(__name__)


def known_tables(config: Pipeline, postgres: PostgresResource) -> tuple[Relation, ...]:
    """The pipeline's tables, as the source has them now; else as it last had them; else as the file names them.

    Tables that are only known by name have no columns. Raises `ConfigError` for a wrong resource.
    """
    source = postgres.over(config.source)
    source = replace(source, connect_timeout=min(source.connect_timeout, PATIENCE))
    cache = storage_of(config)
    try:
        found = Replication.open(replace(config, source=source)).relations()
    except ConfigError:
        raise
    except NeonLakeError as exc:
        remembered = _remembered(cache, config)
        named = _named(config, {relation.table for relation in remembered})
        _log.warning("The tables are shown as they were last seen, because the source does not tell: %s", exc)
        return (*remembered, *named)
    _remember(cache, found)
    return found


def _named(config: Pipeline, present: set[TableName]) -> tuple[Relation, ...]:
    names = [TableName.parse(line.name) for line in config.tables if not line.is_pattern]
    return tuple(Relation(table=name, columns=()) for name in dict.fromkeys(names) if name not in present)


def _remember(cache: Storage, relations: tuple[Relation, ...]) -> None:
    data = json.dumps([relation.to_json() | {"comment": relation.comment} for relation in relations]).encode()
    try:
        if _stored(cache) != data:
            cache.replace(FILE, data)
    except StagingError as exc:
        _log.warning("The tables of the source cannot be remembered: %s", exc)


def _remembered(cache: Storage, config: Pipeline) -> tuple[Relation, ...]:
    try:
        entries: list[dict[str, Any]] = json.loads(_stored(cache) or b"[]")
        found = [replace(Relation.from_json(entry), comment=entry.get("comment")) for entry in entries]
    except (StagingError, ValueError, KeyError, TypeError) as exc:
        _log.warning("The tables remembered in %s of staging cannot be read (%s).", FILE, exc)
        return ()
    return tuple(relation for relation in found if config.table(relation.table) is not None)


def _stored(cache: Storage) -> bytes | None:
    try:
        return cache.read(FILE)
    except KeyError:
        return None
