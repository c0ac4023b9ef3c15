"""The server dies while somebody shops: the page says so calmly, keeps the click, and goes on by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.browser.conftest import OpenShop, Visit
from tests.browser.gallery import row
from tests.browser.visitor import NO_ANSWER, Visitor, is_marked, mark
from tests.support.shop import Shop, SupervisedShop
from tests.support.shopper import eventually


@pytest.fixture
def kept_shop(sqlite_url: Callable[[], str]) -> Iterator[SupervisedShop]:
    """A shop with a parent, where a dispatch takes some seconds."""
    shop = SupervisedShop(sqlite_url(), STORE_PAYMENT_WINDOW_SECONDS=600, STORE_DISPATCH_TICK_SECONDS=0.5)
    yield shop
    shop.server.close()


# Whatever is said across the top, as the page itself sees it: some of it is there for less than a second.
_NOTE_ALL_NEWS = """
    window.news = [];
    const news = document.getElementById("crash-news");
    const note = () => window.news.push(news.textContent);
    new MutationObserver(note).observe(news, {childList: true, subtree: true});
"""


_NOTE_THE_OUTAGE = """
    window.outages = [];
    new MutationObserver(() => {
        const words = document.getElementById("outage")?.textContent;
        if (words) window.outages.push(words);
    }).observe(document, {childList: true, subtree: true});
