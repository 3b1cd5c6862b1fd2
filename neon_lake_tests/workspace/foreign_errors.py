"""What the engines say when they fail, as Databricks would say it."""

from __future__ import annotations

import re
from typing import Any, Final

from neon_lake_tests.workspace.sql_errors import SqlFailed
from neon_lake_tests.workspace.words import words_of

_MARKED: Final = re.compile(r"\[([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)?)\]\s*(.*)", re.DOTALL)
_SQLSTATE: Final = re.compile(r"SQLSTATE: (\w{5})")

_SAIL: Final = (
    (r"MERGE_CARDINALITY_VIOLATION", "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE", "21506"),
    (r"divide by zero|Divide by zero", "DIVIDE_BY_ZERO", "22012"),
    (r"Cannot cast string|Cast error|error parsing", "CAST_INVALID_INPUT", "22018"),
    (r"Can't cast value|out of range|too large to store", "CAST_OVERFLOW", "22003"),
    (r"cannot resolve attribute", "UNRESOLVED_COLUMN.WITHOUT_SUGGESTION", "42703"),
    (r"(?i)overflow", "ARITHMETIC_OVERFLOW", "22003"),
    (r"(?i)table (already exists|not found)|table or view not found", "TABLE_OR_VIEW_NOT_FOUND", "42P01"),
    (r"Missing commit file|No commit files", "DELTA_VERSION_NOT_FOUND", "22003"),
    (r"invalid argument: found", "PARSE_SYNTAX_ERROR", "42601"),
    (r"(?i)conflict|concurrent", "DELTA_CONCURRENT_APPEND.WITHOUT_HINT", "2D521"),
)
_STATES: Final = {
    "DELTA_CONCURRENT_APPEND": "2D521",
    "DELTA_CONCURRENT_APPEND.WITHOUT_HINT": "2D521",
    "DELTA_CONCURRENT_APPEND.WITH_PARTITION_HINT": "2D521",
    "DELTA_CONCURRENT_DELETE_READ": "2D521",
    "DELTA_CONCURRENT_DELETE_DELETE": "2D521",
    "DELTA_METADATA_CHANGED": "2D521",
    "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE": "21506",
    "DELTA_VERSION_NOT_FOUND": "22003",
    "DELTA_NOT_NULL_CONSTRAINT_VIOLATED": "23502",
    "TABLE_OR_VIEW_NOT_FOUND": "42P01",
    "USER_RAISED_EXCEPTION": "P0001",
}


def of_sail(exc: Exception, sql: str) -> SqlFailed:
    """Sail seldom gives an error class: it is found by what is said, and by what was asked."""
    said = str(exc).strip()
    if marked := _MARKED.search(said):
        return SqlFailed(marked[1], _sentence(marked[2]), _STATES.get(marked[1], "XX000"))
    if any(said == raised or said.endswith(raised) for raised in _raised(sql)):
        return SqlFailed("USER_RAISED_EXCEPTION", said, "P0001")
    for pattern, name, state in _SAIL:
        if re.search(pattern, said):
            return SqlFailed(name, said, state)
    if _raised(sql):
        # a text that the statement put together
        return SqlFailed("USER_RAISED_EXCEPTION", said, "P0001")
    return SqlFailed("INTERNAL_ERROR", said, "XX000", code="INTERNAL_ERROR")


def _raised(sql: str) -> list[str]:
    """The texts that the statement may raise; an empty one stands for all that it computes."""
    words = words_of(sql)
    found = []
    for n, word in enumerate(words[:-2]):
        if word.says("RAISE_ERROR") and words[n + 1].says("("):
            found.append(words[n + 2].text if words[n + 2].kind == "text" else "\0")
    return found


def of_spark(exc: Exception) -> SqlFailed:
    """Spark's own class; of an error inside of a job, the one of its cause that says most."""
    said = [str(exc)]
    cause: Any = getattr(exc, "java_exception", None)
    if cause is None:
        cause = getattr(exc, "_origin", None)
    while cause is not None:
        said.append(str(cause.getMessage()))
        cause = cause.getCause()
    marked = [found for text in said if (found := _MARKED.search(text)) and found[1] not in _WRAPPERS]
    if not marked:
        return SqlFailed("INTERNAL_ERROR", _sentence(said[0]), "XX000", code="INTERNAL_ERROR")
    last = marked[-1]
    state = _SQLSTATE.search(last[2])
    return SqlFailed(last[1], _sentence(last[2]), state[1] if state else _STATES.get(last[1], "XX000"))


_WRAPPERS: Final = frozenset({"TASK_WRITE_FAILED", "FAILED_EXECUTE_UDF", "FAILED_READ_FILE", "WRITING_JOB_ABORTED"})


def _sentence(text: str) -> str:
    """Without the state, the plan and the stack that follow it."""
    return re.split(r"SQLSTATE: |\n\s*at |\n\nJVM stacktrace|;\n'|\n== ", text)[0].strip()
