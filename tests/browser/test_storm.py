"""The storm as an audience sees it: started by a key, drawn while it blows, and its verdict as a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.visitor import NO_ANSWER, Visitor
from tests.conftest import NewUrl
from tests.support.shop import SupervisedShop
from tests.support.storms import ENDS_SECONDS, wait_for_phase

_SCROLLS = """() => ["html", ".scene-body", ".storm"].map((each) => document.querySelector(each))
  .map((each) => each.scrollHeight - each.clientHeight)"""
_ASTRAY = """() => {
  const value = (each, name) => Number(each.getAttribute(name));
  const boxes = [...document.querySelectorAll(".field .column")];
  const dots = [...document.querySelectorAll(".field .dot")];
  const isIn = (dot, box) => value(dot, "cx") - value(dot, "r") >= value(box, "x")
    && value(dot, "cx") + value(dot, "r") <= value(box, "x") + value(box, "width")
    && value(dot, "cy") + value(dot, "r") <= value(box, "height");
  const told = [...document.querySelectorAll(".field .count")].map((each) => Number(each.textContent));
  return boxes.filter((box, at) => dots.filter((dot) => isIn(dot, box)).length !== told[at]).length;
}"""
"""How many boxes of the field have not as many dots within them as stands above."""
_PATIENCE_MS = ENDS_SECONDS * 1000
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


@pytest.fixture
def storm_shop(new_url: NewUrl) -> Iterator[SupervisedShop]:
    """A shop with a parent, slow enough that orders can be seen on their track."""
    shop = SupervisedShop(new_url(), STORE_DISPATCH_TICK_SECONDS=0.3)
    yield shop
    shop.parent.close()


def looks_right(page: Page) -> None:
    """Nothing is below the end of the picture, and axe finds nothing."""
    assert max(page.evaluate(_SCROLLS)) <= 1  # half a pixel is rounded up
    found = Axe().run(page, options=_RULES).response
    assert [each["id"] for each in found["violations"]] == []


@pytest.mark.timeout(600)  # a storm kills servers, on a machine that may be busy
def test_a_storm_is_started_by_a_key_and_seen_to_its_end(storm_shop: SupervisedShop, visit: Visit) -> None:
    """Dots, a flash for each kill, the order that one met; then the picture, which can be saved."""
    presenter: Visitor = visit(
        storm_shop, "/stage/storm", tolerated=NO_ANSWER, viewport={"width": 1280, "height": 720}
    )
    page = presenter.page
    looks_right(page)
    for name, number in {"shoppers": 6, "seconds": 8, "kills": 3}.items():
        page.locator(f"#start-storm [name={name}]").fill(str(number))
    page.locator("h1").click()  # out of the form, where a letter is typed
    page.keyboard.press("b")
    expect(page.locator(".field .dot")).to_have_count(6, timeout=_PATIENCE_MS)
    assert page.evaluate(_ASTRAY) == 0
    expect(page.locator("#start-storm")).to_be_hidden()
    expect(page.locator(".field .flash")).to_have_count(1, timeout=_PATIENCE_MS)
    expect(page.locator(".met .track.large .crack").first).to_be_attached(timeout=_PATIENCE_MS)
    looks_right(page)
    assert page.evaluate(_ASTRAY) == 0
    expect(page.locator(".storm-counts .ordinary")).to_contain_text("cheated")
    row = wait_for_phase(storm_shop, "ended")
    assert 2 <= row.killed <= len(storm_shop.deaths)
    expect(page.locator("#announcement")).to_contain_text("The books balance", timeout=_PATIENCE_MS)
    expect(page.locator(".verdict-picture img")).to_have_js_property("naturalWidth", 1600)
    expect(page.locator(".verdict-picture img")).to_have_js_property("naturalHeight", 600)
    looks_right(page)
    with page.expect_download() as saving:
        page.locator("#save-picture").click()
    saved = Path(saving.value.path())
    assert saving.value.suggested_filename == "storm-1.svg"
    assert ET.parse(saved).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own
    assert not storm_shop.tables.faults()
    assert storm_shop.shopper.get("/ledger.json").json["balanced"]


def test_a_storm_that_is_too_large_is_refused_where_it_was_asked_for(
    storm_shop: SupervisedShop, visit: Visit
) -> None:
    """The page stays, and says what to do."""
    presenter = visit(storm_shop, "/stage/storm", tolerated="400")
    page = presenter.page
    page.locator("#start-storm [name=shoppers]").evaluate("(input) => { input.max = ''; input.value = 201; }")
    page.get_by_role("button", name="Start a storm").click()
    expect(page.get_by_role("alert")).to_contain_text("must be a whole number from 1 to 200")
    assert storm_shop.tables.rows("SELECT 1 FROM storms") == []
