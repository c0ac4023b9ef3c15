"""The guestbook and the two lanes, with a browser, through a crash."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.visitor import NO_ANSWER
from tests.support.guestbook import Guestbook
from tests.support.shop import Shop, SupervisedShop


@pytest.fixture
def guestbook(tmp_path: Path) -> Iterator[Guestbook]:
    """Somebody else's system."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        yield guestbook


@pytest.fixture
def kept_shop(
    tmp_path: Path, guestbook: Guestbook, request: pytest.FixtureRequest
) -> Iterator[SupervisedShop]:
    """A shop with a parent beside it, where a tick takes half a second, or as long as the test says."""
    shop = SupervisedShop(
        f"sqlite:///{tmp_path}/store.sqlite3",
        STORE_GUESTBOOK_URL=guestbook.url,
        STORE_DISPATCH_TICK_SECONDS=getattr(request, "param", 0.5),
    )
    yield shop
    shop.server.close()


@pytest.fixture
def shop(tmp_path: Path, guestbook: Guestbook) -> Iterator[Shop]:
    """A shop beside it that nothing kills, and that is quick."""
    shop = Shop(f"sqlite:///{tmp_path}/store.sqlite3", STORE_GUESTBOOK_URL=guestbook.url)
    shop.server.start()
    yield shop
    shop.server.close()


@pytest.mark.parametrize("kept_shop", [2.0], indirect=True)  # long enough to press the button in between
@pytest.mark.parametrize("javascript", [True, False])
def test_a_greeting_goes_through_the_crash_button(
    kept_shop: SupervisedShop, guestbook: Guestbook, visit: Visit, javascript: bool
) -> None:
    """Sign, crash in between, and be in both books once; with JavaScript and without."""
    visitor = visit(kept_shop, "/guestbook", java_script_enabled=javascript, tolerated=NO_ANSWER)
    visitor.page.get_by_label("Your name").fill("Ада")
    visitor.page.get_by_role("button", name="Sign both books").click()
    visitor.sees("Signed in the online guestbook, not yet in ours")
    address = visitor.path
    if javascript:
        visitor.page.get_by_role("button", name="Crash the server").click()
    else:
        kept_shop.kill()
    kept_shop.wait_for_deaths(1)
    if not javascript:  # the browser may be on an error page of its own by now
        visitor.page.goto("about:blank")
        visitor.open(address)
    visitor.sees("Thank you for being awesome, Ада!")
    expect(visitor.page.locator("#books .mine td:not(.hole)")).to_have_count(2)
    expect(visitor.page.locator(".timeline")).to_contain_text("record the greeting")
    assert guestbook.names == ["Ада"]
    assert kept_shop.tables.rows("SELECT name FROM greetings") == [("Ада",)]
    if javascript:
        assert visitor.loads() == 1


def test_a_guestbook_that_is_down_is_said_and_waited_for(
    shop: Shop, guestbook: Guestbook, visit: Visit
) -> None:
    """On the page of the books and on that of the greeting, until it is back."""
    visitor = visit(shop, "/guestbook")
    guestbook.kill()
    expect(visitor.page.locator("#books .trouble")).to_have_text("The guestbook cannot be reached.")
    visitor.page.get_by_label("Your name").fill("Ada")
    visitor.page.get_by_role("button", name="Sign both books").click()
    visitor.sees("The guestbook keeps you waiting")
    guestbook.start()
    visitor.sees("Thank you for being awesome, Ada!")
    assert guestbook.names == ["Ada"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("javascript", [True, False], ids=["with_javascript", "without_javascript"])
def test_a_name_that_is_none_is_refused_where_it_was_written(
    shop: Shop, visit: Visit, *, javascript: bool
) -> None:
    """The form comes back as it was filled in, with one sentence beside its field, and goes on from there."""
    visitor = visit(shop, "/guestbook", tolerated="400", java_script_enabled=javascript)
    name, sign = visitor.page.get_by_label("Your name"), visitor.page.get_by_role("button", name="Sign both")
    name.fill("<b>Ada</b>")
    sign.click()
    expect(visitor.page.get_by_role("alert")).to_have_text("A name has no markup in it: leave out < and >.")
    expect(name).to_have_value("<b>Ada</b>")
    expect(name).to_have_accessible_description("A name has no markup in it: leave out < and >.")
    assert not shop.tables.rows("SELECT * FROM greeting_requests")
    name.fill("Ada")
    sign.click()
    visitor.sees("Thank you for being awesome, Ada!")


@pytest.mark.parametrize("kept_shop", [1.5], indirect=True)  # likewise
def test_both_lanes_through_one_crash(kept_shop: SupervisedShop, guestbook: Guestbook, visit: Visit) -> None:
    """One click runs both, one crashes both: one lane is whole, and the page says how the other is not."""
    presenter = visit(kept_shop, "/lanes", tolerated=NO_ANSWER)
    durable, naive = (presenter.page.locator("#lanes .card").nth(number) for number in (0, 1))
    presenter.page.get_by_role("button", name="Run both lanes").click()
    expect(naive).to_contain_text(re.compile(r"On its way: [1-2] of 10\."))
    presenter.page.get_by_role("button", name="Crash the server").click()
    expect(durable).to_contain_text("Charged once, and dispatched.", timeout=60_000)
    expect(durable).to_contain_text("In both books, once in each.")
    expect(naive).to_contain_text("of 10, and never shipped.")
    expect(naive).to_contain_text("Signed in the online guestbook as No. ")
    expect(naive).to_contain_text("and never in ours.")
    assert presenter.loads() == 1
    assert sorted(name.split()[0] for name in guestbook.names) == ["Durable", "Naive"]
    assert kept_shop.tables.rows("SELECT name FROM greetings") == [("Durable visitor 1",)]
    assert [status for (status,) in kept_shop.tables.rows("SELECT status FROM naive_orders")] == ["paid"]
    presenter.page.get_by_role("link", name="The books", exact=True).click()
    presenter.sees("The books")
    expect(presenter.page.locator("#verdict")).to_have_text("The books balance.")
    expect(presenter.page.get_by_text("Charged and never shipped")).to_be_visible()
    assert not kept_shop.tables.faults()
