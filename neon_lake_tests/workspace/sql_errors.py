"""Errors of SQL as Databricks writes them: `[ERROR_CLASS] sentence SQLSTATE: 42601`.

Source: https://docs.databricks.com/error-messages/error-classes
"""

from __future__ import annotations


class SqlFailed(Exception):
    """A statement that cannot be carried out. `code` is the REST interface's name of the kind of failure."""

    def __init__(self, error_class: str, sentence: str, sqlstate: str, *, code: str = "BAD_REQUEST") -> None:
        super().__init__(f"[{error_class}] {sentence.rstrip()} SQLSTATE: {sqlstate}")
        self.error_class, self.code = error_class, code


def table_not_found(name: str) -> SqlFailed:
    """There is no such table."""
    quoted = ".".join(f"`{part}`" for part in name.split("."))
    return SqlFailed(
        "TABLE_OR_VIEW_NOT_FOUND",
        f"The table or view {quoted} cannot be found. Verify the spelling and correctness of the schema and catalog.",
        "42P01",
    )


def path_not_found(path: str) -> SqlFailed:
    """There is no such file or folder."""
    return SqlFailed("PATH_NOT_FOUND", f"Path does not exist: {path}.", "42K03")


def column_not_found(name: str) -> SqlFailed:
    """A table has no such column."""
    return SqlFailed(
        "UNRESOLVED_COLUMN.WITHOUT_SUGGESTION",
        f"A column, variable, or function parameter with name `{name}` cannot be resolved.",
        "42703",
    )


def unsupported(what: str) -> SqlFailed:
    """Something that this workspace does not do; Databricks may well do it."""
    return SqlFailed("UNSUPPORTED_FEATURE.WORKSPACE_FOR_TESTS", f"This workspace for tests has no {what}.", "0A000")
