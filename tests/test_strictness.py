"""What a browser is told to be strict about, and the names that the shop answers to."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from flask import Flask

from store.settings import ROOT, Settings
from store.web import origin
from tests.support.refusal import PROGRAM, refuses
from tests.support.shop import Shop
from tests.support.shopper import HTML, key

_PATHS = (
    "/",
    "/shelf?key=some-key-of-mine",
    "/recent",
    "/product",
    "/ledger",
    "/proof",
    "/no-such-page",
    "/static/no-such-file",
)


@pytest.mark.parametrize("path", _PATHS)
def test_every_answer_tells_the_browser_to_be_strict(shop: Shop, path: str) -> None:
    """Pages, fragments, JSON and errors alike."""
    headers = shop.shopper.page(path).headers
    policy = {words[0]: words[1:] for words in map(str.split, headers["Content-Security-Policy"].split(";"))}
    assert policy["default-src"] == ["'self'"]
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == ["'none'"]
    assert policy["form-action"] == ["'self'"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "Strict-Transport-Security" not in headers, "this came over plain HTTP"


@pytest.mark.parametrize("path", ["/static/shop.css", "/static/css/base.css", "/static/widget.svg"])
def test_a_file_says_what_keeps_it_a_file(shop: Shop, path: str) -> None:
    """It is what its type says, for pages of the shop alone. A policy is for documents."""
    headers = shop.shopper.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Content-Security-Policy" not in headers


def test_no_picture_has_a_script() -> None:
    """A picture in SVG can be opened by itself, as a document, and has no policy then."""
    pictures = list((ROOT / "static").rglob("*.svg"))
    assert pictures
    for picture in pictures:
        assert not re.search(r"(?i)<script|\son\w+=|javascript:|<foreignObject", picture.read_text("utf-8"))


def test_over_tls_a_browser_is_told_to_stay_there(open_shop: Callable[..., Shop]) -> None:
    """Where a proxy that is believed says that it was TLS, and nowhere else."""
    shop = open_shop(STORE_TRUSTED_PROXIES=1, STORE_TRUSTED_HOSTS="widgets.example")
    through = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Host": "widgets.example"}
    over_tls = shop.shopper.get("/", **through, **{"X-Forwarded-Proto": "https"})
    assert over_tls.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in shop.shopper.get("/", **through).headers


def test_no_page_needs_what_the_policy_refuses() -> None:
    """No inline script or style, no eval; in the browser tests a violation is an error of the console."""
    for template in (ROOT / "templates").iterdir():
        text = template.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|hx-on|javascript:|js:", text)


# --- names --------------------------------------------------------------------------------------

_OURS = ("localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:9", "[::1]", "[::1]:8000")
_NOT_OURS = (
    "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:8000", "192.0.2.7", "",
    "[", "a b", "-", "[::2]", "127.0.0.2",
)  # fmt: skip


def ask(shop: Shop, host: str, **headers: str) -> int:
    """The status of the store page, asked for by this name."""
    return shop.shopper.request("GET", "/", headers={**HTML, "Host": host, **headers}).status


@pytest.mark.parametrize("host", _OURS)
def test_the_shop_answers_to_names_of_this_machine(shop: Shop, host: str) -> None:
    """With whatever port a tunnel or a container gave them."""
    assert ask(shop, host) == 200


@pytest.mark.parametrize("host", _NOT_OURS)
@pytest.mark.parametrize("path", ["/", "/product", "/no-such-page"])
def test_the_shop_answers_to_no_other_name(shop: Shop, host: str, path: str) -> None:
    """400, as a page or as JSON; a page whose own name was made to mean this machine reads nothing."""
    for accepts in (HTML, PROGRAM):
        answer = shop.shopper.request("GET", path, headers={**accepts, "Host": host})
        assert refuses(answer, 400)
        assert "STORE_TRUSTED_HOSTS" in answer.text
    before = set(shop.tables.orders())
    assert shop.shopper.request("POST", f"/checkout/{key()}", headers={"Host": host}).status == 400
    assert set(shop.tables.orders()) == before


def test_an_operator_says_what_else_it_goes_by(open_shop: Callable[..., Shop]) -> None:
    """A name is that name; with a dot before it, all that is below it too."""
    shop = open_shop(STORE_TRUSTED_HOSTS="widgets.example,.shops.example")
    for host in ("widgets.example", "Widgets.Example:443", "shops.example", "a.shops.example", "localhost"):
        assert ask(shop, host) == 200, host
    for host in ("a.widgets.example", "evilshops.example", "shops.example.evil", "widgets.example."):
        assert ask(shop, host) == 400, host


def test_behind_a_proxy_the_public_name_is_the_one_that_counts(open_shop: Callable[..., Shop]) -> None:
    """What the proxy calls us says nothing about who may read."""
    shop = open_shop(STORE_TRUSTED_PROXIES=1, STORE_TRUSTED_HOSTS="widgets.example")
    through = {"X-Forwarded-For": "192.0.2.7"}
    assert ask(shop, "127.0.0.1", **through, **{"X-Forwarded-Host": "widgets.example"}) == 200
    assert ask(shop, "127.0.0.1", **through, **{"X-Forwarded-Host": "evil.example"}) == 400


def test_a_program_that_names_no_host_is_answered(shop: Shop) -> None:
    """HTTP/1.0, as a load balancer may still ask for its health."""
    where = urlsplit(shop.server.url)
    with socket.create_connection((str(where.hostname), where.port or 0), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"200"


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])  # noqa: S104 - nothing is listened to here
def test_on_every_address_any_address_will_do(wildcard: str) -> None:
    """Phones in the hall ask for 192.168.1.5; an address cannot be made to mean another, a name can."""
    app = Flask("wide open")
    origin.prepare(app, Settings(host=wildcard))
    app.add_url_rule("/", view_func=lambda: "here")
    statuses = {
        host: app.test_client().get("/", headers={"Host": host}).status_code
        for host in (
            "192.168.1.5:8000",
            "[2001:db8::7]",
            "localhost",
            "evil.example",
            "192.168.1.5.evil.example",
        )
    }
    assert list(statuses.values()) == [200, 200, 200, 400, 400], statuses
