"""The jars with which Spark reads and writes Delta tables: fetched once, and held against their hashes.

`python -m neon_lake_tests.workspace.jars` puts them into `.spark/` at the project's root, by Spark's own resolver,
from Maven's central repository or, where `DEFAULT_ARTIFACT_REPOSITORY` names one, from another.
Source: https://spark.apache.org/docs/latest/submitting-applications.html#advanced-dependency-management
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

DELTA: Final = "4.4.0"
COORDINATES: Final = f"io.delta:delta-spark_4.2_2.13:{DELTA}"
"""Delta's library for Spark 4.2 and Scala 2.13, the ones of the locked pyspark."""

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / ".spark"
HASHES: Final = Path(__file__).with_name("jars.lock")
"""What `sha256sum` prints, of every jar."""

OLDEST_JAVA: Final = 17

_OURS: Final = (
    # Pyspark brings these, in versions of its own.
    "com.fasterxml.jackson.core:jackson-databind",
    "com.fasterxml.jackson.datatype:jackson-datatype-jdk8",
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "org.apache.logging.log4j:log4j-api",
    "org.apache.logging.log4j:log4j-core",
    "org.apache.logging.log4j:log4j-slf4j2-impl",
    "org.apache.parquet:parquet-hadoop",
    "org.apache.spark:*",
    "org.roaringbitmap:RoaringBitmap",
    "org.slf4j:slf4j-api",
)
_CENTRAL_ALONE: Final = """\
<ivysettings>
  <settings defaultResolver="central"/>
  <resolvers><ibiblio name="central" m2compatible="true"/></resolvers>
</ivysettings>
"""
_HOW: Final = f"install Java {OLDEST_JAVA} or later (`apt-get install default-jre-headless` on Debian and Ubuntu)"


class NoJars(Exception):
    """Spark cannot be had here: a sentence that says why, and what to do."""


def java() -> int | None:
    """The major version of the Java that Spark would use; None when there is none."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    try:
        said = subprocess.run([program or "java", "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return None
    # Java 8 and before called themselves 1.8.
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else None


def jars(folder: Path = FOLDER) -> Sequence[Path]:
    """The jars that are in a folder, by name; empty when not all of them are there."""
    found = [folder / name for name in _hashes()]
    return found if all(path.is_file() for path in found) else []


def usable(folder: Path = FOLDER) -> bool:
    """Whether Spark can be started here: jars and Java are there."""
    return bool(jars(folder)) and (java() or 0) >= OLDEST_JAVA


def resolve(folder: Path = FOLDER) -> None:
    """Have every jar in the folder; does nothing when they are there. Raises `NoJars`."""
    version = java()
    if version is None or version < OLDEST_JAVA:
        raise NoJars(f"Spark needs Java, and here is {f'version {version}' if version else 'none'}: {_HOW}.")
    if jars(folder):
        return
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        _fetch(Path(cache))
        found = {path.name: path for path in Path(cache, "jars").glob("*.jar")}
        for name, wanted in _hashes().items():
            if name not in found or hashlib.sha256(found[name].read_bytes()).hexdigest() != wanted:
                raise NoJars(f"{name}, which {COORDINATES} needs, did not come as {HASHES.name} has it; try again.")
        for name in _hashes():
            found[name].rename(folder / name)


def _hashes() -> Mapping[str, str]:
    lines = HASHES.read_text("utf-8").splitlines()
    return {name: wanted for wanted, name in (line.split() for line in lines)}


class _Settings:
    """What the gateway reads of a SparkConf, which itself would start a JVM."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def getAll(self) -> list[tuple[str, str]]:  # noqa: N802 (pyspark's name)
        return list(self._given.items())


def _fetch(cache: Path) -> None:
    """Spark resolves before anything else, so its gateway is started, and stopped as soon as it answers."""
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway

    settings = cache / "settings.xml"
    settings.write_text(_CENTRAL_ALONE, "utf-8")
    given = {
        "spark.jars.packages": COORDINATES,
        "spark.jars.excludes": ",".join(_OURS),
        "spark.jars.ivy": str(cache),
    }
    if "DEFAULT_ARTIFACT_REPOSITORY" not in os.environ:
        given["spark.jars.ivySettings"] = str(settings)
    with (cache / "log").open("w+b") as log:
        try:
            gateway = launch_gateway(  # type: ignore[no-untyped-call] # pyspark has no types here
                _Settings(given), popen_kwargs={"stdout": log, "stderr": log}
            )
            gateway.shutdown()
        except PySparkException as exc:
            log.seek(0)
            said = re.search(r"^Exception in .*?: (.*)$", log.read().decode(errors="replace"), re.MULTILINE)
            raise NoJars(
                f"The jars of {COORDINATES} cannot be fetched ({said[1] if said else exc}): try again, or name "
                "a mirror of Maven's central repository in DEFAULT_ARTIFACT_REPOSITORY."
            ) from exc


def main() -> int:
    """Fetch the jars. Where Spark cannot be had, say so; when it is needed, or CI is true, that is an error."""
    parser = argparse.ArgumentParser(prog="python -m neon_lake_tests.workspace.jars", description=__doc__)
    parser.add_argument("--jars", type=Path, default=FOLDER, help="where to put them (default: .spark)")
    parser.add_argument("--needed", action="store_true", help="do not do without Spark")
    arguments = parser.parse_args()
    folder: Path = arguments.jars
    try:
        if not jars(folder):
            sys.stderr.write(f"· fetching Delta {DELTA} for Spark into {folder.name} (14 MB)\n")
        resolve(folder)
    except NoJars as exc:
        if arguments.needed or os.environ.get("CI") == "true":
            sys.stderr.write(f"error: {exc}\n")
            return 2
        sys.stderr.write(f"· The tests run on sail alone. {exc}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
