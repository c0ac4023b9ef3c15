"""Fills the tables of a shop, and DBOS's, with copies of one real order, as if so many had been bought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bench.servers import UNITS, Database, driver_url
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


def fill(database: Database, key: str, count: int) -> None:
    """Copy the order of that key, which is done, until there are `count`, while the shop is closed."""
    settings = Settings.from_env({"DBOS_DATABASE_URL": database.url})
    places = {settings.database_url: "public", settings.system_database_url: "dbos"}
    if database.kind == "Postgres":
        places = {settings.database_url: "public,dbos"}
    before = database.value("SELECT count(*) FROM orders")
    for url, schemas in places.items():
        engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
        for schema in schemas.split(","):
            named = None if database.kind == "SQLite" or schema == "public" else schema
            for template in _templates(engine, named, key):
                _copy(engine, template, key, (before, count))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
    # The counter and the shelf, as if these orders had been bought.
    database.change("UPDATE counters SET value = :count WHERE counter = 'orders'", count=count)
    database.change("UPDATE products SET on_hand = :units - :count", units=UNITS, count=count)


def _templates(engine: sa.Engine, schema: str | None, key: str) -> list[_Template]:
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
            everything = connection.execute(sa.text(f"SELECT {_listed(columns)} FROM {name}"))  # noqa: S608
            rows = [row for row in everything if any(_names(value, key) for value in row)]
        if rows:
            found.append(_Template(name, columns, rows))
    return found


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)  # one is called offset


def _names(value: object, key: str) -> bool:
    return isinstance(value, str) and key in value


def _copy(engine: sa.Engine, template: _Template, key: str, counts: tuple[int, int]) -> None:
    before, count = counts
    for first in range(before + 1, count + 1, _BATCH):
        last = min(first + _BATCH - 1, count)
        with engine.begin() as connection:
            for row in template.rows:
                values = {"first": first, "last": last}
                wanted = [
                    _expression(name, kind, value, key, values)
                    for (name, kind), value in zip(template.columns.items(), row, strict=True)
                ]
                connection.execute(
                    sa.text(
                        f"INSERT INTO {template.table} ({_listed(template.columns)})"  # noqa: S608
                        " WITH RECURSIVE numbers (n) AS (SELECT CAST(:first AS INTEGER)"
                        " UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)"
                        f" SELECT {', '.join(wanted)} FROM numbers"
                    ),
                    values,
                )


def _expression(name: str, kind: str, value: Any, key: str, values: dict[str, Any]) -> str:
    """What one column of a copy has: what the order had, with a key and a number of its own."""
    if name == "order_id":
        return "n"
    if not _names(value, key):
        values[name] = value
        return f"CAST(:{name} AS {kind})"
    parts = value.split(key)
    written = []
    for index, part in enumerate(parts):
        values[f"{name}_{index}"] = part
        written.append(f"CAST(:{name}_{index} AS TEXT)")
    return " || 'copy-of-an-order-' || n || ".join(written)
