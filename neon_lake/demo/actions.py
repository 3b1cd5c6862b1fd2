"""What happens in the shop: each action is one transaction, and counts the rows that it changes.

The actions bring about what makes replication hard: transactions over several tables, changes of keys, rows that move
between partitions, updates beside large values that stay as they are, and savepoints that are rolled back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, Literal

import psycopg

Kind = Literal["inserts", "updates", "deletes"]

_ANY_STATUS: Final = ("new", "paid", "shipped", "returned")


class Nothing(Exception):
    """There is no row for the action at hand: its transaction is rolled back."""


class Transaction:
    """An open transaction of one action.

    Attributes:
        changes: rows changed so far, by table and kind.
        random: where the action takes its choices from.
    """

    def __init__(self, connection: psycopg.Connection[Any], random: Random) -> None:
        self.connection = connection
        self.random = random
        self.changes: Counter[tuple[str, Kind]] = Counter()

    def change(self, table: str, kind: Kind, statement: str, **values: object) -> list[tuple[Any, ...]]:
        """Run a statement that changes rows of one table in one way; gives what it returns."""
        cursor = self.connection.execute(statement.encode(), values)
        self.changes[table, kind] += cursor.rowcount
        return cursor.fetchall() if cursor.description else []

    def pick(self, statement: str, **values: object) -> tuple[Any, ...]:
        """The first row of a query, whose `chance` is a random number from 0 to 1. Raises `Nothing`."""
        row = self.connection.execute(statement.encode(), {"chance": self.random.random(), **values}).fetchone()
        if row is None:
            raise Nothing
        found: tuple[Any, ...] = row
        return found

    def customer(self) -> int:
        """Any customer."""
        query = "SELECT id FROM customers WHERE id >= (SELECT max(id) * %(chance)s FROM customers) ORDER BY id LIMIT 1"
        return int(self.pick(query)[0])

    def order(self, *statuses: str) -> tuple[Any, ...]:
        """Id and total of any order, in one of these states if given, that nobody else is at; it is locked."""
        return self.pick(
            "SELECT id, total FROM orders WHERE id >= (SELECT max(id) * %(chance)s FROM orders)"
            " AND status = ANY(%(statuses)s::order_status[]) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
            statuses=list(statuses or _ANY_STATUS),
        )

    def document(self) -> str:
        """The key of any document that nobody else is at; it is locked."""
        query = (
            "SELECT slug FROM documents WHERE slug >= 'manual-' || (%(chance)s * 1000)::integer"
            " ORDER BY slug LIMIT 1 FOR UPDATE SKIP LOCKED"
        )
        return str(self.pick(query)[0])

    def products(self, most: int) -> list[int]:
        """Ids of at most so many released products, which are never discontinued."""
        chances = [self.random.random() for _ in range(self.random.randint(1, most))]
        query = (
            "SELECT array_agg(id) FROM products WHERE released IS NOT NULL AND id IN ("
            "SELECT 1 + ((SELECT max(id) FROM products) * c)::integer FROM unnest(%(chances)s::float8[]) AS c)"
        )
        return list(self.pick(query, chances=chances)[0] or ())


def place_order(t: Transaction) -> None:
    """An order with its items, out of stock, on the customer's account, and in the events."""
    customer, products = t.customer(), t.products(4)
    ((order,),) = t.change(
        "orders",
        "inserts",
        "INSERT INTO orders (customer_id, total, ship_to, express) SELECT %(customer)s, coalesce(sum(price), 0),"
        " jsonb_build_object('city', 'Köln', 'door', %(door)s::integer), %(door)s > 90"
        " FROM products WHERE id = ANY(%(products)s) RETURNING id",
        customer=customer,
        products=products,
        door=t.random.randint(1, 99),
    )
    t.change(
        "order_items",
        "inserts",
        "INSERT INTO order_items (order_id, line, product_id, quantity, unit_price)"
        " SELECT %(order)s, row_number() OVER (ORDER BY id), id, 1 + id %% 3, price FROM products"
        " WHERE id = ANY(%(products)s)",
        order=order,
        products=products,
    )
    if t.random.random() < 0.1:
        with t.connection.transaction(force_rollback=True):
            t.connection.execute("UPDATE orders SET coupons = ARRAY['REFUSED'] WHERE id = %s", [order])
    t.change(
        "inventory",
        "updates",
        "UPDATE inventory SET stock = stock - 1 WHERE warehouse = 'berlin' AND product_id = ANY(%(products)s)",
        products=products,
    )
    t.change("customers", "updates", "UPDATE customers SET credit = credit + 0.50 WHERE id = %(id)s", id=customer)
    _note_events(t, customer, ["buy"])


def pay_order(t: Transaction) -> None:
    """A payment for a new order."""
    order, total = t.order("new")
    t.change(
        "payments",
        "inserts",
        "INSERT INTO payments (order_id, method, amount, fee, receipt)"
        " VALUES (%(order)s, %(method)s, %(total)s, %(total)s * 0.0175, %(receipt)s)",
        order=order,
        method=t.random.choice(["card", "transfer", "voucher"]),
        total=total,
        receipt=t.random.randbytes(16),
    )
    t.change("orders", "updates", "UPDATE orders SET status = 'paid' WHERE id = %(order)s", order=order)


