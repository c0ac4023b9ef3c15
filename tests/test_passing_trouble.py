"""What passes in a database is waited out: every order comes to its end, without a restart."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from dbos import SQLAlchemyDatasource
from dbos._sys_db import db_retry
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from store import database, database_errors, schema
from store.durable import private_names, step_decorators
from store.settings import Settings
from tests.support.postgres import Postgres
from tests.support.shop import Shop
from tests.support.shopper import eventually, key

_OPEN = resource.RLIM_INFINITY
_WITHIN_SECONDS = 15.0
"""Of the end of the trouble, everything goes on again."""


def assert_they_end(shop: Shop, **endings: str) -> None:
    """Each order, by its payment id, ends as it must, soon."""
    wanted = {payment_id: ending for ending, payment_id in endings.items()}
    eventually(
        lambda: {each: ending for each, ending in shop.tables.orders().items() if each in wanted},
        lambda ended: ended == wanted,
        timeout_seconds=_WITHIN_SECONDS,
    )
    assert not shop.tables.faults()
    assert shop.checkpoints.rows("SELECT workflow_uuid FROM workflow_status WHERE status = 'ERROR'") == []


def wait_until_time_is_up(shop: Shop, payment_id: str) -> None:
    """Until the payment window of an order has been over for a second, as its row says."""
    [(pay_by_ms,)] = shop.tables.rows("SELECT pay_by_ms FROM orders WHERE payment_id = :id", id=payment_id)
    eventually(time.time, lambda now: now > pay_by_ms / 1000 + 1)


def start_three(shop: Shop) -> tuple[str, str, str]:
    """One that nobody will pay, one that is being dispatched, and one that will be paid when it is over."""
    unpaid, under_way, pending = key(), key(), key()
    for each in (unpaid, under_way):
        shop.shopper.hold(each)
    shop.shopper.confirm(under_way)
    shop.shopper.wait_for(under_way, "Paid. Your widget is on its way")
    return unpaid, under_way, pending


# --- SQLite: a full disk ----------------------------------------------------------------------------


def test_a_window_that_ends_while_the_disk_is_full(tmp_path: Path) -> None:
    """Its order is cancelled once there is room; what was charged is dispatched; what is new is sold."""
    shop = Shop(
        f"sqlite:///{tmp_path}/store.sqlite3",
        STORE_PAYMENT_WINDOW_SECONDS=8,
        STORE_DISPATCH_TICK_SECONDS=0.3,
    )
    shop.server.start()
    try:
        unpaid, under_way, later = start_three(shop)
        resource.prlimit(shop.server.pid, resource.RLIMIT_FSIZE, (0, _OPEN))
        wait_until_time_is_up(shop, unpaid)
        assert shop.tables.orders()[unpaid] == "pending"
        resource.prlimit(shop.server.pid, resource.RLIMIT_FSIZE, (_OPEN, _OPEN))
        assert_they_end(shop, expired=unpaid, dispatched=under_way)
        shop.shopper.buy(later)
        shop.shopper.confirm(later)
        shop.shopper.wait_for(later, "Dispatched")
    finally:
        shop.server.close()


# --- Postgres: cancelled statements, read-only, locks -------------------------------------------------


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A Postgres server whose settings may be changed without changing those of other tests."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def shop(own_postgres: Postgres) -> Iterator[Shop]:
    """A shop on it with a short payment window."""
    shop = Shop(own_postgres.new_url(), STORE_PAYMENT_WINDOW_SECONDS=8, STORE_DISPATCH_TICK_SECONDS=0.3)
    shop.server.start()
    yield shop
    shop.server.close()


@contextmanager
def statements_cancelled(postgres: Postgres) -> Iterator[None]:
    """Whatever the shop asks meanwhile is cancelled again and again, as a statement timeout does it."""
    is_over = threading.Event()

    def cancel() -> None:
        with psycopg.connect(postgres.maintenance_url, autocommit=True) as connection:
            while not is_over.wait(0.001):
                connection.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'widget-store' AND state <> 'idle'"
                )

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def read_only(postgres: Postgres) -> Iterator[None]:
    """Every transaction is refused that writes, as by a standby after a failover."""
    for value, is_on in (("on", True), ("off", False)):
        with psycopg.connect(postgres.maintenance_url, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
            connection.execute("SELECT pg_reload_conf()")
        if is_on:
            try:
                yield
            except BaseException:
                with contextlib.suppress(Exception):
                    postgres.execute("ALTER SYSTEM RESET default_transaction_read_only")
                raise


@pytest.mark.sampled(1)
@pytest.mark.parametrize("trouble", [statements_cancelled, read_only])
def test_an_order_outlives(
    own_postgres: Postgres, shop: Shop, trouble: Callable[[Postgres], AbstractContextManager[None]]
) -> None:
    """A window ends and a dispatch is under way meanwhile; nothing ends in an error, nothing is stuck."""
    unpaid, under_way, later = start_three(shop)
    with trouble(own_postgres):
        wait_until_time_is_up(shop, unpaid)
    assert_they_end(shop, expired=unpaid, dispatched=under_way)
    shop.shopper.buy(later)
    shop.shopper.confirm(later)
    shop.shopper.wait_for(later, "Dispatched")


def test_a_page_whose_checkpoints_were_cancelled_says_come_back(own_postgres: Postgres, shop: Shop) -> None:
    """DBOS has an error of its own for that; to a shopper it is a database that does not answer."""
    payment_id = shop.shopper.buy(key())
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%operation_outputs%'"
        " AND query NOT LIKE '%pg_stat_activity%'"
    )
    with (
        psycopg.connect(shop.database_url) as locker,
        psycopg.connect(own_postgres.maintenance_url, autocommit=True) as other,
        ThreadPoolExecutor() as pool,
    ):
        locker.execute("LOCK TABLE dbos.operation_outputs IN ACCESS EXCLUSIVE MODE")
        asked = pool.submit(shop.shopper.page, f"/orders/{payment_id}")
        while not asked.done():
            for (pid,) in other.execute(waiting).fetchall():
                other.execute("SELECT pg_cancel_backend(%s)", [pid])
        locker.rollback()
    assert asked.result().status == 503


def test_a_click_on_the_lanes_does_not_wait_for_the_naive_one(shop: Shop) -> None:
    """It writes to tables of its own, and whoever clicked is told to come again, as by every other click."""
    one = key()
    with psycopg.connect(shop.database_url) as locker:
        locker.execute("LOCK TABLE naive_runs IN ACCESS EXCLUSIVE MODE")
        assert shop.shopper.submit("/lanes", key=one).status == 503
        locker.rollback()
    eventually(lambda: shop.shopper.submit("/lanes", key=one).status, lambda status: status == 303)
    assert shop.tables.rows("SELECT key FROM naive_runs") == [(one,)]


@pytest.mark.parametrize(
    "setting",
    ["statement_timeout = '1ms'", "lock_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'"],
)
def test_the_timeouts_of_a_role_are_not_those_of_the_shop(own_postgres: Postgres, setting: str) -> None:
    """Writers set their own, so what an administrator sets for everybody cancels nothing of theirs."""
    url = own_postgres.new_url()
    schema.connect(Settings.from_env({"DBOS_DATABASE_URL": url})).close()
    name = sa.make_url(url).database
    own_postgres.execute(f'ALTER DATABASE "{name}" SET {setting}')
    shop = Shop(url)
    shop.server.start()
    try:
        payment_id = shop.shopper.buy(key())
        shop.shopper.confirm(payment_id)
        shop.shopper.wait_for(payment_id, "Dispatched")
    finally:
        shop.server.close()


# --- the list of what passes --------------------------------------------------------------------------

_PASSING = ("08000", "08006", "25006", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01",
            "57P03", "58000", "58030")  # fmt: skip
_LASTING = ("22012", "23505", "25P02", "42501", "42P01", "55000", "XX000")


@pytest.fixture(scope="module")
def bound(own_postgres: Postgres) -> Iterator[sa.Engine]:
    """The steps, bound to a database of their own."""
    settings = Settings.from_env({"DBOS_DATABASE_URL": own_postgres.new_url()})
    databases = schema.connect(settings)
    step_decorators.bind(SQLAlchemyDatasource.create(settings.database_url, engine=databases.store))
    yield databases.store
    databases.close()


def fails_once_with(code: str) -> tuple[Callable[[Session], str], list[int]]:
    """A change that meets an error of this SQLSTATE the first time; and how often it was tried."""
    tries: list[int] = []

    def change(session: Session) -> str:
        tries.append(1)
        if len(tries) == 1:
            session.execute(sa.text(f"DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$"))
        return "done"

    return change, tries


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize("code", _PASSING)
def test_what_passes_is_tried_again(code: str) -> None:
    """Each class of the list, by a real error of a real server."""
    change, tries = fails_once_with(code)
    assert step_decorators.commit(change) == "done"
    assert len(tries) == 2


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize("code", _LASTING)
def test_what_does_not_pass_is_not(code: str) -> None:
    """A mistake of ours is none the better for being made again."""
    change, tries = fails_once_with(code)
    with pytest.raises(DBAPIError):
        step_decorators.commit(change)
    assert len(tries) == 1


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "?host=/nowhere", "shop.invalid"],
    ids=["nobody listens", "no socket", "no such name"],
)
def test_a_server_that_is_not_there_is_waited_for(address: str) -> None:
    """However it is not there: DBOS by itself knows but the first of these, by its text."""
    where = f"/store{address}" if address.startswith("?") else f"{address}/store"
    settings = Settings.from_env({"DBOS_DATABASE_URL": f"postgresql://shop@{where}"})
    databases = database.make_engines(settings)
    tries: list[int] = []

    @db_retry(initial_backoff=0.01)
    def connect() -> str:
        tries.append(1)
        if len(tries) > 1:
            return "tried again"
        with databases.system.connect():
            return "connected"

    assert connect() == "tried again"
    databases.close()


def test_every_class_of_the_list_is_tried_here() -> None:
    """And nothing that is tried is not on it."""
    assert {
        code for code in database_errors.PASSING_SQLSTATES if not any(c.startswith(code) for c in _PASSING)
    } == set()
    assert all(code.startswith(database_errors.PASSING_SQLSTATES) for code in _PASSING)


def test_dbos_tries_again_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it has tried; where DBOS renames the clock that its retries sleep by, this fails."""
    slept: list[float] = []
    private_names.retry_lost_databases_within(5.0)
    monkeypatch.setattr(time, "sleep", slept.append)

    @db_retry(initial_backoff=60.0)
    def lose_the_connection_once() -> str:
        if not slept:
            raise DBAPIError("SELECT 1", None, Exception("gone"), connection_invalidated=True)
        return "done"

    assert lose_the_connection_once() == "done"
    assert max(slept) <= 5
