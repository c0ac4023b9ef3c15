"""The engines and the schema: what the shop finds, makes, refuses, and is held to."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from store.database import Databases, make_engines
from store.database_errors import DatabaseAway
from store.schema import SCHEMA_VERSION, connect, prepare
from store.settings import Settings, is_sqlite
from tests.conftest import NewUrl
from tests.support.postgres import Postgres
from tests.support.refusal import refusal
from tests.support.shop import Shop
from tests.support.standstill import orders_held
from tests.support.started import ROOT
from tests.support.tables import Tables

pytestmark = pytest.mark.each_database


def settings(url: str) -> Settings:
    """The settings of a shop on this database."""
    return Settings.from_env({"DBOS_DATABASE_URL": url})


@pytest.fixture(scope="session")
def new_url(new_url: NewUrl, request: pytest.FixtureRequest) -> NewUrl:
    """Gives the URL of a database that is not there at all: here it is the schema that is looked at."""
    if is_sqlite(new_url()):
        return new_url
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_url


@pytest.fixture(scope="module")
def url(new_url: NewUrl) -> str:
    """The URL of this module's database."""
    return new_url()


@pytest.fixture(scope="module")
def databases(url: str) -> Iterator[Databases]:
    """A database with the schema and no shop on it."""
    databases = connect(settings(url))
    yield databases
    databases.close()


def contents(url: str) -> dict[str, list[Any]]:
    """Every row of every table of the store."""
    books = Tables(url)
    tables = ("schema_version", "products", "counters", "orders", "stock_movements", "payments")
    return {table: books.rows(f"SELECT * FROM {table}") for table in tables}  # noqa: S608


# --- the schema -----------------------------------------------------------------------------


def test_the_schema_applies_again_and_changes_nothing(open_shop: Callable[..., Shop]) -> None:
    """A database in use is as it was afterwards, down to the last row."""
    shop = open_shop(units=3)
    shop.shopper.cancel(shop.shopper.buy())
    shop.server.stop()
    before = contents(shop.database_url)
    for _ in range(2):
        if not is_sqlite(shop.database_url):  # there a shop applies it to tables of another version alone
            with psycopg.connect(shop.database_url) as connection:
                connection.execute((ROOT / "schema.sql").read_bytes())
        connect(settings(shop.database_url)).close()
    assert contents(shop.database_url) == before


def test_a_command_does_not_wait_for_the_orders_of_a_running_shop(postgres: Postgres) -> None:
    """Nor they for it: `CREATE INDEX` locks its table on Postgres, also where the index is there."""
    url = postgres.new_url()
    connect(settings(url)).close()
    with orders_held(url):
        connect(settings(url)).close()


def test_shops_that_open_together_make_one_schema(new_url: NewUrl) -> None:
    """Many connect at once to a database that does not exist yet; all succeed."""
    url = new_url()
    with ThreadPoolExecutor(8) as shops:
        for databases in shops.map(lambda _: connect(settings(url)), range(8)):
            databases.close()
    rows = contents(url)
    assert [tuple(row) for row in rows["schema_version"]] == [(1, SCHEMA_VERSION)]
    assert len(rows["products"]) == len(rows["stock_movements"]) == 1


_ORDER = """
INSERT INTO orders (payment_id, order_id, product_id, price_cents, status, reason, progress, created_at_ms,
    pay_by_ms, updated_at_ms) VALUES ('one', 1, 1, 9999, 'cancelled', 'sold_out', 0, 1, 2, 1);
UPDATE counters SET value = 1 WHERE counter = 'orders';
"""
_WITH_GENERATIONS = """
INSERT INTO generations (generation, executor_id, pid, started_at_ms, stopped_at_ms)
    VALUES (1, 'local', 11, 5, NULL), (2, 'local', 12, 6, 7);
UPDATE counters SET value = 2 WHERE counter = 'generations';
INSERT INTO recoveries (generation, payment_id) VALUES (2, 'one');
INSERT INTO naive_runs (run, key, visitor, generation, started_at_ms) VALUES (1, 'n', 'N', 2, 6);
INSERT INTO naive_orders (payment_id, status, progress) VALUES ('n', 'paid', 3);
INSERT INTO naive_payments (payment_id, amount_cents) VALUES ('n', 9999)
"""
_WITH_EXECUTORS = """
INSERT INTO executors (number, executor_id, machine, pid, started_at_ms, stopped_at_ms)
    VALUES (1, 'local-1', 'local', 11, 5, NULL), (2, 'local-2', 'local', 12, 6, 7);
UPDATE counters SET value = 2 WHERE counter = 'executors';
INSERT INTO recoveries (executor, payment_id) VALUES (2, 'one');
INSERT INTO naive_runs (run, key, visitor, executor, started_at_ms) VALUES (1, 'n', 'N', 2, 6);
INSERT INTO naive_orders (payment_id, status, progress) VALUES ('n', 'paid', 3);
INSERT INTO naive_payments (payment_id, amount_cents) VALUES ('n', 9999)
"""
_AS_IT_WAS = {
    **dict.fromkeys((1, 2), _WITH_GENERATIONS),
    **dict.fromkeys((3, 4, 5, 6), _WITH_EXECUTORS),
}
"""What a shop of each earlier version had, besides its one order."""


