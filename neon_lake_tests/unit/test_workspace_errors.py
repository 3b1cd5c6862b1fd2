"""What engines say when they fail, as Databricks would say it."""

from __future__ import annotations

import pytest

from neon_lake_tests.workspace.foreign_errors import of_sail, of_spark
from neon_lake_tests.workspace.sql_errors import SqlFailed


@pytest.mark.parametrize(
    ("said", "sql", "error", "state"),
    [
        ("divide by zero", "SELECT 1/0", "DIVIDE_BY_ZERO", "22012"),
        ("Cannot cast string 'x' to value of Int32 type", "SELECT 1", "CAST_INVALID_INPUT", "22018"),
        ("Can't cast value 3000000000 to type Int32", "SELECT 1", "CAST_OVERFLOW", "22003"),
        ("boom", "SELECT raise_error('boom')", "USER_RAISED_EXCEPTION", "P0001"),
        ("error in DataFusion: boom", "SELECT Raise_Error('boom')", "USER_RAISED_EXCEPTION", "P0001"),
        ("boom 1", "SELECT raise_error(concat('boom ', 1))", "USER_RAISED_EXCEPTION", "P0001"),
        ("divide by zero", "SELECT raise_error('boom')", "DIVIDE_BY_ZERO", "22012"),
        (
            "MERGE_CARDINALITY_VIOLATION: Multiple source rows matched target row '0'",
            "MERGE INTO t",
            "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE",
            "21506",
        ),
        (
            "[DELTA_NOT_NULL_CONSTRAINT_VIOLATED] NOT NULL constraint violated for column: v",
            "INSERT INTO t",
            "DELTA_NOT_NULL_CONSTRAINT_VIOLATED",
            "23502",
        ),
        ("something else", "SELECT 1", "INTERNAL_ERROR", "XX000"),
    ],
)
def test_sail(said: str, sql: str, error: str, state: str) -> None:
    failed = of_sail(RuntimeError(said), sql)
    assert failed.error_class == error
    assert str(failed).startswith(f"[{error}] ")
    assert str(failed).endswith(f" SQLSTATE: {state}")


class _Java:
    """A Java exception, as py4j shows it."""

    def __init__(self, said: str, cause: _Java | None = None) -> None:
        self._said, self._cause = said, cause

    def getMessage(self) -> str:  # noqa: N802 - Java's name
        return self._said

    def getCause(self) -> _Java | None:  # noqa: N802 - Java's name
        return self._cause


def _spark(said: str, java: _Java | None = None) -> SqlFailed:
    exc = RuntimeError(said)
    if java is not None:
        exc.java_exception = java  # type: ignore[attr-defined]
    return of_spark(exc)


def test_spark_says_its_class_and_state() -> None:
    failed = _spark("[PATH_NOT_FOUND] Path does not exist: file:/x. SQLSTATE: 42K03\n\tat org.apache.spark.sql")
    assert str(failed) == "[PATH_NOT_FOUND] Path does not exist: file:/x. SQLSTATE: 42K03"


def test_the_cause_says_more_than_what_wraps_it() -> None:
    cause = _Java("[USER_RAISED_EXCEPTION] boom: y SQLSTATE: P0001")
    failed = _spark("An error occurred while calling o46.sql.", _Java("[TASK_WRITE_FAILED] Task failed.", cause))
    assert str(failed) == "[USER_RAISED_EXCEPTION] boom: y SQLSTATE: P0001"


def test_delta_gives_no_state() -> None:
    failed = _spark("[DELTA_CONCURRENT_APPEND.WITHOUT_HINT] Transaction conflict detected.")
    assert failed.error_class == "DELTA_CONCURRENT_APPEND.WITHOUT_HINT"
    assert str(failed).endswith("SQLSTATE: 2D521")


def test_what_has_no_class_is_internal() -> None:
    failed = _spark("Cannot do that.\n\tat a.b.c", _Java("nothing more"))
    assert (failed.error_class, failed.code) == ("INTERNAL_ERROR", "INTERNAL_ERROR")
    assert str(failed) == "[INTERNAL_ERROR] Cannot do that. SQLSTATE: XX000"
