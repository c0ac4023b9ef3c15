"""The reset: back to the opening state, whatever was under way, and nothing left behind."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException

import pytest

from store.web.every_request import OF_BEFORE
from tests.conftest import NewUrl
from tests.support.guestbook import Guestbook
from tests.support.shop import PASSWORD, Shop, SupervisedShop
from tests.support.shopper import Shopper, eventually
from tests.support.started import is_alive
from tests.support.storms import ENDS_SECONDS, start_storm, storm_process

_EMPTY = (
    "orders", "payments", "payment_notices", "holds", "refusals", "greeting_requests", "greetings",
    "takeovers", "greeting_takeovers", "mendings", "lost_checkpoints", "naive_orders", "naive_payments",
    "naive_greetings", "naive_runs", "naive_troubles", "armed_crashes", "fired_crashes", "reset_requests",
    "stage", "stage_faults", "window_holds", "reruns",
    "storm_requests", "storm_sales", "storms",
)  # fmt: skip
_CHECKPOINTS = ("workflow_status", "operation_outputs", "workflow_events", "notifications")


@pytest.fixture
def busy(new_url: NewUrl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupervisedShop]:
    """A shop with a parent, with everything that a talk leaves behind, some of it under way."""
    with Guestbook(tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3") as guestbook:
        shop = SupervisedShop(new_url(), STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.3)
        shopper = shop.shopper
        shopper.submit("/lanes", key=shopper.page("/lanes").key)
        shopper.submit("/guestbook", key=shopper.page("/guestbook").key, name="Ada")
        shop.kill()
        shop.wait_for_deaths(1)
        eventually(shopper.is_open, bool)  # one that has answered may not take any click yet
        shopper.cancel(shopper.buy())
        shopper.buy()
        shopper.confirm(shopper.buy())
        shopper.submit("/stage/crashes/recovery", do="arm")
        for moves in range(3):
            shopper.submit("/stage", do="go", moves=str(moves))
        yield shop
        shop.parent.close()


def ask_for_reset(shopper: Shopper) -> None:
    """Press the button on its page."""
    server = re.search(r'name="server" value="([^"]+)"', shopper.page("/stage/reset").text)
    assert server
    answer = shopper.submit("/stage/reset", confirm="yes", server=server[1])
    assert (answer.status, answer.location) == (303, "/stage")


def has_asked_for_reset(shopper: Shopper) -> bool:
    """The same of a server that may die at any moment; whether it has answered."""
    try:
        page = shopper.get("/stage/reset")
        server = re.search(r'name="server" value="([^"]+)"', page.text)
        answer = shopper.submit("/stage/reset", confirm="yes", server=server[1] if server else "")
    except (OSError, HTTPException):
        return False
    return server is not None and answer.status == 303


def assert_it_is_new(shop: Shop) -> None:
    """The tables are those of a shop that has just opened, and it sells."""
    eventually(shop.shopper.is_open, bool)
    left = {table: shop.tables.rows(f"SELECT count(*) FROM {table}") for table in _EMPTY}  # noqa: S608 - ours
    assert left == {table: [(0,)] for table in _EMPTY}
    assert shop.tables.rows("SELECT cause, units FROM stock_movements") == [("opening", 100)]
    assert shop.tables.rows("SELECT on_hand FROM products") == [(100,)]
    assert shop.tables.rows("SELECT number FROM executors") == [(1,)]
    for table in _CHECKPOINTS:
        assert shop.checkpoints.rows(f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 - ours
    books = shop.shopper.get("/ledger.json").json
    assert (books["balanced"], books["catching_up"], books["faults"]) == (True, False, [])
    payment_id = shop.shopper.buy()
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    assert shop.tables.rows("SELECT order_id FROM orders") == [(1,)]
    assert not shop.tables.faults()


@pytest.mark.each_database
def test_a_reset_forgets_everything_while_shoppers_look_on(busy: SupervisedShop) -> None:
    """Orders in flight, greetings, crashes, the naive damage, the talk; phones poll all the while."""
    [*_, (payment_id,)] = busy.tables.rows("SELECT payment_id FROM orders ORDER BY order_id")
    is_over, statuses = threading.Event(), set()

    def look_on() -> None:
        while not is_over.is_set():
            with suppress(OSError, HTTPException):
                statuses.add(busy.shopper.poll(f"/orders/{payment_id}/progress").status)

    phones = [threading.Thread(target=look_on) for _ in range(4)]
    for phone in phones:
        phone.start()
    ask_for_reset(busy.shopper)
    busy.wait_for_deaths(2)
    eventually(lambda: busy.tables.rows("SELECT count(*) FROM orders"), lambda rows: rows == [(0,)])
    eventually(lambda: 410 in statuses, bool)
    is_over.set()
    for phone in phones:
        phone.join()
    assert statuses <= {200, 410, 503}
    # Whoever opens a link cannot be told whether there was such an order: the words are right for both.
    for one in (payment_id, "mistyped"):
        page = busy.shopper.page(f"/orders/{one}")
        assert (page.status, page.alert) == (404, OF_BEFORE)
        assert "Go to the store" in page.text
    assert_it_is_new(busy)


@pytest.mark.timeout(240)  # a storm kills servers on a machine that may be busy
def test_a_reset_ends_a_storm(new_url: NewUrl) -> None:
    """Its shoppers sell nothing more, its process is gone, and the shop is as new."""
    shop = SupervisedShop(new_url())
    try:
        start_storm(shop, shoppers=6, seconds=60, kills=60)
        eventually(lambda: len(shop.deaths), lambda deaths: deaths >= 2, timeout_seconds=ENDS_SECONDS)
        pid = storm_process(shop)
        # The storm may kill the server that is asked: then the next one is, as the presenter would.
        eventually(lambda: has_asked_for_reset(shop.shopper), bool, timeout_seconds=ENDS_SECONDS)
        eventually(lambda: shop.tables.rows("SELECT count(*) FROM storms"), lambda rows: rows == [(0,)])
        eventually(lambda: is_alive(pid), lambda alive: not alive)
        eventually(lambda: shop.tables.rows("SELECT count(*) FROM orders"), lambda rows: rows == [(0,)])
        assert_it_is_new(shop)
    finally:
        shop.parent.close()


@pytest.mark.first_of_all
@pytest.mark.each_database
def test_a_reset_that_was_interrupted_is_begun_again(open_shop: Callable[..., Shop]) -> None:
    """A server that has deleted the workflows, and died before it emptied the store."""
    shop = open_shop()
    shop.shopper.confirm(shop.shopper.buy())
    shop.server.kill()
    shop.tables.change("INSERT INTO reset_requests (only_row, asked_at_ms) VALUES (1, 1)")
    for table in reversed(_CHECKPOINTS):
        shop.checkpoints.change(f"DELETE FROM {table}")  # noqa: S608 - ours
    shop.server.restart()
    assert_it_is_new(shop)
    shop.server.stop()
    shop.server.restart()  # it is done once
    assert len(shop.tables.orders()) == 1


def test_a_reset_must_be_meant(open_shop: Callable[..., Shop]) -> None:
    """Without a confirmation, for another server, without the password: one sentence, and nothing changed."""
    shop = open_shop()
    shop.shopper.buy()
    assert shop.shopper.submit("/stage/reset").status == 400
    assert shop.shopper.submit("/stage/reset", confirm="yes", server="7-1").status == 303
    assert shop.tables.rows("SELECT count(*) FROM reset_requests") == [(0,)]
    assert len(shop.tables.orders()) == 1
    guarded = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD)
    assert guarded.shopper.submit("/stage/reset", confirm="yes").status == 401
    off = open_shop(STORE_TRUSTED_PROXIES=1)
    assert off.shopper.submit("/stage/reset", confirm="yes").status == 404