@pytest.mark.parametrize("version", sorted(_AS_IT_WAS))
def test_a_database_of_an_earlier_version_becomes_as_a_new_one(new_url: NewUrl, version: int) -> None:
    """Table by table and column by column; what it had is still there."""
    url, fresh = new_url(), new_url()
    connect(settings(fresh)).close()
    as_a_new_one = shape(fresh)
    make_as_of_version(url, version)
    books = Tables(url)
    for statement in (_ORDER.strip().rstrip(";") + ";" + _AS_IT_WAS[version]).split(";"):
        books.change(statement)
    for _ in range(2):  # the second time, nothing is left to do
        connect(settings(url)).close()
        assert shape(url) == as_a_new_one
        assert books.rows(
            "SELECT number, executor_id, pid, ended_at_ms, how_ended FROM executors ORDER BY number"
        ) == [
            (1, "local-1", 11, 6, "lost"),
            (2, "local-2", 12, 7, "stopped"),
        ]
        assert books.rows("SELECT left_by, payment_id FROM takeovers") == [(1, "one")]
        assert books.rows("SELECT executor, visitor FROM naive_runs") == [(2, "N")]
        assert books.rows("SELECT status, progress FROM naive_orders") == [("paid", 3)]
        assert books.rows("SELECT value FROM counters WHERE counter = 'executors'") == [(2,)]
    shop = Shop(url)
    shop.server.start()
    try:
        payment_id = shop.shopper.buy()
        shop.shopper.confirm(payment_id)
        shop.shopper.wait_for(payment_id, "Dispatched")
        assert not shop.tables.faults()
    finally:
        shop.server.close()


def test_a_file_is_not_changed_under_a_server_of_an_earlier_version(tmp_path: Path) -> None:
    """Not even by `app.py stuck`: one sentence, and the tables as they were, until that has stopped."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    make_as_of_version(url, 2)
    before = shape(url)
    with (tmp_path / "store.sqlite3.lock").open("a") as server:
        fcntl.flock(server, fcntl.LOCK_EX)
        sentence = refusal("app.py", "stuck", DBOS_DATABASE_URL=url)
        assert sentence.startswith("A server of an earlier version has the SQLite file")
        assert shape(url) == before
    connect(settings(url)).close()
    assert Tables(url).rows("SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]


def make_as_of_version(url: str, version: int) -> None:
    """A database with the tables that a shop of that schema version made."""
    databases = connect(settings(url))
    script = (ROOT / "tests" / "schemas" / f"{version}.sql").read_text(encoding="utf-8")
    with databases.store.connect() as connection:
        raw: Any = connection.connection.driver_connection
        if is_sqlite(url):
            tables = sa.inspect(connection).get_table_names()
            raw.executescript("PRAGMA foreign_keys = OFF;" + "".join(f"DROP TABLE {t};" for t in tables))
            raw.executescript(script)
        else:
            raw.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public;" + script)
            raw.commit()
    databases.close()


def test_postgres_tables_are_not_changed_under_a_server_of_an_earlier_version(postgres: Postgres) -> None:
    """The same, by whoever is connected as servers are."""
    url = postgres.new_url()
    connect(settings(url)).close()
    Tables(url).change("UPDATE schema_version SET version = 6")
    with psycopg.connect(url, application_name="widget-store"):
        sentence = refusal("app.py", "stuck", DBOS_DATABASE_URL=url)
    assert sentence.startswith("A server of an earlier version uses the database")


def shape(url: str) -> dict[str, Any]:
    """Every table of a database with its columns, keys and indexes."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:  # one for all that is asked, or there would be two hundred
        found = sa.inspect(connection)
        return {
            table: {
                "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)],
                "key": found.get_pk_constraint(table)["constrained_columns"],
                "foreign keys": sorted(
                    (*k["constrained_columns"], k["referred_table"]) for k in found.get_foreign_keys(table)
                ),
                "indexes": sorted(str(i["name"]) for i in found.get_indexes(table) if not i["unique"]),
                "checks": sorted(k["sqltext"] for k in found.get_check_constraints(table)),
            }
            for table in sorted(found.get_table_names())
        }


