"""A server that dies while its database is away has a successor that says so, and opens when it is back."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from store.schema import SCHEMA_VERSION
from store.settings import REFUSED
from tests.support.postgres import Postgres
from tests.support.refusal import is_calm_refusal
from tests.support.shop import SupervisedShop
from tests.support.shopper import Answer, eventually, key, timed
from tests.support.standstill import orders_held, workflows_held
from tests.support.started import family_of, is_alive
from tests.support.tables import Tables, checkpoints_of

_AT_ONCE_SECONDS = 1.5
"""Less than any wait for a database, and more than a busy machine takes for a page."""
_SAYS_SO_SECONDS = 20.0
"""Of its death, the next server answers: a start on a busy machine, and a page's time for the database.
No promise: beside ten busy processes on two cores, a start alone took more than six."""
_BACK_SECONDS = 20.0
"""Of the end of the trouble, everything goes on again."""
_STOP_SECONDS = 3.0
_OPEN = resource.RLIM_INFINITY


@pytest.fixture
def postgres_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A Postgres server that may be stopped without stopping that of other tests."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def keep() -> Iterator[Callable[[str], SupervisedShop]]:
    """Opens a shop with a parent."""
    opened: list[SupervisedShop] = []

    def open_one(database_url: str) -> SupervisedShop:
        opened.append(SupervisedShop(database_url, STORE_DISPATCH_TICK_SECONDS=0.3))
        return opened[-1]

    yield open_one
    for kept in opened:
        kept.parent.close()


@pytest.fixture
def on_postgres(keep: Callable[[str], SupervisedShop], postgres_of_our_own: Postgres) -> SupervisedShop:
    """A shop with a parent, on that server."""
    return keep(postgres_of_our_own.new_url())


@pytest.fixture
def on_sqlite(keep: Callable[[str], SupervisedShop], tmp_path: Path) -> SupervisedShop:
    """A shop with a parent, on files of its own."""
    return keep(f"sqlite:///{tmp_path}/store.sqlite3")


def kill(shop: SupervisedShop) -> None:
    """Kill its server, and wait until the next one has answered the parent."""
    count = len(shop.deaths) + 1
    os.kill(shop.server_pid, signal.SIGKILL)
    eventually(lambda: len(shop.deaths), lambda told: told >= count, timeout_seconds=_SAYS_SO_SECONDS)


def start_two(shop: SupervisedShop) -> tuple[str, str]:
    """One order that waits for its payment, and one that is being dispatched."""
    unpaid, moving = shop.shopper.buy(key()), shop.shopper.buy(key())
    shop.shopper.confirm(moving)
    shop.shopper.wait_for(moving, "Paid. Your widget is on its way")
    return unpaid, moving


def is_at_once(ask: Callable[[], Answer], is_right: Callable[[Answer], bool]) -> bool:
    """Whether the answer, which must be right, comes at once."""
    answer, seconds = timed(ask)
    assert is_right(answer), answer
    return seconds < _AT_ONCE_SECONDS


def assert_at_once(ask: Callable[[], Answer], is_right: Callable[[Answer], bool]) -> None:
    """One of three answers: whoever is kept waiting is so each time, by a busy machine for a moment."""
    assert any(is_at_once(ask, is_right) for _ in range(3))


def assert_it_says_so(shop: SupervisedShop, payment_id: str) -> None:
    """Everybody is answered at once: people with the calm page, programs with a sentence, files as ever."""
    shopper = shop.shopper
    for ask in (
        lambda: shopper.page("/"),
        lambda: shopper.order(payment_id),
        lambda: shopper.page("/nothing-here"),
        lambda: shopper.submit("/buy", key=key()),
        lambda: shopper.confirm(payment_id),
    ):
        assert_at_once(ask, is_calm_refusal)
    for method, path in (
        ("GET", "/orders"),
        ("GET", "/greeting/Ada"),
        ("POST", f"/checkout/{key()}"),
        ("POST", f"/payment_webhook/{payment_id}/paid"),
    ):
        assert_at_once(
            partial(shopper.request, method, path),
            lambda answer: answer.status == 503 and list(answer.json) == ["error"],
        )
    assert_at_once(lambda: shopper.get("/static/css/base.css"), lambda answer: answer.status == 200)
    assert shopper.get("/health").status == 503


def assert_it_is_whole_again(shop: SupervisedShop, unpaid: str, moving: str) -> None:
    """The same server takes up every order; it is one start and one death, however long it waited."""
    eventually(
        lambda: shop.shopper.page("/").status,
        lambda status: status == 200,
        timeout_seconds=_BACK_SECONDS,
    )
    shop.shopper.wait_for(moving, "Dispatched")
    shop.shopper.confirm(unpaid)
    shop.shopper.wait_for(unpaid, "Dispatched")
    eventually(lambda: shop.shopper.get("/health").status, lambda status: status == 200)
    assert len(shop.deaths) == 1
    assert shop.tables.rows("SELECT count(*) FROM executors") == [(2,)]
    assert not shop.tables.faults()


def test_killed_while_postgres_is_down(on_postgres: SupervisedShop, postgres_of_our_own: Postgres) -> None:
    """The next server starts, says so to everybody, and is whole by itself once Postgres is back."""
    unpaid, moving = start_two(on_postgres)
    postgres_of_our_own.stop()
    kill(on_postgres)
    assert_it_says_so(on_postgres, unpaid)
    waiting_since = time.monotonic()
    eventually(time.monotonic, lambda now: now > waiting_since + 3)  # several tries to connect
    assert_it_says_so(on_postgres, unpaid)
    postgres_of_our_own.start()
    assert_it_is_whole_again(on_postgres, unpaid, moving)


def test_killed_while_postgres_hangs(on_postgres: SupervisedShop, postgres_of_our_own: Postgres) -> None:
    """The same, where connecting gets no answer at all."""
    unpaid, moving = start_two(on_postgres)
    with postgres_of_our_own.suspended():
        kill(on_postgres)
        assert_it_says_so(on_postgres, unpaid)
    assert_it_is_whole_again(on_postgres, unpaid, moving)


def test_killed_while_the_disk_is_full(on_sqlite: SupervisedShop) -> None:
    """The same, where SQLite opens and cannot record that a server has begun."""
    unpaid, moving = start_two(on_sqlite)
    for pid in family_of(on_sqlite.parent.pid):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, _OPEN))
    kill(on_sqlite)
    assert_it_says_so(on_sqlite, unpaid)
    for pid in family_of(on_sqlite.parent.pid):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (_OPEN, _OPEN))
    assert_it_is_whole_again(on_sqlite, unpaid, moving)


def test_killed_while_another_process_has_the_file(on_sqlite: SupervisedShop) -> None:
    """The same, where SQLite waits for its turn."""
    unpaid, moving = start_two(on_sqlite)
    with orders_held(on_sqlite.parent.database_url):
        kill(on_sqlite)
        assert_it_says_so(on_sqlite, unpaid)
    assert_it_is_whole_again(on_sqlite, unpaid, moving)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_whoever_looks_is_answered_before_workflows_run(
    database: str, request: pytest.FixtureRequest
) -> None:
    """The next server shows its pages while it cannot take up any workflow yet; it begins nothing."""
    shop: SupervisedShop = request.getfixturevalue(f"on_{database}")
    unpaid, moving = start_two(shop)
    with workflows_held(shop.parent.database_url):
        kill(shop)
        eventually(lambda: shop.shopper.page("/").status, lambda status: status == 200)
        assert shop.shopper.order(unpaid).status == 200
        assert shop.shopper.page("/ledger").status == 200
        assert is_calm_refusal(shop.shopper.submit("/buy", key=key()))
        # Those after the first, which has waited as long as a page may, are told at once.
        assert_at_once(lambda: shop.shopper.confirm(unpaid), is_calm_refusal)
        assert shop.shopper.get("/health").status == 503
    assert_it_is_whole_again(shop, unpaid, moving)


@pytest.mark.parametrize("whom", ["the parent", "the server"])
def test_a_server_that_waits_for_its_database_stops_when_it_is_told_to(
    on_postgres: SupervisedShop, postgres_of_our_own: Postgres, whom: str
) -> None:
    """SIGTERM ends it within three seconds, in good order, whichever of the two processes is told."""
    postgres_of_our_own.stop()
    kill(on_postgres)
    server, told_at = on_postgres.server_pid, time.monotonic()
    said_before = len(on_postgres.parent.output)
    os.kill(on_postgres.parent.pid if whom == "the parent" else server, signal.SIGTERM)
    assert on_postgres.parent.wait_for_death() == 0
    assert time.monotonic() - told_at < _STOP_SECONDS
    assert not is_alive(server)
    assert "Traceback" not in on_postgres.parent.output[said_before:]
    assert len(on_postgres.deaths) == 1


def test_a_launch_that_fails_is_tried_again_by_the_next_server(on_sqlite: SupervisedShop) -> None:
    """It cannot be tried twice in one process; visitors are told, and starts do not pile up."""
    checkpoints = Tables(checkpoints_of(on_sqlite.parent.database_url))
    checkpoints.change("ALTER TABLE workflow_status RENAME TO put_away")
    kill(on_sqlite)
    eventually(lambda: on_sqlite.parent.output.count("the shop could not be opened"), bool)
    assert is_calm_refusal(on_sqlite.shopper.page("/"))
    on_sqlite.wait_for_deaths(2)
    answer = on_sqlite.shopper.page("/")  # which the next one shows until its launch has failed, too
    assert answer.status == 200 or is_calm_refusal(answer)
    assert on_sqlite.deaths[1][1] == "exit code 1"
    checkpoints.change("ALTER TABLE put_away RENAME TO workflow_status")
    eventually(on_sqlite.shopper.is_open, bool)  # whoever asked the one that ends has no answer
    assert on_sqlite.shopper.page("/").status == 200
    assert len(on_sqlite.deaths) <= 3


def test_what_does_not_pass_still_ends_a_successor(on_sqlite: SupervisedShop) -> None:
    """With its one sentence: nobody waits for a database that a newer shop has changed."""
    on_sqlite.tables.change("UPDATE schema_version SET version = 99")
    os.kill(on_sqlite.server_pid, signal.SIGKILL)
    said = f"died (exit code {REFUSED}) before it answered anybody"
    eventually(lambda: on_sqlite.parent.output.count(said), lambda count: count >= 2)
    assert "widget store: The database is of version 99" in on_sqlite.parent.output
    assert "Traceback" not in on_sqlite.parent.output
    on_sqlite.tables.change("UPDATE schema_version SET version = :ours", ours=SCHEMA_VERSION)
    eventually(lambda: on_sqlite.shopper.page("/").status, lambda status: status == 200)
