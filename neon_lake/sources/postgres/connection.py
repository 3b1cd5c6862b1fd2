"""Connections to Postgres: how they are opened, the settings they all have, and what their failures mean."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import adbc_driver_manager
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from neon_lake.errors import SourceError, SourceRefused, SourceUnavailable, SourceUnreachable
from neon_lake.sources.postgres.queries import query
from neon_lake.sources.postgres.silence import Session, Silence

if TYPE_CHECKING:
    import adbc_driver_manager.dbapi

R = TypeVar("R")

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
    "THEN pg_catalog.set_config('transaction_timeout', '0', false) END, pg_catalog.pg_backend_pid()"
)

_NO_SNAPSHOT: Final = ("42704", "22023")
"""undefined_object; before version 17 invalid_parameter_value."""

_KEEPALIVE: Final = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}

_NOT_YET: Final = re.compile(
    "starting up|shutting down|not yet accepting|recovery mode|too many clients|connection slots|"
    "too many connections|endpoint is disabled|terminating connection",
    re.IGNORECASE,
)
_ANSWERED: Final = re.compile(
    "FATAL|ERROR|authentication|password|SSL|certificate|no pg_hba|channel binding|does not exist", re.IGNORECASE
)


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waiting for the server ends when it is stalled.

    `silence` watches over it once it is open; `session` is the id that the server knows it by.
    """

    silence: Silence | None = None
    session: int | None = None

    def wait(self, gen: Generator[Any, Any, R], *args: Any, **kwargs: Any) -> R:
        """Psycopg's one place for waiting: it consumes a generator that yields what it waits for."""
        return super().wait(gen if self.silence is None else self._watched(gen, self.silence), *args, **kwargs)

    def _watched(self, gen: Generator[Any, Any, R], silence: Silence) -> Generator[Any, Any, R]:
        silence.heard()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    silence.heard()
                else:
                    silence.check()
                wanted = gen.send(ready)
        except StopIteration as done:
            result: R = done.value
            return result
        except SourceUnavailable:
            # nothing may be sent on it any more, a ROLLBACK neither
            self.close()
            raise


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """Where the database is and how to get in. `url` is libpq's; the other settings override what it says.

    `connect_timeout` and `stall_timeout` are in seconds; for the second see `Silence`.
    """

    url: str = field(repr=False)
    sslmode: str | None = None
    sslrootcert: str | None = None
    application_name: str = "neon_lake"
    connect_timeout: int = 10
    stall_timeout: float = 30

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
        # a peer that is gone is noticed by the kernel; one that keeps silent, by `Silence`
        parameters = _KEEPALIVE | {"tcp_user_timeout": int(self.stall_timeout * 2000)} | parameters
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

    def silence(self, pid: Callable[[], int | None]) -> Silence:
        """What watches over a connection whose session at the server is `pid` (None: not known yet)."""

        def look() -> Session | None:
            with self._opened(autocommit=True, watched=False) as connection:
                row = connection.execute(query("session"), {"pid": pid()}).fetchone()
            return Session(waits_for_client=row[0], copied=row[1]) if row else None

        return Silence(self.place(), patience=self.stall_timeout, look=look)

    @contextmanager
    def _opened(self, *, autocommit: bool, watched: bool = True, **extra: str) -> Iterator[Connection]:
        parameters = self.parameters() | extra
        with self.translated():
            try:
                connection = Connection.connect(**parameters, autocommit=True)
            except psycopg.OperationalError as exc:
                raise self._refusal(str(exc)) from None
            try:
                if watched:
                    connection.silence = self.silence(lambda: connection.session)
                else:
                    connection.silence = Silence(self.place(), patience=self.stall_timeout, look=None)
                connection.session = connection.execute(_STATEMENT).fetchall()[0][-1]
                connection.autocommit = autocommit
                yield connection
            finally:
                connection.close()

    @contextmanager
    def adbc(self, opened: Callable[[int], None] = lambda _: None) -> Iterator[adbc_driver_manager.dbapi.Connection]:
        """A connection that returns Arrow, in autocommit mode; `opened` is told the id of its session."""
        adbc, parameters = load_adbc(), self.parameters()
        with self.translated():
            try:
                connection = adbc.connect(make_conninfo(**parameters), autocommit=True)
            except adbc_driver_manager.Error as exc:
                raise self._refusal(str(exc)) from None
            try:
                with connection.cursor() as cursor:
                    cursor.execute(_STATEMENT)
                    opened(cursor.fetchall()[0][-1])
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

    @contextmanager
    def importing(self) -> Iterator[None]:
        """The body imports an exported snapshot, which lives as long as the connection that exported it."""
        try:
            yield
        except (psycopg.Error, adbc_driver_manager.Error) as exc:
            if exc.sqlstate in _NO_SNAPSHOT:
                raise SourceUnavailable(
                    f"The connection to {self.place()} that held the snapshot was lost; run this again."
                ) from exc
            raise

    def failure(self, exc: Exception, cursor: adbc_driver_manager.dbapi.Cursor) -> SourceError:
        """What it means that a result broke off. Arrow's errors do not tell the server's from the network's."""
        try:
            cursor.execute("SELECT 1")
        except adbc_driver_manager.OperationalError:
            return SourceUnavailable(f"The connection to {self.place()} was lost: {_said(exc)}.")
        except adbc_driver_manager.Error:
            # the transaction is over, the connection is not
            pass
        return SourceError(f"A query on {self.place()} failed: {_said(exc)}.")

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


def load_adbc() -> ModuleType:
    """ADBC's driver for Postgres."""
    # it loads pandas, and only snapshots need it
    return importlib.import_module("adbc_driver_postgresql.dbapi")


def _said(exc: BaseException) -> str:
    """The server's own sentence, without its prefix and full stop."""
    if isinstance(exc, psycopg.Error) and exc.diag.message_primary:
        return exc.diag.message_primary
    return _bare(next(iter(str(exc).splitlines()), "no reason given"))


def _bare(line: str) -> str:
    """A line of a driver's or libpq's message without what they put before the reason."""
    return re.sub(r"^.*(?:FATAL|ERROR|failed): +", "", line.strip()).split(". SQLSTATE")[0].rstrip(".")