def test_a_database_of_a_newer_shop_is_refused(new_url: NewUrl) -> None:
    """One sentence that says what to do, exit code 2, and the database as it was."""
    url = new_url()
    connect(settings(url)).close()
    Tables(url).change("UPDATE schema_version SET version = 99")
    before = contents(url)
    sentence = refusal(DBOS_DATABASE_URL=url)
    assert "version 99" in sentence
    assert "DBOS_DATABASE_URL" in sentence
    assert contents(url) == before


# --- Postgres -------------------------------------------------------------------------------


def test_a_postgres_database_is_made_if_it_is_missing(postgres: Postgres) -> None:
    """Nobody has to type CREATE DATABASE."""
    url = postgres.new_url()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)
    connect(settings(url)).close()
    assert Tables(url).rows("SELECT on_hand FROM products")[0][0] == 100


def test_a_database_that_was_read_only_is_opened_once_it_is_not(postgres: Postgres) -> None:
    """As after a failover: a session that began meanwhile never writes, and is not kept for the next try."""
    url = postgres.new_url()
    connect(settings(url)).close()
    name = sa.make_url(url).database
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    databases = make_engines(settings(url))
    try:
        with pytest.raises(DatabaseAway, match="in a read-only transaction"):
            prepare(databases, settings(url))
        postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        prepare(databases, settings(url))
    finally:
        databases.close()


def test_two_processes_open_together_on_a_new_postgres(postgres: Postgres) -> None:
    """Both come up, and an order made in one is paid in the other."""
    url = postgres.new_url()
    shops = [Shop(url), Shop(url)]
    try:
        with ThreadPoolExecutor() as starting:
            list(starting.map(lambda shop: shop.server.start(), shops))
        one, other = shops
        payment_id = one.shopper.buy()
        assert other.shopper.confirm(payment_id).status == 303
        for shop in shops:
            shop.shopper.wait_for(payment_id, "Dispatched")
        assert not one.tables.faults()
    finally:
        for shop in shops:
            shop.server.close()


@pytest.mark.parametrize("variable", ["DBOS_DATABASE_URL", "DBOS_SYSTEM_DATABASE_URL"])
def test_a_postgres_that_does_not_answer_is_refused_without_its_password(
    variable: str, tmp_path: Path
) -> None:
    """One sentence that names the setting and where it led, exit code 2."""
    given = {"DBOS_DATABASE_URL": f"sqlite:///{tmp_path}/store.sqlite3"}
    sentence = refusal(**{**given, variable: "postgresql://widgets:hunter2@127.0.0.1:1/widgets"})
    assert variable in sentence
    assert "127.0.0.1" in sentence
    assert "hunter2" not in sentence


# --- SQLite ---------------------------------------------------------------------------------


def pragma(engine: sa.Engine, name: str) -> Any:
    """What a connection of this engine runs with."""
    with engine.connect() as connection:
        return connection.execute(sa.text(f"PRAGMA {name}")).scalar()


def test_sqlite_keeps_its_two_files_in_step_and_its_references_whole(tmp_path: Path) -> None:
    """Write-ahead log, full synchronisation, one writer for each file, foreign keys checked."""
    databases = connect(settings(f"sqlite:///{tmp_path}/var/store.sqlite3"))
    try:
        for engine in (databases.store, databases.system):
            assert pragma(engine, "journal_mode") == "wal"
            assert pragma(engine, "synchronous") == 2, "FULL"
            assert isinstance(engine.pool, sa.QueuePool)
            assert engine.pool.size() == 1
        for engine in (databases.store, databases.reader):
            assert pragma(engine, "foreign_keys") == 1
        assert pragma(databases.reader, "query_only") == 1
        assert databases.store.url.database != databases.system.url.database
    finally:
        databases.close()


