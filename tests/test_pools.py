"""Those who wait for the database keep nobody from an answer who need not wait."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from flask import Flask

from store.durable.deadlines import PAGE_SECONDS
from store.ledger.ledger import LedgerReader
from store.ledger.witnesses import Witnesses
from store.proof.summary import Summary
from store.reads.checkpoints import Checkpoints
from store.reads.greetings import Greetings
from store.reads.orders import Queries
from store.schema import connect
from store.serving import thread_pools
from store.serving.thread_pools import Kind
from store.settings import Settings
from store.stage import sign_in
from store.web import every_request, guestbook, json_api, ledger, storefront
from store.web import shop as web_shop
from store.web.health import Health
from tests.support.shop import Shop
from tests.support.shopper import Answer, eventually, key, timed
from tests.support.standstill import orders_held
from tests.support.started import ROOT

_SLACK_SECONDS = 1.5
"""What a busy machine adds to any answer."""
_AT_ONCE_SECONDS = 1.5
"""Less than any wait for a database, and more than a busy machine takes for a page."""
_BACK_SECONDS = 8.0
"""Of the end of the trouble, everything goes on again."""


@contextmanager
def orders_wait(shop: SmallShop, count: int) -> Iterator[list[Future[Answer]]]:
    """So many JSON checkouts wait for a file that another process has locked, more than there are threads."""
    with ThreadPoolExecutor(count) as clients, orders_held(shop.database_url):
        asked = [clients.submit(shop.shopper.post, f"/checkout/{key()}") for _ in range(count)]
        wait_for_workflows(shop, shop.threads // 2)
        yield asked


def count_workflows(shop: Shop) -> int:
    """How many checkouts have been started."""
    return int(shop.checkpoints.rows("SELECT count(*) FROM workflow_status")[0][0])


def wait_for_workflows(shop: Shop, count: int) -> None:
    """Until so many checkouts have been started, which hold a thread each."""
    eventually(lambda: count_workflows(shop), lambda started: started >= count)


def is_answered_within(seconds: float, ask: Callable[[], Answer], status: int) -> bool:
    """Whether the answer, which must be of this status, comes within so long."""
    answer, took = timed(ask)
    assert answer.status == status, answer
    return took < seconds


class SmallShop(Shop):
    """A shop on SQLite with so many threads."""

    def __init__(self, database_url: str, threads: int) -> None:
        super().__init__(database_url, STORE_THREADS=threads)
        self.threads = threads


@pytest.fixture(params=[4, 16], ids=["4 threads", "16 threads"])
def sqlite_shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallShop]:
    """A shop on SQLite, with few threads or the usual number."""
    shop = SmallShop(f"sqlite:///{tmp_path}/store.sqlite3", request.param)
    shop.server.start()
    yield shop
    shop.server.close()


def test_who_looks_does_not_wait_behind_those_who_buy(sqlite_shop: SmallShop) -> None:
    """Pages, polls and files are there at once while fifty programs wait, and all get an order."""
    shopper = sqlite_shop.shopper
    payment_id = shopper.buy(key())
    shopper.wait_for(payment_id, "Waiting for your payment")
    wait_for_workflows(sqlite_shop, 1)
    looked = [
        "/",
        "/shelf?key=abcdefgh",
        "/recent",
        f"/pay/{payment_id}",
        f"/pay/{payment_id}/status",
        f"/orders/{payment_id}",
        f"/orders/{payment_id}/progress",
        "/ledger",
        "/orders",
        "/static/css/base.css",
    ]
    with orders_wait(sqlite_shop, 50) as asked:
        # Each may be measured again, for a busy machine: whoever is kept waiting is so until nobody buys.
        for path in looked * 2:
            look = partial(is_answered_within, _AT_ONCE_SECONDS, partial(shopper.page, path), 200)
            assert any(look() for _ in range(3)), path
        eventually(
            lambda: shopper.get("/health").json["database"], lambda found: found == "cannot be written"
        )
        one_key, limit = key(), PAGE_SECONDS + _SLACK_SECONDS
        assert any(is_answered_within(limit, lambda: shopper.get("/health"), 503) for _ in range(3))
        buy = partial(shopper.submit, "/buy", key=one_key)
        assert any(is_answered_within(limit, buy, 303) for _ in range(3))
        assert not all(each.done() for each in asked), "they were still waiting"
    assert {each.result().status for each in asked} <= {200, 504}
    eventually(
        lambda: len(sqlite_shop.tables.orders()), lambda count: count == 52, timeout_seconds=_BACK_SECONDS
    )
    assert not sqlite_shop.tables.faults()


def test_who_looks_does_not_wait_behind_those_who_click(sqlite_shop: SmallShop) -> None:
    """Fifty browsers that have clicked Buy Now on a locked file keep no page from anybody."""
    # They do so in every round; a machine that was busy elsewhere does in one. With the clicks again: a page
    # that is kept waiting comes once they are answered.
    assert any(are_looks_quick_beside_clicks(sqlite_shop) for _ in range(3))
    assert not sqlite_shop.tables.faults()


def are_looks_quick_beside_clicks(shop: SmallShop) -> bool:
    """Whether three pages come at once while fifty browsers wait; all of those get an order."""
    shopper, started, orders = shop.shopper, count_workflows(shop), len(shop.tables.orders())
    with ThreadPoolExecutor(50) as browsers, orders_held(shop.database_url):
        clicked = [browsers.submit(shopper.submit, "/buy", key=key()) for _ in range(50)]
        wait_for_workflows(shop, started + 4)
        looks = [is_answered_within(_AT_ONCE_SECONDS, lambda: shopper.page("/"), 200) for _ in range(3)]
        assert {each.result().status for each in clicked} == {303}
    eventually(
        lambda: len(shop.tables.orders()), lambda count: count == orders + 50, timeout_seconds=_BACK_SECONDS
    )
    return all(looks)


# --- which request is of which kind -------------------------------------------------------------------


@pytest.fixture(scope="module")
def kind_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[thread_pools.KindOf]:
    """The kinds of a shop that answers nothing."""
    settings = Settings.from_env(
        {"DBOS_DATABASE_URL": f"sqlite:///{tmp_path_factory.mktemp('shop')}/s.sqlite3"}
    )
    databases = connect(settings)
    app = Flask("app")
    checkpoints = Checkpoints(databases.system_reader)
    greetings = Greetings(databases.reader, checkpoints, settings.guestbook_url)
    books = LedgerReader(databases.reader, 1.0, Witnesses(databases.system_reader, greetings.theirs))
    health = Health(databases, lambda: 0)
    queries = Queries(databases.reader, checkpoints)
    every_request.prepare(app, web_shop.Shop(settings, queries, greetings, books, health, Summary.of(())))
    app.register_blueprint(storefront.storefront)
    sign_in.prepare(app, settings)
    for blueprint in (json_api.api, ledger.ledger, guestbook.guestbook):
        app.register_blueprint(blueprint)
    yield thread_pools.kinds_of(app)
    databases.close()


_KINDS = {
    Kind.QUICK: [
        *("GET /static/css/base.css", "GET /nothing", "GET *", "GET //x", "POST /", "DELETE /buy", "BREW /"),
        *("GET /presenter", "POST /crash_application"),
    ],
    Kind.LOOK: [
        *("GET /", "HEAD /", "get /", "GET /pay/abcdefgh", "GET /orders/abcdefgh", "GET /guestbook"),
        *(
            "GET /ledger",
            "GET /orders",
            "GET /product",
            "GET /order/1",
            "GET /health",
            "GET /presenter/tools",
        ),
    ],
    Kind.POLL: [
        *("GET /shelf", "GET /recent", "GET /pay/abcdefgh/status", "GET /orders/abcdefgh/progress"),
        *(
            "GET /orders/abcdefgh/timeline",
            "GET /guestbook/books",
            "GET /greetings/abcdefgh/progress",
            "GET /ledger/lines",
        ),
    ],
    Kind.CLICK: ["POST /buy", "post /buy", "POST /pay/abcdefgh", "POST /guestbook", "POST /restock"],
    Kind.CALL: ["POST /checkout/abcdefgh", "POST /payment_webhook/abcdefgh/paid", "GET /greeting/Ada"],
}


def test_whatever_shoppers_pages_poll_is_a_poll() -> None:
    """By the templates, all that polls, but for what is the presenter's; and by its script the timeline."""
    pages = "".join(path.read_text() for path in (ROOT / "templates").glob("*.html"))
    polled = set(re.findall(r"poll\(url_for\('([a-z_.]+)'", pages))
    polled |= set(re.findall(r"""hx-get="{{ url_for\('([a-z_.]+)'[^>]*hx-trigger="[^"]*\blook\"""", pages))
    assert {endpoint for endpoint in polled if not endpoint.startswith("presenter.")} == thread_pools.POLLED


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.name)
def test_each_request_waits_among_its_kind(kind_of: thread_pools.KindOf, kind: Kind) -> None:
    """What writes, by who waits for it; what only reads; and what needs no database at all."""
    found = {request: kind_of(*request.split()) for request in _KINDS[kind]}
    assert found == dict.fromkeys(_KINDS[kind], kind)
