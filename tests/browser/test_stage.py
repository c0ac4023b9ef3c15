"""The talk in a real browser, from the first scene to the last, by the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from store.reads.orders import CRASHES
from store.stage.script import SCENES
from tests.browser.conftest import Visit
from tests.browser.visitor import NO_ANSWER, Visitor
from tests.conftest import NewUrl, Often
from tests.support.guestbook import Guestbook
from tests.support.shop import Shop, SupervisedShop
from tests.support.shopper import eventually

_HIDDEN = """() => {
  const page = document.documentElement, body = document.querySelector(".scene-body");
  return [page.scrollHeight - page.clientHeight, body.scrollHeight - body.clientHeight];
}"""
"""How many pixels of the page, and of what is between the sentence and the buttons, are below their end."""
_ROWS_OF_BAR = """() => {
  const middles = [...document.querySelectorAll("#presenter button, #presenter-tools > p")]
    .map((each) => each.getBoundingClientRect()).map((box) => Math.round((box.top + box.bottom) / 20));
  return new Set(middles).size;
}"""
"""In how many lines its parts stand: those of one line have their middles at one height."""


@pytest.fixture(scope="module")
def guestbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """The online one."""
    with Guestbook(tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3") as guestbook:
        yield guestbook


@pytest.fixture
def talk_shop(new_url: NewUrl, guestbook: Guestbook) -> Iterator[SupervisedShop]:
    """A shop with a parent, on whose stage everything happens."""
    shop = SupervisedShop(new_url(), STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.2)
    yield shop
    shop.parent.close()


@pytest.fixture
def quiet_shop(new_url: NewUrl, guestbook: Guestbook) -> Iterator[Shop]:
    """A shop that nothing kills."""
    shop = Shop(new_url(), STORE_GUESTBOOK_URL=guestbook.url)
    shop.server.start()
    yield shop
    shop.server.close()


def sees_scene(presenter: Visitor, number: int) -> None:
    """Until that scene is on the projector."""
    expect(presenter.page.locator("#stage h1")).to_have_text(SCENES[number - 1].sentence)


def goes_on(presenter: Visitor, number: int, key: str = "Space") -> None:
    """Press the key that leads to that scene."""
    presenter.page.keyboard.press(key)
    sees_scene(presenter, number)


def sells(presenter: Visitor, shop: SupervisedShop, count: int) -> None:
    """Press the key that sells one, and wait until so many are dispatched."""
    presenter.page.keyboard.press("Space")
    eventually(lambda: sorted(shop.tables.orders().values()), lambda ended: ended == ["dispatched"] * count)
    expect(presenter.page.locator(".strip button[data-key=on]")).to_have_text("Next →")


def gives_the_talk(presenter: Visitor, shop: SupervisedShop, visit: Visit, deaths: int) -> None:
    """From the first scene to the last; so many servers have died before."""
    page = presenter.page
    sees_scene(presenter, 1)
    goes_on(presenter, 2, "ArrowRight")
    sells(presenter, shop, 1)
    goes_on(presenter, 3, "PageDown")
    sells(presenter, shop, 2)  # and its server dies at tick 5
    shop.wait_for_deaths(deaths + 1)
    expect(page.locator(".lane.naive .track.stopped")).to_have_count(1)
    expect(page.locator(".lane.naive .line.stopped")).to_have_count(1)
    expect(page.locator(".cheated")).to_have_text("All sales so far: 1 cheated, $99.99")
    goes_on(presenter, 4)
    expect(page.locator(".lane.durable .track.whole .crack")).to_have_count(1)
    expect(page.locator(".lane.durable .line.remembered")).to_have_count(4)
    expect(page.locator(".cheated")).to_have_text("All sales so far: 0 cheated")
    goes_on(presenter, 5)
    expect(page.locator(".timeline .crash")).to_have_count(1)
    expect(page.locator(".timeline .run-again code")).to_have_text(["tick 5"])
    goes_on(presenter, 6)
    page.keyboard.press("3")
    expect(page.locator(".choices .armed")).to_contain_text("Between the charge and its checkpoint")
    sells(presenter, shop, 3)
    shop.wait_for_deaths(deaths + 2)
    expect(page.locator(".choices .fired")).to_contain_text("Between the charge and its checkpoint")
    expect(page.locator(".choices .fired")).to_contain_text("died here")
    expect(page.locator(".lane .died")).to_have_count(2)
    goes_on(presenter, 7)
    page.keyboard.press("e")
    expect(page.locator(".strip p")).to_contain_text("every sale is a crash")
    phone = visit(shop, tolerated=NO_ANSWER)
    phone.buy()
    shop.wait_for_deaths(deaths + 3)
    # Or it would be pressed on the page of the server that is dead.
    expect(page.locator("#crash input[name=executor]")).to_have_value("4")
    page.keyboard.press("e")
    expect(page.locator(".strip p")).not_to_contain_text("every sale is a crash")
    phone.confirm.click()
    phone.sees("Dispatched")
    expect(page.locator(".counts b")).to_have_text(["4", "3", "0", "0"])
    goes_on(presenter, 8)  # the storm has a test of its own
    goes_on(presenter, 9)
    page.keyboard.press("Space")  # sells one, and its server is replaced in the middle of it
    eventually(lambda: list(shop.tables.orders().values()), lambda ended: ended == ["dispatched"] * 5)
    expect(page.locator(".servers .now")).to_contain_text("Server 5")
    expect(page.locator(".servers li")).to_contain_text(["died", "died", "replaced in good order", "running"])
    expect(page.locator(".strip button[data-key=on]")).to_have_text("Next →")
    goes_on(presenter, 10)
    expect(page.locator(".verdict")).to_have_text("The books balance.")
    goes_on(presenter, 11)
    goes_on(presenter, 10, "ArrowLeft")
    goes_on(presenter, 11)


@pytest.mark.first_of_all
@pytest.mark.timeout(240)  # two talks, in the longer form
def test_the_talk_is_given_by_keyboard_alone_and_begins_anew(
    talk_shop: SupervisedShop, visit: Visit, often: Often
) -> None:
    """Every scene, with its crashes; the ledger is green at its end; after a reset it can be given again."""
    presenter = visit(talk_shop, "/stage", tolerated=NO_ANSWER)
    for talk in range(often(1, 2)):
        gives_the_talk(presenter, talk_shop, visit, deaths=4 * talk)
        assert not talk_shop.tables.faults()
        assert talk_shop.shopper.get("/ledger.json").json["balanced"]
        presenter.page.keyboard.press("r")
        presenter.sees("Begin anew")
        presenter.page.get_by_role("button", name="Forget everything").focus()
        presenter.page.keyboard.press("Enter")
        talk_shop.wait_for_deaths(4 * talk + 4)
    sees_scene(presenter, 1)


@pytest.mark.timeout(240)  # twelve servers
def test_ten_crashes_are_one_key_and_can_be_stopped(talk_shop: SupervisedShop, visit: Visit) -> None:
    """Each lands on the next server and is counted; the key again ends them; the order goes on over all."""
    presenter = visit(talk_shop, tolerated=NO_ANSWER)
    page = presenter.page
    presenter.buy()
    presenter.pay()  # to its end, or the page that comes would take the focus
    page.get_by_role("button", name="Ten crashes").focus()
    page.keyboard.press("Enter")
    eventually(lambda: talk_shop.tables.rows(CRASHES), lambda rows: rows == [(10,)], timeout_seconds=120)
    expect(page.locator("#presenter")).to_contain_text("10 crashes survived", timeout=20_000)
    presenter.sees("Dispatched")
    page.keyboard.press("x")
    eventually(lambda: talk_shop.tables.rows(CRASHES)[0][0], lambda count: count > 10)
    page.keyboard.press("x")
    expect(page.locator("#crash-news")).to_be_empty(timeout=30_000)
    assert talk_shop.tables.rows(CRASHES)[0][0] < 20
    assert not talk_shop.tables.faults()


def test_faults_and_shelf_by_keyboard(talk_shop: SupervisedShop, visit: Visit) -> None:
    """The server stands still for five seconds and goes on; the shelf is cleared; the window is held."""
    presenter = visit(talk_shop, "/stage/faults", tolerated=NO_ANSWER)
    page = presenter.page
    for name, seen in [
        ("Sell out", "0 on the shelf"),
        ("Hold it", "The payment window held"),
        ("For 5 s: The server is frozen", "On: The server is frozen"),
    ]:
        page.get_by_role("button", name=name, exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator("#faults")).to_contain_text(seen)
        if "frozen" not in name:
            # A poll may have shown that before the page of the press came, which takes the focus.
            expect(page.locator("#main")).to_be_focused()
    expect(page.locator("#announcement")).to_have_text("Nothing is wrong.", timeout=30_000)
    assert talk_shop.deaths == []
    assert not talk_shop.tables.faults()


def test_an_order_is_run_again_on_its_page(quiet_shop: Shop, visit: Visit) -> None:
    """The button comes when the order has ended; what it changed is said there: nothing."""
    presenter = visit(quiet_shop)
    presenter.buy()
    presenter.confirm.click()
    presenter.sees("Dispatched")
    again = presenter.page.get_by_role("button", name="Run it again")
    again.focus()
    presenter.page.keyboard.press("Enter")
    expect(presenter.page.locator("#run-again")).to_contain_text("Run again: 4 steps, nothing changed.")
    assert quiet_shop.tables.rows("SELECT attempt FROM reruns") == [(1,)]
    assert not quiet_shop.tables.faults()


def test_a_key_that_is_held_down_is_one_press(quiet_shop: Shop, visit: Visit) -> None:
    """And the second window follows the first, and moves it."""
    presenter = visit(quiet_shop, "/stage")
    notes = visit(quiet_shop, "/stage/notes")
    for _ in range(5):  # without a release between: all but the first are repeats
        presenter.page.keyboard.down("ArrowRight")
    presenter.page.keyboard.up("ArrowRight")
    sees_scene(presenter, 2)
    notes.sees(SCENES[1].sentence)
    assert quiet_shop.tables.rows("SELECT scene FROM stage") == [(1,)]
    notes.page.get_by_role("button", name="Back").click()
    sees_scene(presenter, 1)
    notes.sees(SCENES[0].sentence)


@pytest.mark.sampled(1)  # the smaller one
@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080)])
def test_no_scene_scrolls_on_a_projector(
    talk_shop: SupervisedShop, visit: Callable[..., Visitor], width: int, height: int
) -> None:
    """Nothing is cut off either, with a sale in both lanes that has met a crash."""
    presenter = visit(talk_shop, "/stage", viewport={"width": width, "height": height}, tolerated=NO_ANSWER)
    page = presenter.page
    for number, scene in enumerate(SCENES, 1):
        sees_scene(presenter, number)
        if scene.act is not None:
            sold = sum(each.act is not None for each in SCENES[:number])
            sells(presenter, talk_shop, sold)
        hidden = page.evaluate(_HIDDEN)
        assert hidden == [0, 0], scene.name
        page.keyboard.press("Space")


@pytest.mark.parametrize("width", [1280, 1440, 1920])
def test_the_bar_of_the_storefront_is_one_line(talk_shop: SupervisedShop, visit: Visit, width: int) -> None:
    """Also while crashes are armed and a fault is on: what does not fit is cut, and said on its own page."""
    presenter = visit(talk_shop, viewport={"width": width, "height": 720}, tolerated=NO_ANSWER)
    bar = presenter.page.locator("#presenter")
    expect(bar).to_contain_text("Where to crash")
    assert presenter.page.evaluate(_ROWS_OF_BAR) == 1
    for point in ("charge", "greeting"):
        talk_shop.shopper.submit(f"/stage/crashes/{point}", do="arm")
    talk_shop.shopper.submit("/stage/faults/slow")
    expect(bar).to_contain_text("Armed: Between the charge and its checkpoint; After the signature")
    expect(bar).to_contain_text("On: The guestbook is slow")
    assert presenter.page.evaluate(_ROWS_OF_BAR) == 1
    assert presenter.page.evaluate("() => document.documentElement.scrollWidth") == width


def test_an_order_that_is_open_over_a_reset_says_so_and_is_quiet(
    talk_shop: SupervisedShop, visit: Visit
) -> None:
    """It looks once more, finds that the shop began anew, and leads to the store."""
    phone = visit(talk_shop, tolerated=f"{NO_ANSWER}|410")
    phone.buy()
    phone.open(urlsplit(phone.page.url).path.replace("/pay/", "/orders/"))
    phone.sees("Waiting for your payment")
    server = visit(talk_shop, "/stage/reset").page.locator("input[name=server]").input_value()
    talk_shop.shopper.submit("/stage/reset", confirm="yes", server=server)
    expect(phone.page.get_by_role("alert")).to_have_text("The shop began anew.")
    asked = len([each for each in phone.requests if "/orders/" in each.url])
    link = phone.page.get_by_role("link", name="Go to the store")
    talk_shop.wait_for_deaths(1)
    phone.page.wait_for_timeout(1000)  # five looks of a page in a hurry
    assert len([each for each in phone.requests if "/orders/" in each.url]) == asked
    link.click()
    phone.sees("The Widget")
