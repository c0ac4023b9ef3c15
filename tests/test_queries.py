"""The read side: one SELECT serves all who watch, lists are short and indexed, and nothing is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from store.database import Databases
from store.reads import watched
from store.reads.checkpoints import Checkpoints
from store.reads.orders import BOARD_SECONDS, LIST_LIMIT, Queries
from store.reads.records import PaymentView
from store.repair import owed_money
from store.repair.stuck_rules import Lateness
from store.schema import connect
from store.settings import Settings, is_sqlite
from store.vocabulary import PaymentState
from tests.conftest import NewUrl
from tests.support.shop import Shop
from tests.support.shopper import eventually, key
from tests.support.standstill import buy_too_late
from tests.support.tables import Tables

pytestmark = pytest.mark.each_database

_MANY = 20_000
Statements = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def databases(new_url: NewUrl) -> Iterator[Databases]:
    """A database with many orders of old, and a few that still move; no shop is open on it."""
    url = new_url()
    databases = connect(Settings.from_env({"DBOS_DATABASE_URL": url}))
    books = Tables(url)
    books.change(
        "INSERT INTO orders (payment_id, order_id, product_id, price_cents, status, reason, progress,"
        " created_at_ms, pay_by_ms, updated_at_ms)"
        " WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :many)"
        " SELECT 'order-' || n, n, 1, 9999, CASE WHEN n % 1000 = 7 THEN 'paid' ELSE 'cancelled' END,"
        " CASE WHEN n % 1000 = 7 THEN NULL ELSE 'sold_out' END, 0, n, n, n FROM numbers",
        many=_MANY,
    )
    books.change(
        "INSERT INTO executors (number, executor_id, pid, machine, started_at_ms, ended_at_ms, how_ended)"
        " VALUES (1, 'here-1', 1, 'here', 1, 2, 'died'), (2, 'here-2', 2, 'here', 3, NULL, NULL)"
    )
    books.change("UPDATE executors SET adopted_by = 2, adopted_at_ms = 3 WHERE number = 1")
    books.change(
        "INSERT INTO takeovers (left_by, payment_id, status, progress)"
        " SELECT 1, payment_id, 'paid', 0 FROM orders"
    )
    books.change("ANALYZE")
    yield databases
    databases.close()


@pytest.fixture
def queries(databases: Databases) -> Queries:
    """The read side, with nothing remembered yet."""
    return Queries(databases.reader, Checkpoints(databases.system_reader))


@contextmanager
def overheard(engine: sa.Engine) -> Iterator[Statements]:
    """The SELECTs of orders that reach the database meanwhile, with their values."""
    heard: Statements = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "orders" in statement:
            heard.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield heard
    finally:
        event.remove(engine, "before_cursor_execute", note)


# --- one read for all -------------------------------------------------------------------------


def test_a_hundred_watchers_share_one_select(databases: Databases, queries: Queries) -> None:
    """All at the same moment: one reads, and the others are given what it read."""
    together = Barrier(100)

    def watch(_: int) -> object:
        together.wait()
        return queries.board()

    with overheard(databases.reader) as selects, ThreadPoolExecutor(100) as watchers:
        began = time.monotonic()
        boards = list(watchers.map(watch, range(100)))
        took = time.monotonic() - began
    assert len(set(map(id, boards))) == len(selects)
    assert len(selects) <= 1 + took / BOARD_SECONDS


def test_watching_goes_on_at_one_select_for_each_fifth_of_a_second(
    databases: Databases, queries: Queries
) -> None:
    """However often the pages of however many orders ask."""
    asked = 0
    with overheard(databases.reader) as selects:
        began = time.monotonic()
        # Asked often enough, though the first read has a connection to make.
        while asked <= 100 or time.monotonic() - began < 3 * BOARD_SECONDS:
            assert queries.watch("order-19007").order is not None, "it moves, so it is on the board"
            asked += 1
        took = time.monotonic() - began
    assert len(selects) <= 1 + took / BOARD_SECONDS


def test_whoever_changed_something_sees_it_at_once(databases: Databases, queries: Queries) -> None:
    """Within a fifth of a second the board is the same one; forgotten, it is read anew."""
    began_at = time.monotonic()
    first = queries.board()
    assert queries.board() is first or time.monotonic() - began_at >= BOARD_SECONDS
    queries.forget_board()
    with overheard(databases.reader) as selects:
        second = queries.board()
    assert len(selects) == 1
    assert second is not first
    assert second == first


def of_payments(selects: Statements) -> list[int]:
    """Of how many payments each of these reads is, but for those of the board, which reads the shelf, too."""
    return [len(values) for statement, values in selects if "products" not in statement]


def test_what_is_not_on_the_board_is_read_by_itself_at_first(databases: Databases, queries: Queries) -> None:
    """By its key, and only that: whoever asks once may never ask again."""
    queries.watch("order-13")
    with overheard(databases.reader) as selects:
        found = queries.watch("order-12").order
    assert found is not None
    assert found.order_id == 12
    assert of_payments(selects) == [1]


def test_what_is_not_on_the_board_is_read_together_once_it_is_watched(
    databases: Databases, queries: Queries
) -> None:
    """However many pages show orders of old, and however often they ask."""
    ids = [f"order-{number}" for number in range(8, 308)]
    for each in ids:
        queries.watch(each)
    rounds = 0
    with overheard(databases.reader) as selects:
        began = time.monotonic()
        while rounds < 3 or time.monotonic() - began < 3 * BOARD_SECONDS:
            shown = [queries.watch(each).order for each in ids]
            assert [order.payment_id for order in shown if order is not None] == ids
            rounds += 1
        took = time.monotonic() - began
    assert set(of_payments(selects)) == {len(ids)}
    assert len(of_payments(selects)) <= 1 + took / BOARD_SECONDS


def test_what_nobody_watches_any_more_is_not_read(
    databases: Databases, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that was closed."""
    monkeypatch.setattr(watched, "_WATCHED_SECONDS", 2 * BOARD_SECONDS)
    for number in range(1, 11):
        queries.watch(f"order-{number}")

    def watch_two() -> list[int]:
        with overheard(databases.reader) as selects:
            queries.watch("order-1")
            queries.watch("order-2")
        return of_payments(selects)

    eventually(watch_two, lambda read: read == [2])