"""


def look_of(button: Locator) -> object:
    """Its words, and the colours that they are drawn in."""
    colours = "getComputedStyle(button).color, getComputedStyle(button).backgroundColor"
    return button.evaluate(f"button => [button.innerText, {colours}]")


def banner(shopper: Visitor) -> Locator:
    """What is said of an outage."""
    return shopper.page.locator("#outage")


def die_at_the_first_form(shopper: Visitor, shop: SupervisedShop, *, after_its_work: bool) -> list[Route]:
    """Kill the server at the first form that is sent, which nobody answers: before or after its work.

    Returns the requests that this befell: none yet, and then one.
    """
    died: list[Route] = []

    def die_once(route: Route) -> None:
        if route.request.method != "POST" or died:
            route.fallback()
            return
        died.append(route)
        if after_its_work:
            route.fetch(max_redirects=0)
        shop.kill()
        route.abort("connectionreset")

    shopper.page.route("**", die_once)
    return died


def test_a_purchase_goes_through_a_kill_between_each_pair_of_clicks(
    kept_shop: SupervisedShop, visit: Visit
) -> None:
    """One order, one charge, one page load."""
    shopper = visit(kept_shop, tolerated=NO_ANSWER)
    kept_shop.kill()
    payment_id = shopper.buy()
    kept_shop.kill()
    shopper.pay()
    for progress in (2, 5, 8):
        shopper.wait_until(lambda: shopper.progress >= progress)  # noqa: B023 - used before the next round
        kept_shop.kill()
    shopper.sees("Dispatched")
    expect(banner(shopper)).to_be_hidden()
    assert shopper.loads() == 1
    assert kept_shop.tables.orders() == {payment_id: "dispatched"}
    assert not kept_shop.tables.faults()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_purchase_goes_through_a_kill_during_each_request(
    kept_shop: SupervisedShop, visit: Visit, moment: str
) -> None:
    """Before the server has it, or after, with the answer lost: each click is sent again by itself."""
    shopper = visit(kept_shop, tolerated=NO_ANSWER)
    deaths: list[str] = []

    def die_over_it(route: Route) -> None:
        request = route.request
        if request.method != "POST" or request.url in deaths:
            route.fallback()
            return
        deaths.append(request.url)
        if moment == "after":
            route.fetch(max_redirects=0)
        kept_shop.kill()
        route.abort("connectionreset")

    shopper.page.route("**", die_over_it)
    payment_id = shopper.buy()
    shopper.pay()
    shopper.sees("Dispatched")
    assert len(deaths) == 2
    kept_shop.wait_for_deaths(2)
    assert shopper.loads() == 1
    assert kept_shop.tables.orders() == {payment_id: "dispatched"}
    assert row(kept_shop, payment_id).order_id == 1
    assert not kept_shop.tables.faults()


def test_cancelling_goes_through_a_kill(kept_shop: SupervisedShop, visit: Visit) -> None:
    """The button that was pressed is the one that is sent again."""
    shopper = visit(kept_shop, tolerated=NO_ANSWER)
    payment_id = shopper.buy()
    died = die_at_the_first_form(shopper, kept_shop, after_its_work=False)
    shopper.cancel.click()
    shopper.sees("Payment cancelled")
    assert died
    assert kept_shop.tables.orders() == {payment_id: "declined"}


def test_a_long_outage_is_said_and_everything_stays_where_it_is(open_shop: OpenShop, visit: Visit) -> None:
    """Within two seconds, as a status; the click is kept; and it goes away by itself."""
    shop = open_shop()
    shopper = visit(shop, patient=True, tolerated=NO_ANSWER)
    expect(banner(shopper)).to_be_hidden()
    expect(banner(shopper)).to_have_attribute("role", "status")
    mark(shopper.buy_now)

    shopper.page.route("**", lambda route: route.abort("connectionrefused"))
    expect(banner(shopper)).to_contain_text("We lost contact with the shop. Your order is safe")
    assert is_marked(shopper.buy_now)
    shopper.buy_now.click()
    expect(banner(shopper)).to_contain_text("Your click is kept")
    expect(shopper.page.locator("#shelf form")).to_have_attribute("aria-busy", "true")
    shopper.wait_until(lambda: shopper.asked("/buy", "POST") >= 3)
    assert is_marked(shopper.page.locator("#shelf button"))
    expect(shopper.page.get_by_role("alert")).to_have_count(0)
    assert not shop.tables.orders()

    shopper.page.unroute("**")
    shopper.sees("Your widget is held")
    expect(banner(shopper)).to_be_hidden()
    assert len(shop.tables.orders()) == 1
    assert shopper.loads() == 1


@pytest.mark.sampled(1)
@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_a_proxy_says_of_a_dead_server_is_an_outage_too(
    still_shop: Shop, visit: Visit, status: int
) -> None:
    """A link that is followed meanwhile arrives as soon as there is somebody to answer."""
    shopper = visit(still_shop, tolerated=NO_ANSWER)
    shopper.page.route("**", lambda route: route.fulfill(status=status, body="<h1>Bad Gateway</h1>"))
    expect(banner(shopper)).to_contain_text("We lost contact with the shop")
    shopper.page.get_by_role("link", name="The books", exact=True).click()
    expect(banner(shopper)).to_contain_text("Your click is kept")
    expect(shopper.heading).to_have_text("The Widget")
    shopper.page.unroute("**")
    shopper.sees("The books")
    expect(banner(shopper)).to_be_hidden()
    assert shopper.loads() == 1


def test_only_the_pressed_button_changes_and_says_what_it_does(still_shop: Shop, visit: Visit) -> None:
    """Whatever else is answered meanwhile, there is contact: one slow answer is no outage."""
    shopper = visit(still_shop)
    shopper.page.add_init_script(_NOTE_THE_OUTAGE)
    shopper.open()
    for pressed, words, other in (("Buy Now", "Reserving…", None), ("Confirm payment", "Paying…", "Cancel")):
        held = shopper.hold_forms_back()
        beside = shopper.page.get_by_role("button", name=other, exact=True) if other else None
        before = look_of(beside) if beside else None
        shopper.page.get_by_role("button", name=pressed).click()
        button = shopper.page.get_by_role("button", name=words)
        expect(button).to_be_disabled()
        shopper.wait_until(lambda: len(held) == 1)  # noqa: B023 - used before the next round
        assert (look_of(beside) if beside else None) == before
        if pressed == "Buy Now":
            shopper.next_answer("/recent")
            shopper.next_answer("/recent")
            assert shopper.page.evaluate("window.outages") == []
        held[0].continue_()
        shopper.sees("Your widget is held" if pressed == "Buy Now" else "Paid. Your widget is on its way")
        shopper.page.unroute("**")


def test_a_slow_network_is_no_outage(still_shop: Shop, visit: Visit) -> None:
    """At two seconds for each answer nothing is said, through a whole purchase."""
    shopper = visit(still_shop, patient=True)
    shopper.page.evaluate("location.replace('about:blank')")
    shopper.page.add_init_script(_NOTE_THE_OUTAGE)
    network = shopper.page.context.new_cdp_session(shopper.page)
    network.send("Network.enable")
    conditions = {"offline": False, "latency": 2000, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", conditions)
    shopper.open()
    shopper.next_answer("/shelf")
    shopper.buy()
    shopper.next_answer("/status")
    shopper.pay()
    shopper.next_answer("/progress")
    assert shopper.page.evaluate("window.outages") == []


def test_a_shop_that_hangs_is_lost_contact(still_shop: Shop, visit: Visit) -> None:
    """Nobody answers anything: it is said within two seconds, and a click is kept within one."""
    shopper = visit(still_shop, patient=True, tolerated=NO_ANSWER)
    shopper.hold_back("**")
    expect(banner(shopper)).to_contain_text("We lost contact with the shop. Your order is safe")
    forms = shopper.hold_forms_back()
    shopper.buy_now.click()
    expect(banner(shopper)).to_contain_text("Your click is kept")
    forms[0].continue_()
    shopper.page.unroute("**")
    shopper.sees("Your widget is held")
    expect(banner(shopper)).to_be_hidden()


def test_the_timeline_is_asked_for_until_it_comes(still_shop: Shop, paid_order: str, visit: Visit) -> None:
    """Opened while nobody answers: nothing else would ask again, and the page has said that it does."""
    shopper = visit(still_shop, f"/orders/{paid_order}", tolerated=NO_ANSWER)
    shopper.page.route("**", lambda route: route.abort("connectionrefused"))
    shopper.page.get_by_text("What the database remembers").click()
    expect(banner(shopper)).to_contain_text("Your click is kept")
    shopper.page.unroute("**")
    expect(shopper.page.locator("#timeline li").first).to_contain_text("reserve")
    expect(banner(shopper)).to_be_hidden()


def test_without_one_of_its_scripts_the_shop_goes_on(still_shop: Shop, visit: Visit) -> None:
    """A server can die while a page loads: whatever script is lost then, one can buy."""
    for lost in ("contact", "outage", "pressed", "servers", "stage"):
        shopper = visit(still_shop, tolerated="ERR_FAILED")
        shopper.page.route(f"**/{lost}.js*", lambda route: route.abort())
        shopper.open()
        shopper.buy()
        shopper.leave()


@pytest.mark.first_of_all
def test_one_press_of_the_crash_button_is_one_crash(kept_shop: SupervisedShop, visit: Visit) -> None:
    """A browser sends a form that was not answered again; the next server knows that it was not meant."""
    presenter = visit(kept_shop, tolerated=NO_ANSWER)
    payment_id = presenter.buy()
    presenter.pay()
    tools = presenter.page.locator("#presenter")
    for crashes in (1, 2, 3):
        expect(tools).to_contain_text(f"{crashes - 1} crash")
        presenter.page.get_by_role("button", name="Crash the server").click()
        expect(tools).to_contain_text(f"{crashes} crash")
        expect(tools).to_contain_text(f"Server {crashes + 1}, process")
    presenter.sees("Dispatched")
    assert presenter.path == f"/orders/{payment_id}"
    assert presenter.loads() == 1
    assert kept_shop.tables.rows("SELECT count(*) FROM executors") == [(4,)]
    assert kept_shop.server.output.count("died (exit code 1)") == 3
    presenter.page.get_by_text("What the database remembers").click()
    [(survived,)] = kept_shop.tables.rows(
        "SELECT count(*) FROM takeovers WHERE status IN ('pending', 'paid')"
    )
    assert survived > 0
    expect(presenter.page.locator("#timeline li.crash")).to_have_count(survived)


@pytest.mark.timeout(600)  # ten servers have to start, and on a busy machine each takes seconds
def test_ten_presses_are_ten_crashes(kept_shop: SupervisedShop, visit: Visit) -> None:
    """A press that comes while the next server starts is kept for that one; each is said across the top."""
    presenter = visit(kept_shop, tolerated=NO_ANSWER)
    news = presenter.page.locator("#crash-news")
    expect(news).to_be_hidden()
    presenter.page.evaluate(_NOTE_ALL_NEWS)
    for _ in range(10):
        presenter.page.keyboard.press("c")
    for count in range(1, 11):
        presenter.wait_until(lambda: len(kept_shop.deaths) >= count)  # noqa: B023 - used before the next round
    expect(news).to_have_text(re.compile(r"^Server 11 took over after \d+ ms; nothing was under way\.$"))
    assert kept_shop.tables.rows("SELECT count(*) FROM executors") == [(11,)]
    assert presenter.loads() == 1
    expect(news).to_be_hidden()  # after five seconds
    # Each was said on the page when it came, and by its name.
    said = " ".join(presenter.page.evaluate("window.news"))
    for number in range(1, 11):
        assert f"Server {number} (process " in said
        assert f"Server {number + 1} took over" in said
    assert said.count("is dead: ") >= 10


def test_a_crash_is_said_on_every_page_with_the_bar(kept_shop: SupervisedShop, visit: Visit) -> None:
    """By the first answer that comes from another server, also where nobody pressed anything."""
    presenter = visit(kept_shop, tolerated=NO_ANSWER)
    passer_by = visit(kept_shop, "/ledger", tolerated=NO_ANSWER)
    payment_id = presenter.buy()
    for each in (presenter, passer_by):
        each.next_answer("/presenter/tools")  # both have heard from the first server
    kept_shop.kill()
    [(number,)] = kept_shop.tables.rows("SELECT order_id FROM orders WHERE payment_id = :id", id=payment_id)
    said = re.compile(rf"^Server 2 took over after \d+ ms; order {number} is held as before\.$")
    for each in (presenter, passer_by):
        expect(each.page.locator("#crash-news")).to_have_text(said)


def test_without_javascript_the_same_form_reaches_the_same_order(
    kept_shop: SupervisedShop, visit: Visit
) -> None:
    """The browser shows its own error page; going back and pressing again is the same order."""
    shopper = visit(kept_shop, java_script_enabled=False, tolerated=NO_ANSWER)
    key = shopper.key
    died = die_at_the_first_form(shopper, kept_shop, after_its_work=True)
    shopper.buy_now.click()
    shopper.wait_until(lambda: bool(died))
    shopper.page.wait_for_url("chrome-error://**")
    kept_shop.wait_for_deaths(1)
    shopper.open(f"/pay/{key}").sees("Your widget is held")
    assert kept_shop.tables.orders() == {key: "pending"}
    eventually(kept_shop.shopper.is_open, bool)  # one that shows its pages may not take any click yet
    assert kept_shop.shopper.submit("/buy", key=key).location == f"/pay/{key}"
    assert len(kept_shop.tables.orders()) == 1
