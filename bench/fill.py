"""Fills the tables of a shop, and DBOS's, with copies of one real order, as if so many had been bought."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from bench.servers import UNITS, Database, driver_url
from store import schema, workflows
from store.repair import housekeeper
from store.settings import Settings

_BATCH = 50_000
_KEPT = frozenset({"executors", "server_code", "recoveries", "storm_sales"})


@dataclass(frozen=True)
class _Template:
    """The rows that one order has left in one table."""

    table: str
    columns: dict[str, str]
    """With the type of each, as the database writes it."""
    rows: list[Any]


@dataclass(frozen=True)
class _Order:
    """What is copied."""

    key: str
    number: int

    def names(self, row: Any) -> bool:
        """Whether a row is of this order."""
        return any(isinstance(value, str) and self.key in value for value in row)

    def split(self, value: object) -> list[str]:
        """A text at each place that has the key or the number of this order; they have odd indices."""
        if not isinstance(value, str):
            return []
        number = rf'(?:(?<="order_id":)|(?<="order_id": )){self.number}\b'
        return re.split(rf"({re.escape(self.key)}|{number})", value)


def fill(database: Database, key: str, count: int) -> None:
    """Copy the order of that key, which is done, until there are `count`, while the shop is closed."""
    settings = Settings.from_env({"DBOS_DATABASE_URL": database.url})
    places = {settings.database_url: "public", settings.system_database_url: "dbos"}
    if database.kind == "Postgres":
        places = {settings.database_url: "public,dbos"}
    number = database.value("SELECT order_id FROM orders WHERE payment_id = :key", key=key)
    order, before = _Order(key, number), database.value("SELECT count(*) FROM orders")
    for url, schemas in places.items():
        engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
        for place in schemas.split(","):
            named = None if database.kind == "SQLite" or place == "public" else place
            for template in _templates(engine, named, order):
                _copy(engine, template, order, (before, count))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
    # The counter and the shelf, as if these orders had been bought.
    database.change("UPDATE counters SET value = :count WHERE counter = 'orders'", count=count)
    database.change("UPDATE products SET on_hand = :units - :count", units=UNITS, count=count)
    _close_books(settings)


def _close_books(settings: Settings) -> None:
    """As the shop does by itself, while it grows."""
    databases, close = schema.connect(settings), inspect.unwrap(workflows.close)
    with databases.store.connect() as connection:
        number = connection.execute(
            sa.text("SELECT value FROM counters WHERE counter = 'closings'")
        ).scalar_one()
    sealed = housekeeper.ENOUGH
    while sealed >= housekeeper.ENOUGH:
        number += 1
        with Session(databases.store) as session, session.begin():
            session.connection()
            sealed = close(session, number)
    databases.close()


def _templates(engine: sa.Engine, schema: str | None, order: _Order) -> list[_Template]:
    """Of each table that has rows of this order, those that others refer to first."""
    inspector = sa.inspect(engine)
    found = []
    for table, _ in inspector.get_sorted_table_and_fkc_names(schema=schema):
        if table is None or table in _KEPT:
            continue
        columns = {
            each["name"]: each["type"].compile(engine.dialect)
            for each in inspector.get_columns(table, schema=schema)
            if not each.get("computed")
        }
        name = f'{schema}."{table}"' if schema else f'"{table}"'
        with engine.connect() as connection:
            everything = connection.execute(sa.text(f"SELECT {_listed(columns)} FROM {name}"))
            rows = [row for row in everything if order.names(row)]
        if rows:
            found.append(_Template(name, columns, rows))
    return found


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)  # one is called offset


def _copy(engine: sa.Engine, template: _Template, order: _Order, counts: tuple[int, int]) -> None:
    before, count = counts
    for first in range(before + 1, count + 1, _BATCH):
        last = min(first + _BATCH - 1, count)
        with engine.begin() as connection:
            for row in template.rows:
                values = {"first": first, "last": last}
                wanted = [
                    _expression(name, kind, order.split(value) or value, values)
                    for (name, kind), value in zip(template.columns.items(), row, strict=True)
                ]
                connection.execute(
                    sa.text(
                        f"INSERT INTO {template.table} ({_listed(template.columns)})"
                        " WITH RECURSIVE numbers (n) AS (SELECT CAST(:first AS INTEGER)"
                        " UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)"
                        f" SELECT {', '.join(wanted)} FROM numbers"
                    ),
                    values,
                )


def _expression(name: str, kind: str, value: Any, values: dict[str, Any]) -> str:
    """What one column of a copy has: what the order had, with a key and a number of its own."""
    if name == "order_id":
        return "n"
    if name == "created_at":  # DBOS's: no shop is so fast that all were bought in one millisecond
        return f"{value} - n"
    if not isinstance(value, list):
        values[name] = value
        return f"CAST(:{name} AS {kind})"
    written = []
    for index, part in enumerate(value):
        values[f"{name}_{index}"] = part
        is_text = index % 2 == 0
        own = "CAST(n AS TEXT)" if part.isdigit() else "'copy-of-an-order-' || n"
        written.append(f"CAST(:{name}_{index} AS TEXT)" if is_text else own)
    return f"CAST({' || '.join(written)} AS {kind})"