@pytest.mark.parametrize("variable", ["DBOS_DATABASE_URL", "DBOS_SYSTEM_DATABASE_URL"])
@pytest.mark.parametrize("place", ["folder", "letter.txt"])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, variable: str, place: str) -> None:
    """One sentence that names the setting, exit code 2, and the file as it was."""
    (tmp_path / "folder").mkdir()
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Sir or Madam, " * 100)
    given = {"DBOS_DATABASE_URL": f"sqlite:///{tmp_path}/store.sqlite3"}
    sentence = refusal(**{**given, variable: f"sqlite:///{tmp_path / place}"})
    assert variable in sentence
    assert letter.read_text() == "Dear Sir or Madam, " * 100


# --- what the tables refuse -------------------------------------------------------------------

_GOOD: dict[str, dict[str, Any]] = {
    "schema_version": {"only_row": 1, "version": 1},
    "products": {"product_id": 2, "name": "Another", "description": "", "price_cents": 0, "on_hand": 0},
    "counters": {"counter": "visitors", "value": 0},
    "orders": {
        "payment_id": "a-good-order", "order_id": 1, "product_id": 1, "price_cents": 9999,
        "status": "pending", "reason": None, "progress": 0,
        "created_at_ms": 1000, "pay_by_ms": 2000, "updated_at_ms": 1000,
    },
    "stock_movements": {
        "kind": "restock", "cause": "a-cause", "product_id": 1, "units": 0, "recorded_at_ms": 0,
    },
    "payments": {"kind": "charge", "payment_id": "a-good-order", "amount_cents": 1, "recorded_at_ms": 0},
}  # fmt: skip

# What is wrong with a row that is otherwise good.
_WRONG: dict[str, list[dict[str, Any]]] = {
    "schema_version": [{}, {"only_row": 2}, {"version": None}],
    "products": [{"price_cents": -1}, {"on_hand": -1}, {"name": None}, {"product_id": 1}],
    "counters": [{"value": -1}, {"counter": "orders"}],
    "orders": [
        {"payment_id": ""}, {"payment_id": "x" * 65}, {"payment_id": None},
        {"order_id": 0}, {"order_id": -1}, {"order_id": None},
        {"product_id": 7}, {"price_cents": -1}, {"pay_by_ms": 999},
        {"status": "lost"}, {"status": "PENDING"}, {"status": None},
        {"status": "cancelled"}, {"status": "cancelled", "reason": "bored"},
        {"reason": "declined"}, {"status": "paid", "reason": "expired"},
        {"progress": -1}, {"progress": 1}, {"progress": None},
        {"status": "paid", "progress": 10}, {"status": "paid", "progress": 11},
        {"status": "dispatched"}, {"status": "dispatched", "progress": 9},
        {"status": "dispatched", "progress": 11},
        {"status": "cancelled", "reason": "declined", "progress": 3},
        {"status": "cancelled", "reason": "sold_out", "progress": 10},
    ],
    "stock_movements": [
        {"kind": "theft"}, {"kind": None}, {"cause": None}, {"cause": "opening"}, {"product_id": 7},
        {"units": None}, {"kind": "reserve"}, {"kind": "reserve", "units": 1},
        {"kind": "reserve", "units": -2}, {"kind": "release"}, {"kind": "release", "units": -1},
        {"kind": "release", "units": 2},
    ],
    "payments": [{"kind": "gift"}, {"amount_cents": -1}, {"payment_id": "nobody"}, {"payment_id": None}],
}  # fmt: skip


def insert(connection: sa.Connection, table: str, row: dict[str, Any]) -> None:
    """Insert one row, named column by named column."""
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)  # noqa: S608


@pytest.mark.parametrize(
    ("table", "wrong"),
    [(table, wrong) for table, wrongs in _WRONG.items() for wrong in wrongs],
    ids=lambda value: str(value)[:50],
)
def test_an_impossible_row_is_refused(databases: Databases, table: str, wrong: dict[str, Any]) -> None:
    """By the database itself, whatever the program believes."""
    with databases.store.connect() as connection:
        if table == "payments":
            insert(connection, "orders", _GOOD["orders"])
        with pytest.raises(sa.exc.IntegrityError):
            insert(connection, table, {**_GOOD[table], **wrong})
        connection.rollback()


def test_a_good_row_is_taken_once(databases: Databases) -> None:
    """So what is refused above is refused for what is wrong in it; and no fact is written twice."""
    with databases.store.connect() as connection:
        for table in ("products", "counters", "orders", "stock_movements", "payments"):
            insert(connection, table, _GOOD[table])
            with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
                insert(connection, table, _GOOD[table])
        connection.rollback()