def ship_order(t: Transaction) -> None:
    """A paid order leaves the house."""
    statement = "UPDATE orders SET status = 'shipped', deliver_on = current_date + 2 WHERE id = %(order)s"
    t.change("orders", "updates", statement, order=t.order("paid")[0])


def cancel_order(t: Transaction) -> None:
    """An order goes, with its items and payments."""
    order = t.order()[0]
    for table, column in (("payments", "order_id"), ("order_items", "order_id"), ("orders", "id")):
        t.change(table, "deletes", f"DELETE FROM {table} WHERE {column} = %(order)s", order=order)  # noqa: S608 (constants)


def refund(t: Transaction) -> None:
    """A payment is taken back in part."""
    query = "SELECT id FROM payments WHERE id >= %(from)s::uuid ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
    (payment,) = t.pick(query, **{"from": t.random.randbytes(16).hex()})
    statement = "UPDATE payments SET amount = amount / 2, fee = NULL WHERE id = %(payment)s"
    t.change("payments", "updates", statement, payment=payment)


def renumber_items(t: Transaction) -> None:
    """The lines of an order get other numbers: a change of a composite key."""
    order = t.order()[0]
    query = "SELECT max(line) FROM order_items WHERE order_id = %(order)s HAVING max(line) < 30000"
    (highest,) = t.pick(query, order=order)
    statement = "UPDATE order_items SET line = line + %(highest)s WHERE order_id = %(order)s"
    t.change("order_items", "updates", statement, order=order, highest=highest)


def browse(t: Transaction) -> None:
    """A visit leaves a few events."""
    _note_events(t, t.customer(), t.random.choices(["view", "search", "cart"], k=t.random.randint(1, 5)))


def _note_events(t: Transaction, customer: int, kinds: list[str]) -> None:
    t.change(
        "events",
        "inserts",
        "INSERT INTO events (customer_id, session, kind, lasted, detail)"
        " SELECT %(customer)s, %(session)s::uuid, kind, %(seconds)s * interval '1 second',"
        " CASE WHEN kind = 'search' THEN jsonb_build_object('q', 'tea') END FROM unnest(%(kinds)s::text[]) AS kind",
        customer=customer,
        session=t.random.randbytes(16).hex(),
        seconds=t.random.randint(0, 400),
        kinds=kinds,
    )


