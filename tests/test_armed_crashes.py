"""Where the presenter arms a crash, a server dies exactly there, once, and the pages tell it so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest
import sqlalchemy as sa

from store.stage.commit_points import Lookout
from store.stage.crash_points import CRASH_POINTS
from tests.conftest import NewUrl
from tests.support.guestbook import Guestbook
from tests.support.refusal import is_one_sentence
from tests.support.shop import PASSWORD, Shop, SupervisedShop
from tests.support.shopper import Answer, Shopper, eventually, key

pytestmark = pytest.mark.each_database


@pytest.fixture(scope="module")
def guestbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """The online one."""
    with Guestbook(tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3") as guestbook:
        yield guestbook


@pytest.fixture(scope="module")
def supervised(new_url: NewUrl, guestbook: Guestbook) -> Iterator[SupervisedShop]:
    """One shop for all: what each test arms has fired when it ends."""
    shop = SupervisedShop(new_url(), STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.2)
    yield shop
    shop.parent.close()


@pytest.fixture(scope="module")
def slow(new_url: NewUrl, guestbook: Guestbook) -> Iterator[SupervisedShop]:
    """The same, for whoever kills a server in the middle of a sale: its ticks are longer."""
    shop = SupervisedShop(new_url(), STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.5)
    yield shop
    shop.parent.close()


def arm(shopper: Shopper, name: str) -> None:
    """Arm a point, as the form does."""
    answer = shopper.submit(f"/stage/crashes/{name}", do="arm")
    assert (answer.status, answer.location) == (303, "/stage/crashes")


def armed(shop: Shop) -> list[str]:
    """What is armed."""
    return [row.point for row in shop.tables.rows("SELECT point FROM armed_crashes")]


def count_servers(shop: Shop) -> int:
    """How many server processes there have been; of one that dies before it has answered nobody tells."""
    return len(shop.tables.rows("SELECT number FROM executors"))


def sell(shop: SupervisedShop) -> str:
    """Buy and pay, asking again where the server dies over it, until it is dispatched."""
    one_key = key()
    click(shop, "/buy", key=one_key)
    # It has begun to wait for its payment.
    waits = "SELECT 1 FROM operation_outputs WHERE workflow_uuid = :id AND function_name = 'DBOS.sleep'"
    eventually(lambda: shop.checkpoints.rows(waits, id=one_key), bool)
    click(shop, f"/pay/{one_key}", outcome="paid")
    wait_for(shop, f"/orders/{one_key}", "Dispatched")
    return f"/orders/{one_key}/timeline"


def cancel(shop: SupervisedShop) -> str:
    """Buy and cancel."""
    one_key = key()
    click(shop, "/buy", key=one_key)
    click(shop, f"/pay/{one_key}", outcome="failed")
    wait_for(shop, f"/orders/{one_key}", "Payment cancelled")
    return f"/orders/{one_key}/timeline"


def greet(shop: SupervisedShop) -> str:
    """Sign the guestbook, until it is in both."""
    one_key = key()
    click(shop, "/guestbook", key=one_key, name="Ada")
    wait_for(shop, f"/greetings/{one_key}", "Thank you")
    return f"/greetings/{one_key}"


def crash_a_sale(shop: SupervisedShop) -> str:
    """Crash the server in the middle of a sale, by the button."""
    one_key = shop.shopper.hold()
    shop.shopper.confirm(one_key)
    eventually(
        lambda: shop.tables.rows("SELECT progress FROM orders WHERE payment_id = :id", id=one_key),
        lambda rows: 1 <= rows[0].progress < 8,
    )
    shop.kill()
    wait_for(shop, f"/orders/{one_key}", "Dispatched")
    return f"/orders/{one_key}/timeline"


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask again where a server died over the question, or is not open yet, as a browser does."""

    def answer() -> Answer | None:
        try:
            return ask()
        except (OSError, HTTPException):
            return None

    found = eventually(answer, lambda found: found is not None and found.status != 503)
    assert found is not None
    return found


def click(shop: Shop, path: str, **form: str) -> None:
    """Submit a form, whoever dies meanwhile."""
    answer = patiently(lambda: shop.shopper.submit(path, **form))
    assert answer.status == 303, answer


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


