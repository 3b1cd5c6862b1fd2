"""What would go wrong later, found before it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neon_lake.config import Table
from neon_lake.errors import Finding, SourceError, listed
from neon_lake.schema import Relation
from neon_lake.sources.postgres import publication, selection, slot
from neon_lake.sources.postgres.catalog import GENERATED_SINCE
from neon_lake.sources.postgres.connection import Connection, ConnectionSettings
from neon_lake.sources.postgres.queries import query

OLDEST = 140000
"""The oldest server version (as in server_version_num) that is supported."""


@dataclass(frozen=True, kw_only=True)
class _Health:
    """Settings of the server and rights of the role; in the order of the query's columns."""

    wal_level: str
    free_slots: int
    free_senders: int
    keep_size: str
    sender_timeout: str
    encoding: str
    standby: bool
    may_create: bool
    superuser: bool
    may_replicate: bool
    role: str


def findings(settings: ConnectionSettings, name: str, tables: Sequence[Table]) -> Sequence[Finding]:
    """Look at everything, and go on after a problem where that makes sense. Raises nothing that a server can cause."""
    try:
        with settings.connect() as connection:
            found = [Finding(subject="connection", detail=_banner(settings, connection))]
            row = connection.execute(query("health")).fetchone()
            assert row is not None
            health = _Health(**dict(zip(_Health.__dataclass_fields__, row, strict=True)))
            state = slot.inspect(connection, name)
            found += _server(connection, health)
            found += _replication(health, name, has_slot=state is not None)
            if state is not None:
                found.append(_slot(name, state.lost, state.retained))
            survey = selection.survey(connection, tables)
            found += [Finding(subject=str(t), detail="refused", problem=why) for t, why in survey.refused.items()]
            published = publication.published(connection, name, survey.relations)
            for relation in survey.relations:
                found.append(_table(connection, relation, health, is_published=relation.table in published))
            if not survey.relations and not survey.refused:
                found.append(
                    Finding(
                        subject="table",
                        detail="none",
                        problem="No table at the source matches the pipeline's tables; correct their patterns.",
                    )
                )
    except SourceError as exc:
        return [Finding(subject="connection", detail="failed", problem=str(exc))]
    if health.may_replicate or health.superuser:
        found.append(_walsender(settings))
    return found


def _banner(settings: ConnectionSettings, connection: Connection) -> str:
    return f"{settings.place()}, Postgres {connection.info.server_version // 10000}"


def _server(connection: Connection, health: _Health) -> Iterator[Finding]:
    version = connection.info.server_version
    yield Finding(
        subject="version",
        detail=str(version // 10000),
        problem=None if version >= OLDEST else "The server is older than Postgres 14; upgrade it.",
    )
    yield Finding(
        subject="wal_level",
        detail=health.wal_level,
        problem=None
        if health.wal_level == "logical"
        else f"The server has wal_level = {health.wal_level}; set it to logical and restart "
        "(on Neon: enable logical replication in the project's settings).",
    )
    yield Finding(
        subject="encoding",
        detail=health.encoding,
        problem="The database has the encoding SQL_ASCII, so that its text may be in any; move it to UTF8."
        if health.encoding == "SQL_ASCII"
        else None,
    )
    yield Finding(
        subject="primary",
        detail="standby" if health.standby else "primary",
        problem="The server is a read-only standby; connect to its primary." if health.standby else None,
    )


def _replication(health: _Health, name: str, *, has_slot: bool) -> Iterator[Finding]:
    may = health.may_replicate or health.superuser
    yield Finding(
        subject="role",
        detail=health.role,
        problem=None if may else f"The role {health.role} may not replicate; run ALTER ROLE {health.role} REPLICATION.",
    )
    # A snapshot of a table added later takes one more slot for a moment.
    needed = 1 if has_slot else 2
    yield Finding(
        subject="slots",
        detail=f"{health.free_slots} of the server's replication slots are free",
        problem=None
        if health.free_slots >= needed
        else f"The slot {name} and a temporary one need {needed} free replication slots, and "
        f"{health.free_slots} are; raise max_replication_slots, or drop slots that nobody needs.",
    )
    yield Finding(
        subject="walsenders",
        detail=f"{health.free_senders} of the server's walsenders are free; wal_sender_timeout {health.sender_timeout}",
        problem=None if health.free_senders >= 1 else "All walsenders of the server are busy; raise max_wal_senders.",
    )
    yield Finding(
        subject="retention",
        detail="WAL is kept for the slot without limit, so that a pipeline that stands still fills the server's disk"
        if health.keep_size == "-1"
        else f"at most {health.keep_size} of WAL are kept for the slot; it is lost when it falls behind further",
    )


def _slot(name: str, lost: str | None, retained: int) -> Finding:
    return Finding(
        subject="slot",
        detail=f"{name} holds back {retained / (1 << 20):.1f} MiB of WAL",
        problem=f"The slot {name} can no longer be used ({lost}); run neon-lake resync --all." if lost else None,
    )


def _table(connection: Connection, relation: Relation, health: _Health, *, is_published: bool) -> Finding:
    columns = [column.name for column in relation.columns]
    generated = connection.info.server_version >= GENERATED_SINCE
    arguments = {"table": relation.table.sql, "columns": columns, "generated": generated}
    row = connection.execute(query("rights"), arguments).fetchone()
    assert row is not None
    _, readable, owned, secured, left_out = row
    problem = None
    if not readable:
        problem = f"The role {health.role} may not read {relation.table}; run GRANT SELECT ON {relation.table.sql}."
    elif secured:
        problem = (
            f"Row security hides rows of {relation.table} from the role {health.role}; "
            f"run ALTER ROLE {health.role} BYPASSRLS."
        )
    elif not is_published and not ((owned and health.may_create) or health.superuser):
        problem = (
            f"The role {health.role} may not publish {relation.table}; let it own the table and "
            "GRANT CREATE ON DATABASE to it, or create the publication as the owner."
        )
    key = f"key ({', '.join(column.name for column in relation.key)})" if relation.key else "no key"
    if relation.inserts_only:
        key = "no key: only its inserts are sent"
    detail = f"{len(columns)} columns, {key}"
    if left_out:
        detail += f"; the server does not send generated columns, so {listed(left_out)} is left out"
    return Finding(subject=str(relation.table), detail=detail, problem=problem)


def _walsender(settings: ConnectionSettings) -> Finding:
    """Whether a replication connection is let in: pg_hba.conf has lines of its own for those."""
    try:
        with settings.replicate():
            return Finding(subject="replication", detail="connected")
    except SourceError as exc:
        return Finding(subject="replication", detail="failed", problem=str(exc))
