"""Connections to Postgres: how they are opened, the settings they all have, and what their failures mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import adbc_driver_manager
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from neon_lake.errors import SourceError, SourceRefused, SourceUnavailable, SourceUnreachable

if TYPE_CHECKING:
    import adbc_driver_manager.dbapi

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

_SESSION: Final = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "search_path": "",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # A table's policies must not thin out what we copy: with this off, the server refuses instead.
    "row_security": "off",
}
"""What makes text exact and the same on every server, and keeps a long snapshot alive."""

_STATEMENT: Final = (
    "SELECT "
    + ", ".join(f"pg_catalog.set_config('{name}', '{value}', false)" for name, value in _SESSION.items())
    # Since version 17.
    + ", CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL "
    "THEN pg_catalog.set_config('transaction_timeout', '0', false) END"
)

_NOT_YET: Final = re.compile(
    "starting up|shutting down|not yet accepting|recovery mode|too many clients|connection slots|"
    "too many connections|endpoint is disabled|terminating connection",
    re.IGNORECASE,
)
_ANSWERED: Final = re.compile(
    "FATAL|ERROR|authentication|password|SSL|certificate|no pg_hba|channel binding|does not exist", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """Where the database is and how to get in. `url` is libpq's; the other settings override what it says.

    `connect_timeout` is in seconds.
    """

    url: str = field(repr=False)
    sslmode: str | None = None
    sslrootcert: str | None = None
    application_name: str = "neon_lake"
    connect_timeout: int = 10

    def parameters(self) -> dict[str, Any]:
        """Everything libpq is given. Raises `SourceRefused` when the URL is no URL or names a pooled host."""
        try:
            parameters: dict[str, Any] = dict(conninfo_to_dict(self.url))
        except psycopg.ProgrammingError:
            # libpq quotes the URL, password and all.
            raise SourceRefused(
                "The source's URL cannot be read; write postgresql://role:password@host/database."
            ) from None
        overrides = {"sslmode": self.sslmode, "sslrootcert": self.sslrootcert}
        parameters |= {name: value for name, value in overrides.items() if value is not None}
        parameters |= {
            "application_name": self.application_name,
            "connect_timeout": self.connect_timeout,
            "client_encoding": "UTF8",
        }
        host = str(parameters.get("host", ""))
        direct = re.sub(r"^([^.]+)-pooler(?=\.|$)", r"\1", host)
        if direct != host:
            raise SourceRefused(
                f"The host {host} is a connection pooler, which cannot stream changes; use the direct host {direct}."
            )
        return parameters

    def place(self) -> str:
        """The database as a sentence names it: `database at host:port`, without role or password."""
        parameters = self.parameters()
        host, port = parameters.get("host", "the local socket"), parameters.get("port", 5432)
        return f"{parameters.get('dbname', 'the default database')} at {host}:{port}"

    @contextmanager
    def connect(self, *, autocommit: bool = True) -> Iterator[Connection]:
        """An ordinary connection. Raises `SourceUnavailable` and `SourceRefused`, also from the body's queries."""
        with self._opened(autocommit=autocommit) as connection:
            yield connection

    @contextmanager
    def replicate(self) -> Iterator[Connection]:
        """A walsender connection: it understands replication commands, given as statements without parameters."""
        with self._opened(replication="database", autocommit=True) as connection:
            yield connection

    @contextmanager
    def _opened(self, *, autocommit: bool, **extra: str) -> Iterator[Connection]:
        parameters = self.parameters() | extra
        with self.translated():
            try:
                connection = psycopg.connect(**parameters, autocommit=True)
            except psycopg.OperationalError as exc:
                raise self._refusal(str(exc)) from None
            try:
                connection.execute(_STATEMENT)
                connection.autocommit = autocommit
                yield connection
            finally:
                connection.close()

    @contextmanager
    def adbc(self) -> Iterator[adbc_driver_manager.dbapi.Connection]:
        """A connection that returns Arrow, in autocommit mode."""
        import adbc_driver_postgresql.dbapi as adbc  # noqa: PLC0415 - it loads pandas, and only snapshots need it

        parameters = self.parameters()
        with self.translated():
            try:
                connection = adbc.connect(make_conninfo(**parameters), autocommit=True)
            except adbc_driver_manager.Error as exc:
                raise self._refusal(str(exc)) from None
            try:
                with connection.cursor() as cursor:
                    cursor.execute(_STATEMENT)
                    cursor.fetchall()
                yield connection
            finally:
                connection.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the drivers' errors into ours."""
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as exc:
            raise SourceRefused(f"The role may not do this in {self.place()}: {_said(exc)}.") from exc
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            if exc.sqlstate is None or exc.sqlstate[:2] in ("08", "57"):
                raise SourceUnavailable(f"The connection to {self.place()} was lost: {_said(exc)}.") from exc
            raise SourceRefused(f"The server of {self.place()} refuses: {_said(exc)}.") from exc
        except psycopg.Error as exc:
            raise SourceError(f"A query on {self.place()} failed: {_said(exc)}.") from exc
        except adbc_driver_manager.OperationalError as exc:
            raise SourceUnavailable(f"The connection to {self.place()} was lost: {_said(exc)}.") from exc
        except adbc_driver_manager.Error as exc:
            if exc.sqlstate == "42501":  # insufficient_privilege
                raise SourceRefused(f"The role may not do this in {self.place()}: {_said(exc)}.") from exc
            raise SourceError(f"A query on {self.place()} failed: {_said(exc)}.") from exc

    def _refusal(self, text: str) -> SourceError:
        """What a failed connection attempt means. Where a host has several addresses, an answer counts most."""
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("\t", "Multiple "))]
        answers = [line for line in lines if _ANSWERED.search(line)]
        said = self._without_password(_bare((answers or lines or ["no reason given"])[0]))
        if not answers:
            return SourceUnreachable(
                f"The source {self.place()} cannot be reached ({said}); start it, or correct source.url."
            )
        if _NOT_YET.search(said):
            return SourceUnavailable(f"The source {self.place()} does not take connections now: {said}.")
        if re.search("replication role|walsender|WAL sender", said, re.IGNORECASE):
            return SourceRefused(
                f"The role may not stream changes from {self.place()}; run ALTER ROLE … REPLICATION for it."
            )
        return SourceRefused(f"The source {self.place()} refuses the connection ({said}); correct source.url.")

    def _without_password(self, text: str) -> str:
        password = self.parameters().get("password")
        return text.replace(str(password), "…") if password else text


def _said(exc: BaseException) -> str:
    """The server's own sentence, without its prefix and full stop."""
    if isinstance(exc, psycopg.Error) and exc.diag.message_primary:
        return exc.diag.message_primary
    return _bare(next(iter(str(exc).splitlines()), "no reason given"))


def _bare(line: str) -> str:
    """A line of a driver's or libpq's message without what they put before the reason."""
    return re.sub(r"^.*(?:FATAL|ERROR|failed): +", "", line.strip()).split(". SQLSTATE")[0].rstrip(".")
