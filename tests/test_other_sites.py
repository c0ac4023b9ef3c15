"""Pages of other sites: they may link here, and change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.refusal import is_one_sentence
from tests.support.shop import Shop
from tests.support.shopper import HTML, Answer, key

_FORM = {**HTML, "Content-Type": "application/x-www-form-urlencoded"}
_ACTIONS = ("/buy", "/pay/some-order", "/restock", "/crash_application", "/checkout/a-long-key")


def send(shop: Shop, path: str, headers: dict[str, str]) -> Answer:
    """Submit a form with these headers, in which SHOP is the address of the shop."""
    ours = {name: text.replace("SHOP", shop.server.url) for name, text in headers.items()}
    return shop.shopper.request("POST", path, f"key={key()}&outcome=paid", {**_FORM, **ours})


@pytest.mark.parametrize("path", _ACTIONS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "SHOP"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "SHOP.evil.example"},
    ],
    ids=str,
)
def test_another_site_changes_nothing(shop: Shop, path: str, headers: dict[str, str]) -> None:
    """403 in one sentence, no order made, no server dead."""
    before = set(shop.tables.orders())
    answer = send(shop, path, headers)
    assert answer.status == 403
    if path.startswith("/checkout"):
        assert is_one_sentence(answer.json["error"])
    assert set(shop.tables.orders()) == before
    assert shop.shopper.is_open()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "SHOP"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "SHOP"},
    ],
    ids=str,
)
def test_our_own_pages_and_programs_buy(shop: Shop, headers: dict[str, str]) -> None:
    """What a browser says of our own forms, new or old, and what says nothing, as curl does."""
    answer = send(shop, "/buy", headers)
    assert answer.status == 303


def test_another_site_may_link_here(shop: Shop) -> None:
    """To look is no change."""
    answer = shop.shopper.request("GET", "/", headers={**HTML, "Sec-Fetch-Site": "cross-site"})
    assert answer.status == 200


def test_behind_a_proxy_the_public_name_is_the_one_compared(open_shop: Callable[..., Shop]) -> None:
    """The name that visitors ask for, and not the one that the proxy asks for."""
    shop = open_shop(STORE_TRUSTED_PROXIES=1, STORE_TRUSTED_HOSTS="widgets.example")
    through = {
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "widgets.example",
    }
    assert send(shop, "/buy", {**through, "Origin": "https://widgets.example"}).status == 303
    assert send(shop, "/buy", {**through, "Origin": "https://evil.example"}).status == 403
    assert send(shop, "/buy", {**through, "Origin": "SHOP"}).status == 403
    assert send(shop, "/buy", {**through, "Origin": "http://widgets.example"}).status == 403
