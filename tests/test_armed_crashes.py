"""Where the presenter arms a crash, a server dies exactly there, once, and the pages tell it so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import TypeVar

import pytest

from store.stage.crash_points import CRASH_POINTS
from tests.conftest import NewUrl
from tests.support.guestbook import Guestbook
from tests.support.refusal import is_one_sentence
from tests.support.shop import PASSWORD, Shop, SupervisedShop
from tests.support.shopper import Shopper, eventually, key

pytestmark = pytest.mark.each_database
T = TypeVar("T")


@pytest.fixture(scope="module")
def guestbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """The online one."""
    with Guestbook(tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3") as guestbook:
        yield guestbook


@pytest.fixture(scope="module")
def supervised(new_url: NewUrl, guestbook: Guestbook) -> Iterator[SupervisedShop]:
    """One shop for all: what each test arms has fired when it ends."""
    shop = SupervisedShop(new_url(), STORE_GUESTBOOK_URL=guestbook.url, STORE_GREETING_WINDOW_SECONDS=60)
    yield shop
    shop.parent.close()


def arm(shopper: Shopper, name: str) -> None:
    """Arm a point, as the form does."""
    answer = shopper.submit(f"/stage/crashes/{name}", do="arm")
    assert (answer.status, answer.location) == (303, "/stage/crashes")


def armed(shop: Shop) -> list[str]:
    """What is armed."""
    return [row.point for row in shop.tables.rows("SELECT point FROM armed_crashes")]


def sell(shop: SupervisedShop) -> str:
    """Buy and pay, asking again where the server dies over it, until it is dispatched."""
    one_key = key()
    patiently(lambda: shop.shopper.buy(one_key))
    patiently(lambda: shop.shopper.confirm(one_key))
    wait_for(shop, f"/orders/{one_key}", "Dispatched")
    return f"/orders/{one_key}/timeline"


def cancel(shop: SupervisedShop) -> str:
    """Buy and cancel."""
    one_key = key()
    patiently(lambda: shop.shopper.buy(one_key))
    patiently(lambda: shop.shopper.cancel(one_key))
    wait_for(shop, f"/orders/{one_key}", "Payment cancelled")
    return f"/orders/{one_key}/timeline"


def greet(shop: SupervisedShop) -> str:
    """Sign the guestbook, until it is in both."""
    one_key = key()
    patiently(lambda: shop.shopper.submit("/guestbook", key=one_key, name="Ada"))
    wait_for(shop, f"/greetings/{one_key}", "Thank you")
    return f"/greetings/{one_key}"


def crash_a_sale(shop: SupervisedShop) -> str:
    """Crash the server in the middle of a sale, by the button."""
    one_key = shop.shopper.buy()
    shop.shopper.confirm(one_key)
    eventually(
        lambda: shop.tables.rows("SELECT progress FROM orders WHERE payment_id = :id", id=one_key),
        lambda rows: 1 <= rows[0].progress < 8,
    )
    shop.kill()
    wait_for(shop, f"/orders/{one_key}", "Dispatched")
    return f"/orders/{one_key}/timeline"


def patiently(ask: Callable[[], T]) -> T:
    """Ask again where a server died over the question, as a browser does."""

    def answer() -> T | None:
        try:
            return ask()
        except (OSError, HTTPException):
            return None

    found = eventually(answer, lambda found: found is not None)
    assert found is not None
    return found


def wait_for(shop: Shop, path: str, heading: str) -> None:
    """Reload until the page says so, whoever dies meanwhile."""
    eventually(
        lambda: patiently(lambda: shop.shopper.page(path)),
        lambda page: page.status == 200 and page.heading.startswith(heading),
    )


_STORIES: dict[str, tuple[Callable[[SupervisedShop], str], int, str, str]] = {
    # What is done, how many die of it, and the steps just before and just after the (last) crash.
    "reserve": (sell, 1, "", "reserve run-again"),
    "click": (sell, 1, "DBOS.sleep remembered", "DBOS.recv ran"),
    "charge": (sell, 1, "DBOS.recv remembered", "settle run-again"),
    "tick": (sell, 1, "tick 4 remembered", "tick 5 run-again"),
    "cancel": (cancel, 1, "DBOS.recv remembered", "settle run-again"),
    "greeting": (greet, 1, "wait 1 remembered", "wait 2 ran"),
    "recovery": (crash_a_sale, 2, "", ""),
}


def test_every_point_has_a_story() -> None:
    """And none is armed that no test has shown to kill."""
    assert _STORIES.keys() == CRASH_POINTS.keys()


@pytest.mark.parametrize("name", CRASH_POINTS)
def test_it_kills_there_once(supervised: SupervisedShop, name: str) -> None:
    """One server dies of it, at that place in the story; it is armed no longer, and the next passes."""
    act, deaths, before, after = _STORIES[name]
    shop, died_before = supervised, len(supervised.deaths)
    arm(shop.shopper, name)
    assert armed(shop) == [name]
    assert f"Armed: {CRASH_POINTS[name].words}" in shop.shopper.page("/presenter/tools").text
    address = act(shop)
    shop.wait_for_deaths(died_before + deaths)
    assert armed(shop) == []
    assert shop.parent.output.count(f"crashing, as armed: {CRASH_POINTS[name].words}") == 1
    rows = eventually(
        lambda: re.findall(
            r'<li class="(step|crash) ([a-z-]+)">\s*<span class="what">(?:.*?<code>(.*?)</code>)?',
            shop.shopper.page(address).text,
        ),
        lambda rows: sum(kind == "crash" for kind, _, _ in rows) == deaths,
    )
    if before or after:
        place = [kind for kind, _, _ in rows].index("crash")
        last = [f"{step} {fate}" for kind, fate, step in rows[:place] if kind == "step"][-1:]
        assert last == ([before] if before else [])
        assert after in [f"{step} {fate}" for kind, fate, step in rows[place:] if kind == "step"]
    act(shop)
    shop.wait_for_deaths(died_before + deaths + (act is crash_a_sale))
    assert len(shop.deaths) == died_before + deaths + (act is crash_a_sale)
    assert not shop.tables.faults()


def test_what_is_armed_outlives_a_stop_and_may_be_disarmed(open_shop: Callable[..., Shop]) -> None:
    """It is armed after a restart; disarmed, it kills nobody."""
    shop = open_shop()
    arm(shop.shopper, "reserve")
    arm(shop.shopper, "charge")
    arm(shop.shopper, "charge")  # twice is once
    shop.server.stop()
    shop.server.restart()
    page = shop.shopper.page("/stage/crashes")
    assert page.text.count('class="armed"') == 2
    assert shop.shopper.submit("/stage/crashes/reserve", do="disarm").status == 303
    payment_id = shop.shopper.buy()
    with suppress(OSError, HTTPException):  # it may have answered before it died
        shop.shopper.confirm(payment_id)
    assert shop.server.wait_for_death() == -9
    shop.server.restart()
    shop.shopper.wait_for(payment_id, "Dispatched")
    assert armed(shop) == []
    assert not shop.tables.faults()


def test_what_cannot_be_armed_is_refused(open_shop: Callable[..., Shop]) -> None:
    """With one sentence and the right status; nothing is armed."""
    shop = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD)
    assert shop.shopper.submit("/stage/crashes/reserve", do="arm").status == 401
    assert shop.shopper.page("/stage/crashes").status == 401
    assert armed(shop) == []
    shop = open_shop()
    for path, do, status in [
        ("/stage/crashes/nowhere", "arm", 404),
        ("/stage/crashes/reserve", "explode", 400),
        ("/stage/crashes/reserve", "", 400),
    ]:
        answer = shop.shopper.request(
            "POST", path, f"do={do}", {"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert answer.status == status
        assert is_one_sentence(answer.json["error"])
    assert armed(shop) == []
    shop = open_shop(STORE_TRUSTED_PROXIES=1)  # where others can reach it, and there is no password
    assert shop.shopper.submit("/stage/crashes/reserve", do="arm").status == 404
