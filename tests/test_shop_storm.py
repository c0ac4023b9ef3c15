"""The storm on the open shop: real shoppers, real kills of its server, and what is left when it is over."""

from __future__ import annotations

import json
import os
import re
import signal
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator

import pytest

from store.stage.storm_picture import DARK, LIGHT, Death, Naive, Picture, Result
from store.stage.storm_state import Plan, Request, RequestOutcome
from tests.conftest import NewUrl
from tests.support.refusal import refuses
from tests.support.shop import PASSWORD, Shop, SupervisedShop
from tests.support.shopper import eventually
from tests.support.started import is_alive
from tests.support.storms import (
    ENDS_SECONDS,
    start_storm,
    storm_process,
    storm_processes,
    storm_row,
    wait_for_phase,
)

pytestmark = pytest.mark.timeout(600)  # a storm kills servers, on a machine that may be busy
OpenShop = Callable[..., Shop]
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def open_storm_shop(new_url: NewUrl) -> Iterator[Callable[..., SupervisedShop]]:
    """Opens shops with a parent, in which each client may hold one unpaid unit."""
    shops = []

    def open_it(**settings: object) -> SupervisedShop:
        shops.append(SupervisedShop(new_url(), **{"STORE_UNPAID_PER_CLIENT": 1, **settings}))
        return shops[-1]

    yield open_it
    for shop in shops:
        shop.parent.close()


def test_a_storm_leaves_the_books_of_the_open_shop_balanced(
    open_storm_shop: Callable[..., SupervisedShop],
) -> None:
    """Killed twice at least, and a second one refused meanwhile; the verdict is green, and is a picture."""
    shop = open_storm_shop()
    shop.shopper.buy()  # somebody's order, which is none of the storm's
    answer = start_storm(shop, shoppers=5, seconds=6, kills=3)
    assert (answer.status, answer.location) == (303, "/stage/storm")
    # A browser sends it again when a server dies over it: that is the same storm.
    assert start_storm(shop, shoppers=5, seconds=6, kills=3).status == 303
    for number in (1, 2):
        assert refuses(start_storm(shop, number=number), 409)
    assert len(shop.tables.rows("SELECT number FROM storms")) == 1
    # A kill by chance may meet nobody; one who pays does meet this one, between the click and its answer.
    assert shop.shopper.submit("/stage/crashes/click", do="arm").status == 303
    row = wait_for_phase(shop, "ended")
    verdict = json.loads(row.verdict)
    assert verdict["complaints"] == []
    assert (verdict["ok"], verdict["balanced"], verdict["lost"], verdict["doubled"]) == (True, True, 0, 0)
    # Where a start takes as long as the storm itself, the last kill is not made any more.
    assert 2 <= row.killed <= min(3, len(shop.deaths))
    assert row.refused == row.unanswered == 0
    assert row.sent_again > 0, "nobody met a dying server"
    eventually(lambda: storm_processes(shop), lambda pids: pids == [])
    sales = shop.tables.rows("SELECT payment_id FROM storm_sales")
    assert {each.payment_id for each in sales} < set(shop.tables.orders())
    assert verdict["orders"] == len(shop.tables.orders()) - 1 > 3
    assert not shop.tables.faults()
    [(twins, kept)] = shop.tables.rows(
        "SELECT count(*), count(s.payment_id) FROM naive_runs r"
        " LEFT JOIN storm_sales s ON s.payment_id = r.key"
    )
    assert twins == kept > 0, "the ordinary shop had the same sales"

    assert_it_is_a_picture(shop)


def assert_it_is_a_picture(shop: Shop) -> None:
    """The verdict as SVG stands alone: it parses, has a name, and holds nothing that runs or is elsewhere."""
    for path in ("/stage/storm/1.svg", "/stage/storm/1.svg?colours=dark", "/stage/storm/1.svg?download="):
        answer = shop.shopper.get(path)
        assert answer.status == 200
        picture = ET.fromstring(answer.text)  # noqa: S314 - our own
        title, description = picture.find(f"{_SVG}title"), picture.find(f"{_SVG}desc")
        assert title is not None
        assert description is not None
        assert re.search(r"[2-9] deaths of the server", description.text or "")
        assert {each.tag for each in picture.iter()} <= {
            f"{_SVG}{name}" for name in ("svg", "title", "desc", "rect", "text", "g", "path", "circle")
        }
        assert "href" not in answer.text
    assert "attachment" in answer.headers["Content-Disposition"]
    assert shop.shopper.get("/stage/storm/2.svg").status == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"shoppers": 201},
        {"shoppers": 0},
        {"seconds": 301},
        {"seconds": "long"},
        {"kills": -1},
        {"kills": 101},
        {"seed": ""},
        {"seed": "9" * 5000},
        {"shoppers": "٣"},
        {"number": 0},
        {"number": "x"},
    ],
    ids=str,
)
def test_a_storm_that_makes_no_sense_is_refused(storm_shop: SupervisedShop, wrong: dict[str, object]) -> None:
    """One sentence, and nothing is changed."""
    assert refuses(start_storm(storm_shop, **wrong), 400)  # type: ignore[arg-type]
    assert storm_row(storm_shop) is None


def test_a_storm_is_started_or_stopped_and_is_the_next_one(storm_shop: SupervisedShop) -> None:
    """Nothing else can be done with it."""
    assert refuses(storm_shop.shopper.submit("/stage/storm", do="explode"), 400)
    assert refuses(start_storm(storm_shop, number=5), 409)
    assert storm_shop.shopper.submit("/stage/storm", do="stop").status == 303  # it is off
    back = storm_shop.shopper.submit("/stage/storm", do="stop", on_stage="yes")
    assert back.location == "/stage"
    assert storm_row(storm_shop) is None


