"""What a visit costs a browser: requests, and bytes over the wire with their headers."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext

from store.settings import ROOT
from store.web.static_files import BUNDLES
from tests.browser.conftest import OpenShop
from tests.support.shop import Shop

_FIRST_BYTES = 30 * 1024
_SECOND_BYTES = 3 * 1024
_BAR_BYTES = 300
"""More, of the presenter's bar."""
_RULES = r"""(css) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  // The value of a variable is kept as it was written, spaces and all.
  const tidy = (text) => text.replace(/\s+/g, " ").replace(/ ?([,()/:;]) ?/g, "$1");
  return [...sheet.cssRules].map((rule) => tidy(rule.cssText));
}"""


@pytest.fixture
def context(browser: Browser) -> Any:
    """A browser that has never been anywhere."""
    context = browser.new_context()
    yield context
    context.close()


def visit(context: BrowserContext, shop: Shop) -> dict[str, float]:
    """Open the store in a new tab; the bytes of each answer that came over the wire, until it polls."""
    page = context.new_page()
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    addresses: dict[str, str] = {}
    kept: set[str] = set()
    sizes: dict[str, float] = {}
    network.on(
        "Network.requestWillBeSent", lambda it: addresses.update({it["requestId"]: it["request"]["url"]})
    )
    network.on("Network.requestServedFromCache", lambda it: kept.add(it["requestId"]))
    network.on(
        "Network.responseReceived",
        lambda it: kept.add(it["requestId"]) if it["response"].get("fromDiskCache") else None,
    )
    network.on("Network.loadingFinished", lambda it: sizes.update({it["requestId"]: it["encodedDataLength"]}))
    page.goto(shop.server.url, wait_until="networkidle")
    page.close()
    fetched = {
        addresses[number].removeprefix(shop.server.url): size
        for number, size in sizes.items()
        if number not in kept
    }
    return {path: size for path, size in fetched.items() if path == "/" or path.startswith("/static/")}


@pytest.mark.parametrize("has_tools", [False, True], ids=["shopper", "presenter"])
def test_a_visit_is_few_requests_and_few_bytes(
    open_shop: OpenShop, context: BrowserContext, has_tools: bool
) -> None:
    """The first: the page, a stylesheet, a script or two, two pictures. The second: the page."""
    shop = open_shop(**({} if has_tools else {"STORE_TRUSTED_PROXIES": 1}))
    for _ in range(8):
        shop.shopper.confirm(shop.shopper.buy())
    first = visit(context, shop)
    assert ("presenter.js" in str(first)) == has_tools
    assert len(first) <= (6 if has_tools else 5), first
    assert sum(first.values()) <= _FIRST_BYTES, first
    second = visit(context, shop)
    assert set(second) == {"/"}, second
    assert sum(second.values()) <= _SECOND_BYTES + has_tools * _BAR_BYTES, second


@pytest.mark.parametrize("bundle", [name for name in BUNDLES if name.endswith(".css")])
def test_a_small_stylesheet_says_what_its_sources_say(
    lively_shop: Shop, browser: Browser, bundle: str
) -> None:
    """Rule by rule, as Chromium understands both."""
    sources = "\n".join((ROOT / "static" / name).read_text(encoding="utf-8") for name in BUNDLES[bundle])
    page = browser.new_page()
    small = lively_shop.shopper.get(f"/static/{bundle}").text
    assert page.evaluate(_RULES, small) == page.evaluate(_RULES, sources)
    page.close()