@pytest.mark.sampled(4)  # in turn on one database and the other
@pytest.mark.parametrize("name", CRASH_POINTS)
def test_it_kills_there_once(supervised: SupervisedShop, slow: SupervisedShop, name: str) -> None:
    """One server dies of it, at that place in the story; it is armed no longer, and the next passes."""
    act, deaths, before, after = _STORIES[name]
    shop = slow if act is crash_a_sale else supervised
    servers = count_servers(shop)
    arm(shop.shopper, name)
    assert armed(shop) == [name]
    assert f"Armed: {CRASH_POINTS[name].words}" in shop.shopper.page("/presenter/tools").text
    address = act(shop)
    eventually(lambda: count_servers(shop), lambda count: count == servers + deaths)
    assert armed(shop) == []
    assert shop.parent.output.count(f"crashing, as armed: {CRASH_POINTS[name].words}") == 1
    [(dead, point), *_] = shop.tables.rows("SELECT executor, point FROM fired_crashes ORDER BY executor DESC")
    assert (dead, point) == (servers + deaths - 1, name)
    rows = eventually(
        lambda: re.findall(
            r'<li class="(step|crash) ([a-z-]+)">\s*<span class="what">(?:.*?<code>(.*?)</code>)?',
            shop.shopper.page(address).text,
        ),
        # A page is shown once the next server has its number: what that does again comes a moment later.
        lambda rows: (
            sum(kind == "crash" for kind, _, _ in rows) == deaths
            and (not after or after in [f"{step} {fate}" for _, fate, step in rows])
        ),
    )
    if before or after:
        place = [kind for kind, _, _ in rows].index("crash")
        last = [f"{step} {fate}" for kind, fate, step in rows[:place] if kind == "step"][-1:]
        assert last == ([before] if before else [])
        assert after in [f"{step} {fate}" for kind, fate, step in rows[place:] if kind == "step"]
    act(shop)
    more = 1 if act is crash_a_sale else 0
    assert count_servers(shop) == servers + deaths + more
    assert not shop.tables.faults()


def test_a_recovery_of_several_orders_is_met_once(slow: SupervisedShop) -> None:
    """What is written down of all of them is one statement with many rows; it goes on after the death."""
    shop, servers = slow, count_servers(slow)
    sold = [shop.shopper.hold(key()) for _ in range(4)]
    for payment_id in sold:
        shop.shopper.confirm(payment_id)
    arm(shop.shopper, "recovery")
    shop.kill()
    for payment_id in sold:
        wait_for(shop, f"/orders/{payment_id}", "Dispatched")
    assert count_servers(shop) == servers + 2
    assert armed(shop) == []
    assert not shop.tables.faults()


@pytest.mark.first_of_all
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


def test_every_page_says_at_once_what_is_armed(open_shop: Callable[..., Shop]) -> None:
    """Though the bar is read once for all pages that are asked for within a moment."""
    shop = open_shop()
    for _ in range(3):
        for do, says in (("arm", "Armed: "), ("disarm", "Where to crash")):
            shop.shopper.page("/")  # which keeps what it has read
            assert shop.shopper.submit("/stage/crashes/reserve", do=do).status == 303
            assert f">{says}" in shop.shopper.page("/").text


def test_a_press_that_is_sent_again_arms_no_second_crash(open_shop: Callable[..., Shop]) -> None:
    """It names the server that it was meant for, which the crash has ended."""
    shop = open_shop()
    page = shop.shopper.page("/stage/crashes").text
    executor = re.search(r'name="executor" value="(\d+)"', page)
    assert executor
    shop.shopper.submit("/stage/crashes/reserve", do="arm", executor=executor[1])
    with suppress(OSError, HTTPException):
        shop.shopper.buy(key())
    assert shop.server.wait_for_death() == -9
    shop.server.restart()
    assert shop.shopper.submit("/stage/crashes/reserve", do="arm", executor=executor[1]).status == 303
    assert armed(shop) == []


def test_what_is_armed_does_not_disturb_what_passes(tmp_path: Path) -> None:
    """A connection that is lost, a COMMIT that fails, a disarming: nothing dies, and no error is changed."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/some.sqlite3")
    died: list[str] = []
    lookout = Lookout(died.append)
    lookout.install()
    insert = sa.text("INSERT INTO orders (n, m) VALUES (:n, :m)")
    try:
        lookout.want({"after commit of reserve": ""})
        with engine.begin() as connection:
            later = "REFERENCES orders DEFERRABLE INITIALLY DEFERRED"
            connection.exec_driver_sql(f"CREATE TABLE orders (n INTEGER PRIMARY KEY, m INTEGER {later})")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.commit()
            connection.execute(insert, {"n": 1, "m": 2})
            with pytest.raises(sa.exc.IntegrityError):
                connection.commit()  # there is no 2
        assert died == []
        with engine.connect() as connection:
            connection.execute(insert, {"n": 3, "m": None})
            connection.invalidate()
        assert died == []
        lookout.want({})
        with engine.begin() as connection:
            connection.execute(insert, {"n": 4, "m": None})
        assert died == []
        lookout.want({"after commit of reserve": "", "before commit of reserve": "7"})
        with engine.begin() as connection:
            connection.execute(insert, {"n": 5, "m": None})
        assert died == ["after commit of reserve"]
    finally:
        lookout.want({})
        engine.dispose()


def test_what_cannot_be_armed_is_refused(open_shop: Callable[..., Shop]) -> None:
    """With one sentence and the right status; nothing is armed."""
    shop = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD)
    assert shop.shopper.submit("/stage/crashes/reserve", do="arm").status == 401
    assert shop.shopper.page("/stage/crashes").location.startswith("/stage/sign_in")
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
