"""Random DDL. It changes the generator's model together with the statements that it gives."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from neon_lake_tests.soak.tables import COLUMNS, NAMES, Maker, Table, name, storage
from neon_lake_tests.soak.values import KINDS


class Ddl:
    """Draws DDL statements."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        self.rng: Random = maker.rng

    def any(self, tables: list[Table]) -> list[str]:
        """The statements of one change of the schema."""
        choices: dict[Callable[[list[Table]], list[str]], float] = {
            self._add: 6,
            self._drop: 3,
            self._rename: 2,
            self._rename_key: 1,
            self._widen: 2,
            self._retype: 1,
            self._again: 2,
            self._identity: 1,
            self._leaf: 2,
            self._create: 3,
            self._remove: 2,
            self._rename_table: 2,
            self._swap_tables: 1,
            self._set_schema: 1,
        }
        if not tables:
            return self._create(tables)
        return self.rng.choices(list(choices), list(choices.values()))[0](tables)

    def _table(self, tables: list[Table]) -> Table:
        return self.rng.choice(tables)

    def _add(self, tables: list[Table]) -> list[str]:
        table = self._table(tables)
        free = sorted(set(COLUMNS) - set(table.columns) - set(table.key_names))
        if not free:
            return []
        return self._added(table, self.rng.choice(free), self.rng.choice(list(KINDS)))

    def _added(self, table: Table, column: str, kind: str) -> list[str]:
        how = self.rng.choice(("plain", "plain", "constant", "not null", "volatile", "default gone"))
        table.columns[column] = kind
        sql, value = KINDS[kind].sql, KINDS[kind].draw(self.rng)
        add = f"ALTER TABLE {table.sql} ADD COLUMN {name(column)}"
        if how == "constant":
            done = [f"{add} {sql} DEFAULT {value}"]
        elif how == "not null":
            # the rows that come have to bring a value, so the constraint goes again
            done = [
                f"{add} {sql} NOT NULL DEFAULT {value}",
                f"ALTER TABLE {table.sql} ALTER {name(column)} DROP NOT NULL",
            ]
        elif how == "volatile":
            table.columns[column] = "double"
            done = [f"{add} double precision DEFAULT random()"]
        elif how == "default gone":
            table.columns[column] = "double"
            done = [
                f"{add} double precision DEFAULT random()",
                f"ALTER TABLE {table.sql} ALTER {name(column)} DROP DEFAULT",
            ]
        else:
            done = [f"{add} {sql}"]
        return done + storage(table, column, table.columns[column])

    def _column(self, table: Table) -> str | None:
        return self.rng.choice(list(table.columns)) if table.columns else None

    def _drop(self, tables: list[Table]) -> list[str]:
        table = self._table(tables)
        if (column := self._column(table)) is None:
            return []
        del table.columns[column]
        return [f"ALTER TABLE {table.sql} DROP COLUMN {name(column)}"]

    def _again(self, tables: list[Table]) -> list[str]:
        """Drop a column and add one of its name, of the same type or another."""
        table = self._table(tables)
        if (column := self._column(table)) is None:
            return []
        kind = table.columns[column] if self.rng.random() < 0.5 else self.rng.choice(list(KINDS))
        return [f"ALTER TABLE {table.sql} DROP COLUMN {name(column)}", *self._added(table, column, kind)]

    def _rename(self, tables: list[Table]) -> list[str]:
        table = self._table(tables)
        old = self._column(table)
        free = sorted(set(COLUMNS) - set(table.columns) - set(table.key_names))
        if old is None or not free:
            return []
        new = self.rng.choice(free)
        table.columns = {new if c == old else c: kind for c, kind in table.columns.items()}
        return [f"ALTER TABLE {table.sql} RENAME {name(old)} TO {name(new)}"]

    def _rename_key(self, tables: list[Table]) -> list[str]:
        table = self._table(tables)
        place = self.rng.randrange(len(table.key_names))
        old, new = table.key_names[place], f"key {next(self.maker.serial)}"
        table.key_names[place] = new
        return [f"ALTER TABLE {table.sql} RENAME {name(old)} TO {name(new)}"]

    def _widen(self, tables: list[Table]) -> list[str]:
        table = self._table(tables)
        wide = {column: KINDS[kind].wider for column, kind in table.columns.items()}
        for column, kind in wide.items():
            if kind is not None:
                table.columns[column] = kind
                return [f"ALTER TABLE {table.sql} ALTER {name(column)} TYPE {KINDS[kind].sql}"]
        return []

    def _retype(self, tables: list[Table]) -> list[str]:
        """Another type, with new values for the rows that are there."""
        table = self._table(tables)
        if (column := self._column(table)) is None:
            return []
        kind = self.rng.choice([k for k in KINDS if KINDS[k].sql != KINDS[table.columns[column]].sql])
        table.columns[column] = kind
        alter = f"ALTER TABLE {table.sql} ALTER {name(column)}"
        return [
            f"{alter} DROP DEFAULT",
            f"{alter} TYPE {KINDS[kind].sql} USING {KINDS[kind].draw(self.rng)}",
            *storage(table, column, kind),
        ]

    def _identity(self, tables: list[Table]) -> list[str]:
        table = self._table(tables)
        if table.parts or table.bag:
            return []
        if table.alt:
            to = self.rng.choice(("DEFAULT", f"USING INDEX {table.index}"))
        else:
            table.full = not table.full
            to = "FULL" if table.full else "DEFAULT"
        return [f"ALTER TABLE {table.sql} REPLICA IDENTITY {to}"]

    def _leaf(self, tables: list[Table]) -> list[str]:
        """Something happens to one partition, of which the stream tells nothing."""
        partitioned = [t for t in tables if t.leaves]
        if not partitioned:
            return []
        table = self.rng.choice(partitioned)
        leaf, bounds = self.rng.choice(table.leaves)
        detach, attach = f"ALTER TABLE {table.sql} DETACH PARTITION {leaf}", f"ATTACH PARTITION {leaf} {bounds}"
        identity = [f"ALTER TABLE {leaf} REPLICA IDENTITY FULL"] if table.bag else []
        return self.rng.choice(
            (
                [f"TRUNCATE {leaf}"],
                [f"DROP TABLE {leaf}", f"CREATE TABLE {leaf} PARTITION OF {table.sql} {bounds}", *identity],
                [detach, f"DELETE FROM {leaf} WHERE random() < 0.5", f"ALTER TABLE {table.sql} {attach}"],
                [detach, f"ALTER TABLE {table.sql} {attach}"],
            )
        )

    # --- whole tables

    def _free(self, tables: list[Table], schema: str, *, bag: bool = False) -> str:
        """A name that is free; deletes cannot be soft without a key."""
        taken = {t.called for t in tables if t.schema == schema}
        return self.rng.choice([n for n in NAMES if n not in taken and not (bag and n.startswith("soft"))])

    def _create(self, tables: list[Table]) -> list[str]:
        if len(tables) >= 6:
            return []
        schema = self.rng.choice(("public", "public", "other"))
        table = self.maker.table(self._free(tables, schema), schema)
        tables.append(table)
        return self.maker.create(table)

    def _remove(self, tables: list[Table]) -> list[str]:
        """Drop a table; half of the time one just like it takes its place."""
        table = self._table(tables)
        gone = [f"DROP TABLE {table.sql}"]
        if self.rng.random() < 0.5:
            return gone + self.maker.create(table)
        tables.remove(table)
        return gone

    def _rename_table(self, tables: list[Table]) -> list[str]:
        """Rename a table; sometimes one just like it takes its place."""
        table = self._table(tables)
        old, called = table.called, self._free(tables, table.schema, bag=table.bag)
        done = [f"ALTER TABLE {table.sql} RENAME TO {name(called)}"]
        if self.rng.random() < 0.4:
            new = Table(
                called=old,
                schema=table.schema,
                key=table.key,
                columns=dict(table.columns),
                alt=table.alt,
                full=table.full,
                bag=table.bag,
                parts=table.parts,
                key_names=list(table.key_names),
            )
            tables.append(new)
            done += self.maker.create(new)
        table.called = called
        return done

    def _swap_tables(self, tables: list[Table]) -> list[str]:
        """Two tables take each other's name."""
        first = self._table(tables)
        others = [
            t
            for t in tables
            if t.schema == first.schema
            and t is not first
            and not any(a.bag and b.called.startswith("soft") for a, b in ((t, first), (first, t)))
        ]
        if not others:
            return []
        second = self.rng.choice(others)
        aside = f"{name(first.schema)}.{name('aside')}"
        done = [
            f"ALTER TABLE {first.sql} RENAME TO {name('aside')}",
            f"ALTER TABLE {second.sql} RENAME TO {name(first.called)}",
            f"ALTER TABLE {aside} RENAME TO {name(second.called)}",
        ]
        first.called, second.called = second.called, first.called
        return done

    def _set_schema(self, tables: list[Table]) -> list[str]:
        table = self._table(tables)
        to = "other" if table.schema == "public" else "public"
        if any(t.called == table.called and t.schema == to for t in tables):
            return []
        # indexes go along, and their names must be free there: those of the key are the server's own choice
        done = [f"ALTER TABLE {table.sql} SET SCHEMA {to}"]
        table.schema = to
        return done