def _event(t: Transaction) -> dict[str, object]:
    """The key of any event of the last days that nobody else is at; it is locked."""
    query = (
        "SELECT id, occurred_at FROM events WHERE occurred_at > now() - interval '20 days'"
        " AND id >= (SELECT max(id) * (0.75 + %(chance)s / 4) FROM events) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    return dict(zip(("id", "at"), t.pick(query), strict=True))


def describe_event(t: Transaction) -> None:
    """An event learns how long it lasted."""
    statement = "UPDATE events SET lasted = lasted + interval '1.5 seconds' WHERE id = %(id)s AND occurred_at = %(at)s"
    t.change("events", "updates", statement, **_event(t))


def correct_time(t: Transaction) -> None:
    """An event was a month earlier: its row moves to another partition, which is a delete and an insert."""
    found = t.connection.execute(
        b"UPDATE events SET occurred_at = occurred_at - interval '31 days' WHERE id = %(id)s AND occurred_at = %(at)s",
        _event(t),
    )
    t.changes["events", "deletes"] += found.rowcount
    t.changes["events", "inserts"] += found.rowcount


def forget_events(t: Transaction) -> None:
    """The oldest events go."""
    statement = (
        "DELETE FROM events WHERE (id, occurred_at) IN"
        " (SELECT id, occurred_at FROM events ORDER BY id LIMIT 40 FOR UPDATE SKIP LOCKED)"
    )
    t.change("events", "deletes", statement)


def register(t: Transaction) -> None:
    """A new customer."""
    t.change(
        "customers",
        "inserts",
        "INSERT INTO customers (email, name, birthday, member_until, interests) VALUES (%(email)s, 'Nadia Novák',"
        " '1990-02-28', 'infinity', ARRAY['new', NULL])",
        email=f"{t.random.randbytes(6).hex()}@example.org",
    )


def edit_profile(t: Transaction) -> None:
    """A customer changes a few settings."""
    t.change(
        "customers",
        "updates",
        "UPDATE customers SET newsletter = NOT newsletter, tier = %(tier)s,"
        " interests = (ARRAY['maps'] || interests)[1:5], preferences = preferences || jsonb_build_object('seen', now())"
        " WHERE id = %(id)s",
        id=t.customer(),
        tier=t.random.choice(["bronze", "silver", "gold"]),
    )


def close_account(t: Transaction) -> None:
    """A customer who never did anything goes."""
    query = (
        "SELECT id FROM customers AS c WHERE id >= (SELECT max(id) * %(chance)s FROM customers)"
        " AND NOT EXISTS (SELECT FROM orders WHERE customer_id = c.id)"
        " AND NOT EXISTS (SELECT FROM events WHERE customer_id = c.id) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    t.change("customers", "deletes", "DELETE FROM customers WHERE id = %(id)s", id=t.pick(query)[0])


def change_prices(t: Transaction) -> None:
    """Some products become dearer or cheaper."""
    t.change(
        "products",
        "updates",
        "UPDATE products SET price = round(price * %(factor)s::numeric, 2), changed_at = now()"
        " WHERE id = ANY(%(products)s)",
        factor=t.random.choice([0.95, 1.03]),
        products=t.products(5),
    )


def announce_product(t: Transaction) -> None:
    """A product that is not released yet, with a place in two warehouses and a manual."""
    ((product,),) = t.change(
        "products",
        "inserts",
        "INSERT INTO products (name, price, weight_kg, attributes, sizes, colour)"
        " VALUES ('Kettle', 79.90, 1.25, jsonb_build_object('new', true), ARRAY[1, 2]::smallint[], %(colour)s)"
        " RETURNING id",
        colour=t.random.randbytes(3),
    )
    t.change(
        "inventory",
        "inserts",
        "INSERT INTO inventory (warehouse, product_id, stock) VALUES ('berlin', %(id)s, 0), ('oslo', %(id)s, 5)",
        id=product,
    )
    t.change(
        "documents",
        "inserts",
        "INSERT INTO documents (slug, product_id, title, body)"
        " VALUES (%(slug)s, %(id)s, 'How to use your kettle', long_text(%(slug)s))",
        slug=f"manual-{t.random.randint(0, 999)}-{t.random.randbytes(4).hex()}",
        id=product,
    )


def discontinue_product(t: Transaction) -> None:
    """A product that was never released goes, with its stock and manual."""
    query = "SELECT id FROM products WHERE released IS NULL ORDER BY id DESC LIMIT 1 FOR UPDATE SKIP LOCKED"
    (product,) = t.pick(query)
    for table, column in (("documents", "product_id"), ("inventory", "product_id"), ("products", "id")):
        t.change(table, "deletes", f"DELETE FROM {table} WHERE {column} = %(id)s", id=product)  # noqa: S608 (constants)


def count_stock(t: Transaction) -> None:
    """Somebody counts some products in one warehouse."""
    t.change(
        "inventory",
        "updates",
        "UPDATE inventory SET stock = stock + 3, counted_at = localtimestamp"
        " WHERE warehouse = 'lisbon' AND product_id = ANY(%(products)s)",
        products=t.products(5),
    )


def move_stock(t: Transaction) -> None:
    """A product's stock moves to another warehouse: a change of a composite key."""
    query = (
        "SELECT warehouse, product_id FROM inventory WHERE warehouse IN ('oslo', 'turin')"
        " AND product_id >= (SELECT max(id) * %(chance)s FROM products) ORDER BY product_id LIMIT 1"
        " FOR UPDATE SKIP LOCKED"
    )
    warehouse, product = t.pick(query)
    statement = "UPDATE inventory SET warehouse = %(to)s WHERE warehouse = %(was)s AND product_id = %(id)s"
    other = "turin" if warehouse == "oslo" else "oslo"
    t.change("inventory", "updates", statement, to=other, was=warehouse, id=product)


def read_document(t: Transaction) -> None:
    """A manual is looked at: its large body stays as it is, and is not in the WAL."""
    t.change("documents", "updates", "UPDATE documents SET views = views + 1 WHERE slug = %(slug)s", slug=t.document())


def rewrite_document(t: Transaction) -> None:
    """A manual gets a new body."""
    t.change(
        "documents",
        "updates",
        "UPDATE documents SET body = long_text(%(seed)s), revision = revision + 1, edited_at = now()"
        " WHERE slug = %(slug)s",
        seed=t.random.randbytes(8).hex(),
        slug=t.document(),
    )


def rename_document(t: Transaction) -> None:
    """A manual gets another key, beside a large body that is not in the WAL."""
    slug = t.document()
    statement = "UPDATE documents SET slug = %(new)s WHERE slug = %(slug)s"
    stem = "-".join(slug.split("-")[:2])
    t.change("documents", "updates", statement, slug=slug, new=f"{stem}-{t.random.randbytes(4).hex()}")


ACTIONS: Final[Mapping[Callable[[Transaction], None], int]] = {
    browse: 22,
    place_order: 20,
    pay_order: 12,
    ship_order: 10,
    read_document: 8,
    edit_profile: 6,
    count_stock: 4,
    change_prices: 4,
    cancel_order: 4,
    describe_event: 3,
    refund: 3,
    register: 3,
    renumber_items: 2,
    move_stock: 2,
    forget_events: 2,
    correct_time: 2,
    rename_document: 2,
    rewrite_document: 2,
    announce_product: 2,
    discontinue_product: 2,
    close_account: 1,
}
"""Every action, and how often it happens in a round of about a hundred."""