@pytest.fixture(scope="module")
def storm_shop(new_url: NewUrl) -> Iterator[SupervisedShop]:
    """A shop with a parent, over which no storm blows."""
    shop = SupervisedShop(new_url())
    yield shop
    shop.parent.close()


def test_a_shop_that_cannot_have_one_says_why(open_shop: OpenShop, new_url: NewUrl) -> None:
    """Nobody would start the server again, or shoppers cannot pay: on the page, and to whoever tries."""
    alone = open_shop()
    assert "open the shop with `python app.py`" in alone.shopper.page("/stage/storm").text
    assert refuses(start_storm(alone), 409)
    signed = SupervisedShop(new_url(), STORE_WEBHOOK_SECRET="whsec_" + "A" * 40 + "=")
    assert refuses(start_storm(signed), 409)
    assert storm_row(alone) is storm_row(signed) is None
    signed.parent.close()


def test_nobody_else_finds_it(open_shop: OpenShop) -> None:
    """Off, it is not found; behind a password, it is asked for; and who only says so is of no storm."""
    off, guarded = open_shop(STORE_TRUSTED_PROXIES=1), open_shop(STORE_PRESENTER_PASSWORD=PASSWORD)
    for path in ("/stage/storm", "/stage/storm/now", "/stage/storm/1.svg", "/stage/storm/newest.svg"):
        assert off.shopper.page(path).status == 404
        assert guarded.shopper.page(path).location.startswith("/stage/sign_in")
    assert start_storm(off).status == 404
    assert start_storm(guarded).status == 401
    assert refuses(open_shop().shopper.get("/", **{"Store-Storm": "guessed/1"}), 409)


def test_a_storm_whose_process_dies_harms_nothing(open_storm_shop: Callable[..., SupervisedShop]) -> None:
    """The page says that it is lost, its orders go on, and another one can be started."""
    shop = open_storm_shop()
    start_storm(shop, seconds=60, kills=1)
    eventually(lambda: shop.tables.rows("SELECT 1 FROM storm_sales"), bool)
    os.kill(storm_process(shop), signal.SIGKILL)
    assert refuses(start_storm(shop, number=2), 409)  # nobody has missed it yet
    shop.tables.change("UPDATE storms SET heard_at_ms = 1")
    assert "The storm has no process any more" in shop.shopper.page("/stage/storm").text
    assert start_storm(shop, number=2, seconds=60, kills=0).status == 303
    assert wait_for_phase(shop, "blowing").number == 2
    assert shop.shopper.submit("/stage/storm", do="stop").status == 303
    eventually(lambda: storm_processes(shop), lambda pids: pids == [])
    assert storm_row(shop).phase == "stopped"
    assert "The storm was stopped" in shop.shopper.page("/stage/storm/now").text
    assert not shop.tables.faults()


def test_a_storm_does_not_outlive_its_shop(open_storm_shop: Callable[..., SupervisedShop]) -> None:
    """Closed in good order: its process is gone, and says so where the next shop finds it."""
    shop = open_storm_shop()
    start_storm(shop, seconds=60, kills=60)
    eventually(lambda: shop.deaths, bool, timeout_seconds=ENDS_SECONDS)
    pid = storm_process(shop)
    shop.parent.stop()
    eventually(lambda: is_alive(pid), lambda alive: not alive)
    assert storm_row(shop).phase == "lost"


def test_a_storm_does_not_outlive_a_parent_that_is_killed(
    open_storm_shop: Callable[..., SupervisedShop],
) -> None:
    """Whatever the shop dies of, nobody goes on knocking at its door."""
    shop = open_storm_shop()
    start_storm(shop, seconds=60, kills=0)
    pid = storm_process(shop)
    shop.parent.kill()
    eventually(lambda: is_alive(pid), lambda alive: not alive)


# --- the picture -----------------------------------------------------------------------------------


def result(*requests: Request, is_ok: bool = True) -> Result:
    """A storm of a minute with one death and these requests."""
    naive = Naive(3, 1, 9999)
    plan = Plan(30, 60, 1, 7)
    return Result(plan, 3, 0, 0, is_ok, requests, [Death(30_000, 31_000)], naive)


@pytest.mark.quick
def test_each_outcome_has_its_dots() -> None:
    """A request that waited stands higher; those at one place are one dot, and all are counted."""
    requests = [
        Request(1000, 10, RequestOutcome.ANSWERED),
        Request(1001, 10, RequestOutcome.ANSWERED),
        Request(30_000, 1000, RequestOutcome.SENT_AGAIN),
    ]
    picture = Picture.of(result(*requests), LIGHT)
    assert [dots.count for dots in picture.dots] == [2, 1, 0, 0]
    assert [dots.path.count("M") for dots in picture.dots] == [1, 1, 0, 0]
    answered, again = (float(dots.path.split()[1].split("h")[0].split("m")[0]) for dots in picture.dots[:2])
    assert again < answered
    [band] = picture.bands
    assert picture.left < band.x < band.x + band.width < picture.right


@pytest.mark.quick
def test_bad_news_is_said() -> None:
    """In words, whatever the theme."""
    assert "Something is wrong" in Picture.of(result(is_ok=False), DARK).verdict
    assert "1 customer charged $99.99 for nothing" in Picture.of(result(), LIGHT).naive


@pytest.mark.quick
def test_a_large_storm_is_a_small_picture() -> None:
    """200 shoppers for five minutes, each request at a place of its own as far as there is one."""
    requests = [Request(each * 5, 10 + each * 7919 % 3000, RequestOutcome.ANSWERED) for each in range(60_000)]
    [answered, *_] = Picture.of(result(*requests), LIGHT).dots
    assert answered.count == 60_000
    assert len(answered.path) < 500_000
