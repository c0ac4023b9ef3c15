"""The books of a shop, read from its tables: what must hold at any moment, whatever crashed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from store.settings import Settings, is_sqlite

# Each says what is wrong, and selects the rows that are.
FAULTS = {
    "an order paid or dispatched without exactly one charge and no refund": """
        SELECT o.order_id FROM orders o WHERE o.status IN ('paid', 'dispatched') AND
        ((SELECT count(*) FROM payments p WHERE p.payment_id = o.payment_id AND p.kind = 'charge') <> 1 OR
         EXISTS (SELECT 1 FROM payments p WHERE p.payment_id = o.payment_id AND p.kind = 'refund'))""",
    "an order pending or cancelled and charged, without a refund": """
        SELECT o.order_id FROM orders o WHERE o.status IN ('pending', 'cancelled') AND
        (SELECT count(*) FROM payments p WHERE p.payment_id = o.payment_id AND p.kind = 'charge') <>
        (SELECT count(*) FROM payments p WHERE p.payment_id = o.payment_id AND p.kind = 'refund')""",
    "a charge that is not the price": """
        SELECT o.order_id FROM orders o JOIN payments p USING (payment_id)
        WHERE p.amount_cents <> o.price_cents""",
    "an order that took no unit and should have, or the reverse": """
        SELECT o.order_id FROM orders o WHERE
        (SELECT count(*) FROM stock_movements m WHERE m.cause = o.payment_id AND m.kind = 'reserve') <>
        CASE WHEN o.reason = 'sold_out' THEN 0 ELSE 1 END""",
    "an order that ended and kept its unit, or has not and gave it back": """
        SELECT o.order_id FROM orders o WHERE
        (SELECT count(*) FROM stock_movements m WHERE m.cause = o.payment_id AND m.kind = 'release') <>
        CASE WHEN o.reason IN ('declined', 'expired') THEN 1 ELSE 0 END""",
    "units stocked that are not on hand, held or sold": """
        SELECT 'stock' FROM products p WHERE
        (SELECT coalesce(sum(units), 0) FROM stock_movements WHERE kind = 'restock') <>
        p.on_hand + (SELECT count(*) FROM orders WHERE status IN ('pending', 'paid', 'dispatched'))""",
    "a shelf that the movements do not add up to": """
        SELECT 'shelf' FROM products p WHERE p.on_hand <> (SELECT sum(units) FROM stock_movements)""",
    "a unit counted as held for a client, by an order that holds none": """
        SELECT h.payment_id FROM holds h JOIN orders o USING (payment_id) WHERE o.status <> 'pending'""",
    "order numbers with a gap": """
        SELECT count(*) FROM orders HAVING count(*) <> coalesce(max(order_id), 0)
        OR count(*) <> (SELECT value FROM counters WHERE counter = 'orders')""",
}


def checkpoints_of(database_url: str) -> str:
    """Where a shop on this database has its checkpoints."""
    return Settings.from_env({"DBOS_DATABASE_URL": database_url}).system_database_url


class Tables:
    """A reader of one shop's tables, beside the shop."""

    def __init__(self, database_url: str, schema: str = "public") -> None:
        arguments = {}
        if not is_sqlite(database_url):
            database_url = database_url.replace("postgresql://", "postgresql+psycopg://")
            arguments = {"options": f"-c search_path={schema}"}
        self._engine = sa.create_engine(database_url, poolclass=sa.NullPool, connect_args=arguments)

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """Select."""
        with self._engine.connect() as connection:
            return list(connection.execute(sa.text(statement), values))

    def change(self, statement: str, **values: Any) -> None:
        """Arrange the shop before a test begins; what the shop does itself, it does by workflow."""
        with self._engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def faults(self) -> dict[str, list[Any]]:
        """What is wrong, in words, with the orders concerned; empty when the books balance."""
        found = {fault: [row[0] for row in self.rows(select)] for fault, select in FAULTS.items()}
        return {fault: orders for fault, orders in found.items() if orders}

    def orders(self) -> dict[str, str]:
        """Each payment id with its order's status, or the reason it was cancelled for."""
        return {
            row.payment_id: row.reason or row.status
            for row in self.rows("SELECT payment_id, status, reason FROM orders ORDER BY order_id")
        }

    def change_unchecked(self, statement: str) -> None:
        """Arrange what the schema itself forbids."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.execute(sa.text("PRAGMA ignore_check_constraints = ON"))
            else:
                for name in connection.execute(
                    sa.text(
                        "SELECT conname FROM pg_constraint WHERE contype = 'c'"
                        " AND conrelid = 'orders'::regclass AND conname LIKE 'orders_check%'"
                    )
                ).scalars():
                    connection.execute(sa.text(f'ALTER TABLE orders DROP CONSTRAINT "{name}"'))
            connection.execute(sa.text(statement))

    def refill(self) -> None:
        """Stock a hundred units more, in a shop that is closed."""
        self.change("UPDATE products SET on_hand = on_hand + 100")
        self.change("UPDATE stock_movements SET units = units + 100 WHERE cause = 'opening'")

    def stock(self, units: int) -> None:
        """Make it a shop that opened with this many units. Only before its first order."""
        self.change("UPDATE products SET on_hand = :units", units=units)
        self.change("UPDATE stock_movements SET units = :units WHERE cause = 'opening'", units=units)