def test_so_many_are_read_together_and_the_others_one_by_one(
    databases: Databases, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were there first, also where all ask in turn."""
    monkeypatch.setattr(watched, "WATCHED_LIMIT", 5)
    with overheard(databases.reader) as selects:
        for _ in range(4):
            for number in range(11, 19):
                found = queries.watch(f"order-{number}").order
                assert found is not None
                assert found.order_id == number
    assert set(of_payments(selects)) == {1, 5}
    assert of_payments(selects).count(1) == 8 + 3 * 3, "each at first, and then the three others"


def test_many_who_watch_at_once_are_told_of_their_own_order(
    queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others come and go, and there is not room for all."""
    monkeypatch.setattr(watched, "WATCHED_LIMIT", 50)
    monkeypatch.setattr(watched, "_WATCHED_SECONDS", BOARD_SECONDS / 10)

    def watch(number: int) -> int:
        found = queries.watch(f"order-{number}").order
        return found.order_id if found else 0

    numbers = [10 + index % 97 for index in range(2000)]
    with ThreadPoolExecutor(16) as watchers:
        assert list(watchers.map(watch, numbers)) == numbers


def test_whoever_watches_is_told_what_becomes_of_a_payment(databases: Databases, queries: Queries) -> None:
    """That there is nothing yet, a refusal, an order, its crash: as those who ask for the first time are."""
    ids = ["order-12", "order-11", "nothing", "refused"]
    for each in ids:
        assert queries.watch(each).state is not PaymentState.REFUSED
    books = Tables(databases.store.url.render_as_string(hide_password=False))
    books.change("DELETE FROM takeovers WHERE payment_id = 'order-11'")
    books.change("INSERT INTO refusals (payment_id, client, refused_at_ms) VALUES ('refused', 'somebody', 1)")
    eventually(lambda: queries.watch("refused").state, lambda state: state is PaymentState.REFUSED)
    with overheard(databases.reader) as selects:
        seen = {each: queries.watch(each) for each in ids}
    assert 1 not in of_payments(selects), "they were read together"
    anew = Queries(databases.reader, queries.checkpoints)
    assert seen == {each: anew.watch(each) for each in ids}
    assert seen["nothing"] == PaymentView(PaymentState.RESERVING, None)
    assert [len(view.crashes) for view in seen.values()] == [1, 0, 0, 0]


# --- short and indexed ------------------------------------------------------------------------


def test_every_list_is_short(queries: Queries) -> None:
    """Whatever was asked for, and however many there are."""
    board = queries.board()
    newest = [order.order_id for order in board.newest(_MANY)[:LIST_LIMIT]]
    assert newest == list(range(_MANY, _MANY - LIST_LIMIT, -1))
    assert len(board.rows) <= LIST_LIMIT + 20
    assert len(queries.list_orders(before=_MANY, limit=10**6)) == LIST_LIMIT
    assert [order.order_id for order in queries.list_orders(before=500, limit=2)] == [499, 498]


def plan_of(databases: Databases, statement: str, values: Any) -> list[str]:
    """How the database itself explains that it goes about it, line by line."""
    explain = "EXPLAIN QUERY PLAN " if is_sqlite(str(databases.reader.url)) else "EXPLAIN "
    with databases.reader.connect() as connection:
        return [str(row[-1]).strip(" ->") for row in connection.exec_driver_sql(explain + statement, values)]


READS: dict[str, Callable[[Queries], object]] = {
    "the board": lambda queries: queries.board(),
    "a list": lambda queries: queries.list_orders(before=_MANY // 2, limit=LIST_LIMIT),
    "an order by its payment id": lambda queries: queries.find("order-12"),
    "an order by its number": lambda queries: queries.find_by_number(12),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_no_read_walks_through_all_orders(
    databases: Databases, queries: Queries, read: Callable[[Queries], object]
) -> None:
    """Each goes by an index, as the database itself explains."""
    with overheard(databases.reader) as selects:
        read(queries)
    [(statement, values)] = selects
    plan = plan_of(databases, statement, values)
    of_all = ("SCAN orders", "SCAN takeovers", "SCAN t", "Seq Scan on orders", "Seq Scan on takeovers")
    walks = [line for line in plan if line.startswith(of_all) or line == "SCAN o"]
    assert [line for line in walks if "INDEX" not in line] == [], plan
    assert any("orders" in line and "index" in line.lower() for line in plan), plan


@pytest.fixture
def owed(databases: Databases) -> Iterator[None]:
    """All those old orders were paid for and cancelled; an earlier shop has sealed it, but of the newest."""
    books = Tables(str(databases.store.url.render_as_string(hide_password=False)))
    books.change(
        "INSERT INTO payment_notices (payment_id, outcome, received_at_ms, closing)"
        " SELECT payment_id, 'paid', order_id, CASE WHEN order_id <= :sealed THEN (order_id + 499) / 500 END"
        " FROM orders WHERE status = 'cancelled'",
        sealed=_MANY - 20,
    )
    books.change("ANALYZE")
    yield
    books.change("DELETE FROM payment_notices")


@pytest.mark.usefixtures("owed")
def test_money_that_is_owed_is_looked_for_in_the_open_books(databases: Databases) -> None:
    """By index; a sweep asks for what is sealed by its ids."""
    an_hour = Lateness(3_600_000, 0, "any")
    with overheard(databases.reader) as selects, databases.reader.connect() as store:
        found = list(owed_money.find(store, an_hour))
        sealed = list(owed_money.find_sealed(store, ["order-1", "order-19980", "order-19981", "nobody's"]))
    assert [each.order_id for each in found] == list(range(_MANY - 19, _MANY + 1))
    assert [each.order_id for each in sealed] == [1, 19_980]
    assert len(selects) == 2
    for statement, values in selects:
        plan = plan_of(databases, statement, values)
        walks = [
            line for line in plan if line.startswith(("SCAN", "Seq Scan on orders", "Seq Scan on payment_"))
        ]
        assert not walks, plan


# --- nothing is written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE products SET on_hand = on_hand",
        "DELETE FROM payments",
        "INSERT INTO counters (counter, value) VALUES ('visitors', 1)",
        "DROP TABLE payments",
        "CREATE TABLE visitors (name TEXT)",
    ],
)
def test_the_database_itself_refuses_a_reader_that_writes(databases: Databases, statement: str) -> None:
    """Whatever a query may come to say one day."""
    with databases.reader.connect() as connection, pytest.raises(sa.exc.DBAPIError, match=r"read-?only"):
        connection.execute(sa.text(statement))


def everything(shop: Shop) -> dict[str, list[str]]:
    """Every row of every table, of the store and of DBOS.

    But for how often a queue is looked at, which is less often once a server has been open for some seconds,
    and for its signs of life.
    """
    settings = Settings.from_env({"DBOS_DATABASE_URL": shop.database_url})
    found: dict[str, list[str]] = {}
    for url in {settings.database_url, settings.system_database_url}:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        for schema in (None,) if is_sqlite(url) else (None, "dbos"):
            for table in sa.inspect(engine).get_table_names(schema=schema):
                if table == "queues":
                    continue
                name = f"{schema}.{table}" if schema else table
                with engine.connect() as connection:
                    rows = connection.execute(sa.text(f"SELECT * FROM {name}")).mappings()  # noqa: S608 - ours
                    kept = ({**row, "seen_at_ms": None} for row in rows)
                    found[name] = sorted(map(str, kept))
    return found


def test_a_poll_writes_nothing(open_shop: Callable[..., Shop]) -> None:
    """Ten rounds of all that is polled, and every row is as it was; `/health` writes, and is not among it."""
    shop = open_shop(units=3)
    shopper = shop.shopper
    done, pending, late = shopper.buy(), shopper.buy(), buy_too_late(shop)
    shopper.confirm(done)
    shopper.wait_for(done, "Dispatched")
    # Two wait for their payment; all that is over has been written down.
    alive = "SELECT count(*) FROM workflow_status WHERE status = 'PENDING'"
    eventually(lambda: shop.checkpoints.rows(alive), lambda rows: rows == [(2,)])
    before = everything(shop)
    assert {"orders", "payments"} <= before.keys()
    assert any(name.endswith("operation_outputs") and rows for name, rows in before.items())
    paths = [
        *(
            "/",
            f"/shelf?key={key()}",
            "/recent",
            "/product",
            "/orders",
            "/orders?limit=5&before=3",
            "/order/1",
            "/ledger/lines",
            "/ledger.json",
        ),
        *(f"/orders/{each}{part}" for each in (done, pending) for part in ("", "/progress", "/timeline")),
        *(f"/pay/{each}{part}" for each in (pending, late) for part in ("", "/status")),
    ]
    for _ in range(10):
        for path in paths:
            assert shopper.get(path).status == 200
    assert everything(shop) == before
