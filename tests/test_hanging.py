"""A database that neither answers nor fails: whoever needs it is told so soon, and nobody else waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from store.durable.deadlines import PAGE_SECONDS
from tests.support.postgres import Postgres
from tests.support.refusal import is_calm_refusal
from tests.support.shop import Shop
from tests.support.shopper import Answer, eventually, key, timed

_SLACK_SECONDS = 1.5
"""What a busy machine adds to any answer."""
_AT_ONCE_SECONDS = 1.5
"""Far less than any wait for a database, and more than a busy machine takes for a page."""
_BACK_SECONDS = 8.0
"""Of the end of the trouble, everything goes on again."""


def slowest(times: list[tuple[Answer, float]]) -> float:
    """How long the slowest of these answers took."""
    return max(seconds for _, seconds in times)


def threads_of(shop: Shop) -> int:
    """How many threads its server has."""
    return len(list(Path(f"/proc/{shop.server.pid}/task").iterdir()))


@pytest.fixture
def postgres_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A Postgres server that may be suspended without suspending that of other tests."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(params=[4, 16], ids=["4 threads", "16 threads"])
def shop(request: pytest.FixtureRequest, postgres_of_our_own: Postgres) -> Iterator[Shop]:
    """A shop on it, few threads or the usual number."""
    shop = Shop(postgres_of_our_own.new_url(), STORE_DISPATCH_TICK_SECONDS=0.2, STORE_THREADS=request.param)
    shop.server.start()
    yield shop
    shop.server.close()


def ask_for_everything(shop: Shop, payment_id: str) -> list[Callable[[], Answer]]:
    """A hundred requests that need the database, of every kind."""
    shopper = shop.shopper
    return [
        *[lambda: shopper.page("/")] * 40,
        *[lambda: shopper.page("/shelf")] * 10,
        *[lambda: shopper.order(payment_id)] * 10,
        *[lambda: shopper.page(f"/pay/{payment_id}/status")] * 10,
        *[lambda: shopper.page("/ledger")] * 5,
        *[lambda: shopper.get("/orders")] * 5,
        *[lambda: shopper.get("/orders?before=5")] * 5,
        *[lambda: shopper.submit("/buy", key=key())] * 5,
        *[lambda: shopper.post(f"/checkout/{key()}")] * 5,
        *[lambda: shopper.get("/greeting/Ada")] * 5,
    ]


def test_a_postgres_that_hangs_is_a_calm_page(postgres_of_our_own: Postgres, shop: Shop) -> None:
    """In the time that a page may take, at the first look as at the hundredth; and then it all goes on."""
    shopper, dispatching = shop.shopper, key()
    shopper.buy(dispatching)
    shopper.confirm(dispatching)
    with postgres_of_our_own.suspended():
        for path in ("/", "/", f"/orders/{dispatching}", "/ledger", "/guestbook"):
            answer, seconds = timed(partial(shopper.page, path))
            assert is_calm_refusal(answer), answer
            assert seconds < PAGE_SECONDS + _SLACK_SECONDS
    eventually(
        lambda: [shopper.page(path).status for path in ("/", f"/orders/{dispatching}", "/ledger")],
        lambda statuses: statuses == [200, 200, 200],
        timeout_seconds=_BACK_SECONDS,
    )
    shopper.wait_for(dispatching, "Dispatched")
    one_key = shopper.buy()
    shopper.confirm(one_key)
    shopper.wait_for(one_key, "Dispatched")
    assert not shop.tables.faults()


def test_a_hundred_visitors_of_a_postgres_that_hangs(postgres_of_our_own: Postgres, shop: Shop) -> None:
    """All are told in the time that one is; what needs no database is there at once; no thread is lost."""
    shopper = shop.shopper
    payment_id = shopper.buy(key())
    threads: list[int] = []
    with ThreadPoolExecutor(100) as visitors, postgres_of_our_own.suspended():
        for _ in range(2):
            # Whoever is kept waiting is so in every round; a machine that was busy elsewhere is in one.
            assert any(is_a_round_in_time(shop, visitors, payment_id) for _ in range(3))
            threads.append(threads_of(shop))
    assert threads[1] <= threads[0] + 8, "those that are stuck do not become more and more"
    eventually(lambda: shopper.page("/").status, lambda status: status == 200, timeout_seconds=_BACK_SECONDS)
    one_key = shopper.buy()
    shopper.confirm(one_key)
    shopper.wait_for(one_key, "Dispatched")
    eventually(lambda: shopper.get("/health").status, lambda status: status == 200)
    assert not shop.tables.faults()


def is_a_round_in_time(shop: Shop, visitors: ThreadPoolExecutor, payment_id: str) -> bool:
    """Whether a hundred are told in the time that one is, and what needs no database is there at once."""
    asked = [visitors.submit(timed, ask) for ask in ask_for_everything(shop, payment_id)]
    beside = list(look_at_what_needs_no_database(shop, asked))
    told = [each.result() for each in asked]
    assert {answer.status for answer, _ in told} == {503}
    assert [answer.status for answer, _ in beside] == [200, 404, 303] * (len(beside) // 3)
    in_time = slowest(told[:90]) < PAGE_SECONDS + _SLACK_SECONDS  # pages, polls, and JSON that is read
    return in_time and slowest(beside) < _AT_ONCE_SECONDS


def look_at_what_needs_no_database(
    shop: Shop, asked: list[Future[tuple[Answer, float]]]
) -> Iterator[tuple[Answer, float]]:
    """A file, a page that is not there, and a way in, again and again until those others are answered."""
    while True:
        is_over = all(each.done() for each in asked)
        for path in ("/static/css/base.css", "/nothing-here", "/presenter"):
            yield timed(partial(shop.shopper.page, path))
        if is_over:
            return
