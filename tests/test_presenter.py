"""The presenter's tools: who may use them, what they do, and that nobody else hears of them."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from urllib.parse import urlsplit

import pytest
from flask import Request
from werkzeug.test import create_environ

from store.settings import Settings
from store.stage.access import Access
from store.stage.access import Decision as Said
from tests.support.refusal import is_one_sentence
from tests.support.server import SERVER
from tests.support.shop import PASSWORD, Shop
from tests.support.shopper import HTML, Answer, eventually, key

_TOOLS = ("/presenter", "/presenter/tools")
_ACTIONS = ("/restock", "/crash_application")


def credentials(password: str) -> dict[str, str]:
    """As a browser sends them. The user's name is nobody's business."""
    return {"Authorization": "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()}


def as_html(shop: Shop, path: str, *, method: str = "GET", **headers: str) -> Answer:
    """Ask as a browser does."""
    return shop.shopper.request(method, path, headers={**HTML, **headers})


@pytest.fixture(scope="module")
def guarded(new_url: Callable[[], str]) -> Iterator[Shop]:
    """A shop whose tools are behind a password."""
    shop = Shop(new_url(), STORE_PRESENTER_PASSWORD=PASSWORD)
    shop.server.start()
    yield shop
    shop.server.close()


# --- on loopback --------------------------------------------------------------------------------


def test_on_loopback_the_tools_are_on_every_page_of_a_purchase(shop: Shop) -> None:
    """The store, the payment, the order, and the books."""
    payment_id = shop.shopper.buy()
    pages = [
        shop.shopper.page(path).text
        for path in ("/", f"/pay/{payment_id}", f"/orders/{payment_id}", "/ledger")
    ]
    for page in pages:
        assert "Fill the shelf to 100" in page
        assert "Crash the server" in page
    assert "this machine only" in shop.server.output


def test_the_tools_name_the_server_that_answers(shop: Shop) -> None:
    """Its process, since when it is up, and how many crashes there have been."""
    [(number, pid)] = shop.tables.rows("SELECT number, pid FROM executors ORDER BY number DESC LIMIT 1")
    tools = shop.shopper.page("/presenter/tools").text
    assert pid == shop.server.pid
    assert f"Server {number}, process {pid}" in tools
    assert f'name="executor" value="{number}"' in tools


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host", "X-Forwarded-Proto",
        "X-Forwarded-Port", "X-Forwarded-By", "X-Forwarded-Server", "X-Forwarded-Anything",
        "x-forwarded-ssl", "X-Client-IP", "X-Cluster-Client-IP", "X-ProxyUser-Ip",
        "X-Original-Forwarded-For", "X-Original-Host", "X-Original-URL", "X-Envoy-External-Address",
        "X-Amzn-Trace-Id", "X-Amz-Cf-Id", "X-Azure-ClientIP", "X-Appengine-User-Ip",
        "X-Vercel-Forwarded-For", "X-Request-Start", "X-ARR-LOG-ID", "X-Remote-Addr",
        "CF-Connecting-IP", "cf-ray", "CF-IPCountry", "CDN-Loop", "True-Client-IP", "Fastly-Client-IP",
        "Fastly-FF", "Fly-Client-IP", "Fly-Forwarded-Proto", "WL-Proxy-Client-IP", "Proxy-Client-IP",
        "Proxy-Connection", "Akamai-Origin-Hop", "Client-IP", "Remote-Addr", "Forwarded-For",
        "Ali-Cdn-Real-Ip", "Tailscale-User-Login", "Cloudfront-Viewer-Address", "Incap-Client-IP",
        "Ngrok-Trace-Id",
    ],
)  # fmt: skip
def test_a_proxy_that_nobody_told_of_gets_no_tools(shop: Shop, header: str) -> None:
    """It runs on this machine too, and who is behind it nobody knows."""
    page = as_html(shop, "/", **{header: "192.0.2.7"})
    assert page.status == 200
    assert "Crash" not in page.text
    for path in _ACTIONS:
        for method in ("GET", "POST", "DELETE"):
            assert as_html(shop, path, method=method, **{header: "192.0.2.7"}).status == 404
    assert shop.shopper.is_open()


@pytest.mark.parametrize(
    "request_line_and_headers",
    [
        "HTTP/1.0\r\nHost: HERE\r\nConnection: close\r\n",
        "HTTP/1.0\r\nHost: HERE\r\n",
        "HTTP/1.0\r\n",
        "HTTP/1.1\r\nHost: HERE\r\nConnection: close\r\n",
    ],
    ids=["as nginx does", "HTTP/1.0", "without Host", "HTTP/1.1 as nginx does"],
)
def test_a_proxy_that_says_nothing_of_itself_gets_no_tools(shop: Shop, request_line_and_headers: str) -> None:
    """It is known by how it asks, which no browser of today does."""
    where = urlsplit(shop.server.url)
    said = request_line_and_headers.replace("HERE", where.netloc)
    for path, status in [("POST /crash_application", b"404"), ("POST /restock", b"404"), ("GET /", b"200")]:
        with socket.create_connection((str(where.hostname), where.port or 0), timeout=20) as connection:
            connection.sendall(f"{path} {said}Accept: text/html\r\nContent-Length: 0\r\n\r\n".encode())
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        assert answer.split()[1:2] == [status], answer
        assert b"Crash" not in answer
    assert shop.shopper.is_open()


# --- the crash ----------------------------------------------------------------------------------


def test_a_crash_is_at_once_and_tells_nobody(open_shop: Callable[..., Shop]) -> None:
    """Exit code 1, no answer, no word in the database; the next start says so."""
    shop = open_shop()
    payment_id = shop.shopper.hold(key())
    with pytest.raises((OSError, HTTPException)):
        shop.shopper.post("/crash_application")
    assert shop.server.wait_for_death() == 1
    assert shop.tables.rows("SELECT how_ended FROM executors") == [(None,)]
    shop.server.restart()
    assert shop.tables.rows("SELECT left_by, payment_id FROM takeovers") == [(1, payment_id)]
    assert '1 crash<span class="detail"> survived' in shop.shopper.page("/").text
    assert "It resumed 1 order" in shop.shopper.page("/").text
    page = eventually(
        lambda: shop.shopper.page(f"/orders/{payment_id}/timeline").text, lambda text: "took over" in text
    )
    assert "Server 1 died" in page
    assert f"Server 2 (process {shop.server.pid}) took over" in page


def test_a_crash_that_was_meant_for_an_earlier_server_is_none(shop: Shop) -> None:
    """A browser that sends the form again, or a reload of its error page, does no harm."""
    asked = shop.shopper.submit("/crash_application", executor="0")
    assert (asked.status, asked.location) == (303, "/")
    by_htmx = shop.shopper.request(
        "POST",
        "/crash_application",
        "executor=0",
        {**HTML, "HX-Request": "true", "Content-Type": "application/x-www-form-urlencoded"},
    )
    assert by_htmx.status == 204
    assert shop.shopper.is_open()


def test_a_stop_is_not_a_crash(open_shop: Callable[..., Shop]) -> None:
    """SIGTERM is written down, and what waits is not called recovered."""
    shop = open_shop()
    shop.shopper.buy(key())
    assert shop.server.stop() == 0
    assert shop.tables.rows("SELECT how_ended FROM executors") == [("stopped",)]
    shop.server.restart()
    assert "It resumed" not in shop.shopper.page("/").text
    assert '0 crashes<span class="detail"> survived' in shop.shopper.page("/").text


# --- elsewhere ----------------------------------------------------------------------------------


def test_where_others_can_reach_the_shop_there_is_no_trace(open_shop: Callable[..., Shop]) -> None:
    """Every route is not found, and no page has a word of it."""
    shop = open_shop(STORE_TRUSTED_PROXIES=1)
    for path in _TOOLS:
        assert as_html(shop, path).status == 404
    for path in _ACTIONS:
        assert shop.shopper.post(path).status == 404
    payment_id = shop.shopper.buy()
    for path in ("/", f"/pay/{payment_id}", f"/orders/{payment_id}", "/ledger"):
        page = shop.shopper.page(path).text.lower()
        assert not re.search(r"presenter|restock|fill the shelf|crash_application|crash-news|stage.js", page)
    assert "The presenter's tools are off; set STORE_PRESENTER_PASSWORD to have them." in shop.server.output


def test_behind_a_password_there_is_no_trace_for_others(guarded: Shop) -> None:
    """Pages are as they are without tools; the tools ask for the password."""
    assert "presenter" not in guarded.shopper.page("/").text.lower()
    for path in _TOOLS:
        answer = as_html(guarded, path)
        assert (answer.status, answer.location) == (303, f"/stage/sign_in?next={path}")
        assert guarded.shopper.get(path).status == 401
    for path in _ACTIONS:
        answer = guarded.shopper.post(path)
        assert answer.status == 401
        assert answer.headers["Www-Authenticate"].startswith("Basic ")
        assert is_one_sentence(answer.json["error"])
    assert guarded.shopper.is_open()
    assert "/presenter, behind STORE_PRESENTER_PASSWORD" in guarded.server.output
    assert PASSWORD not in guarded.server.output


def test_whoever_knows_the_password_has_the_tools(guarded: Shop) -> None:
    """By signing in once; from then on the browser sends it along to every page."""
    signed_in = as_html(guarded, "/presenter", **credentials(PASSWORD))
    assert (signed_in.status, signed_in.location) == (303, "/")
    assert "Crash the server" in as_html(guarded, "/", **credentials(PASSWORD)).text
    filled = guarded.shopper.request("POST", "/restock", headers=credentials(PASSWORD))
    assert (filled.status, filled.json) == (200, {"units_added": 0})


def test_the_password_crashes_the_shop(open_shop: Callable[..., Shop]) -> None:
    """From any address, for whoever has it."""
    shop = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD, STORE_TRUSTED_PROXIES=1)
    with pytest.raises((OSError, HTTPException)):
        shop.shopper.request("POST", "/crash_application", headers=credentials(PASSWORD))
    assert shop.server.wait_for_death() == 1


def test_failed_tries_are_slowed_down(open_shop: Callable[..., Shop]) -> None:
    """After a wrong password even the right one has to wait; others need not."""
    shop = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD, STORE_TRUSTED_PROXIES=1)

    def try_from(address: str, password: str) -> Answer:
        return as_html(shop, "/presenter", **credentials(password), **{"X-Forwarded-For": address})

    def try_twice() -> tuple[float, Answer, Answer, Answer]:
        began_at = time.monotonic()
        # Until an earlier round is forgiven.
        eventually(lambda: try_from("192.0.2.1", "wrong").status, lambda status: status == 401)
        at_once = try_from("192.0.2.1", PASSWORD)
        other = try_from("192.0.2.2", PASSWORD)
        page = as_html(shop, "/", **credentials(PASSWORD), **{"X-Forwarded-For": "192.0.2.1"})
        return time.monotonic() - began_at, at_once, other, page

    # The wait is a second; on a busy machine some rounds take longer.
    _, at_once, other, page = eventually(try_twice, lambda found: found[0] < 1)
    assert at_once.status == 429
    assert 1 <= int(at_once.headers["Retry-After"]) <= 10
    assert "wait" in at_once.text
    assert other.status == 303
    # A page is no way round it: it says nothing of the tools to whoever has to wait.
    assert (page.status, "Crash" in page.text) == (200, False)
    assert shop.server.script == SERVER


def test_guesses_do_not_keep_out_who_has_signed_in_before(open_shop: Callable[..., Shop]) -> None:
    """A browser is recognised by its cookie, behind the same router as a guesser and after a crash."""
    shop = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD)
    signed_in = as_html(shop, "/presenter", **credentials(PASSWORD))
    assert signed_in.status == 303
    recognised = {"Cookie": signed_in.headers.get("Set-Cookie", "").partition(";")[0]}
    stop = threading.Event()
    guesses: list[int] = []

    def guess(number: int) -> None:
        while not stop.is_set():
            guesses.append(as_html(shop, "/presenter", **credentials(f"guess {number}")).status)

    with ThreadPoolExecutor(2) as pool:
        for number in range(2):
            pool.submit(guess, number)
        try:
            eventually(lambda: guesses.count(429), lambda count: count > 5)
            for _ in range(55):
                answer = as_html(shop, "/presenter", **credentials(PASSWORD), **recognised)
                assert answer.status == 303
        finally:
            stop.set()
    assert guesses.count(401) <= 10
    assert set(guesses) == {401, 429}

    def guess_until_it_is_looked_at() -> None:
        guess = credentials("a guess")
        eventually(lambda: as_html(shop, "/presenter", **guess).status, lambda status: status == 401)

    # Without it, the right password has no other answer than a wrong one: that would tell.
    guess_until_it_is_looked_at()
    assert as_html(shop, "/presenter", **credentials(PASSWORD)).status == 429

    shop.server.kill()
    shop.server.restart()
    # What was waited for before the crash is waited for after it.
    guess_until_it_is_looked_at()
    assert as_html(shop, "/presenter", **credentials(PASSWORD)).status == 429
    assert as_html(shop, "/presenter", **credentials(PASSWORD), **recognised).status == 303


def test_a_cookie_is_no_password_and_gives_few_tries(open_shop: Callable[..., Shop]) -> None:
    """Alone it opens nothing; with wrong passwords it is slowed as an address is; others' are unknown."""
    shop, other = (open_shop(STORE_PRESENTER_PASSWORD=word) for word in (PASSWORD, PASSWORD + "!"))
    cookie = as_html(shop, "/presenter", **credentials(PASSWORD)).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Set-Cookie" not in as_html(shop, "/").headers
    assert "Set-Cookie" not in as_html(shop, "/presenter").headers
    recognised = {"Cookie": cookie.partition(";")[0]}
    assert "Set-Cookie" not in as_html(shop, "/presenter", **credentials(PASSWORD), **recognised).headers
    assert as_html(shop, "/presenter", **recognised).status == 303
    assert shop.shopper.get("/presenter", **recognised).status == 401
    began_at = time.monotonic()
    statuses = [
        as_html(shop, "/presenter", **credentials(f"guess {n}"), **recognised).status for n in range(9)
    ]
    # The first wait is a second, and the next one two.
    assert statuses == [401] + [429] * 8 or (
        time.monotonic() - began_at >= 1 and statuses.count(401) <= 1 + (time.monotonic() - began_at)
    )

    for forged in (recognised["Cookie"], recognised["Cookie"][:-1] + "~", "presenter=", "presenter=x.y"):
        assert as_html(other, "/presenter", **credentials(f"wrong {forged}"), Cookie=forged).status in {
            401,
            429,
        }
        assert as_html(other, "/presenter", **credentials(PASSWORD + "!"), Cookie=forged).status == 429


def asked(password: str | None, address: str = "192.0.2.1") -> Request:
    """A request from there with this password, or with none."""
    return Request(
        create_environ(
            auth=None if password is None else ("x", password), environ_base={"REMOTE_ADDR": address}
        )
    )


def test_a_thousand_tries_at_once_are_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes while the first is looked at has come too soon."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)  # or a slow machine's last ones have waited
    access = Access(Settings(presenter_password=PASSWORD))
    tries = [asked(f"guess {number}") for number in range(1000)]
    with ThreadPoolExecutor(50) as pool:
        said = list(pool.map(access.ask, tries))
    assert said.count(Said.WELCOME) == 0
    assert said.count(Said.UNKNOWN) == 1


def test_the_wait_doubles_and_is_forgiven() -> None:
    """One second, two, four, eight, ten; the right password begins anew."""
    access = Access(Settings(presenter_password=PASSWORD))
    clock = [1000.0]
    real, time.monotonic = time.monotonic, lambda: clock[0]
    try:
        waits = []
        for _ in range(6):
            assert access.ask(asked("wrong")) is Said.UNKNOWN
            waits.append(access.seconds_to_wait(asked(None)))
            assert access.ask(asked(PASSWORD)) is Said.TOO_SOON
            clock[0] += waits[-1]
        assert waits == [1, 2, 4, 8, 10, 10]
        assert access.ask(asked(PASSWORD)) is Said.WELCOME
        assert access.ask(asked("wrong")) is Said.UNKNOWN
        assert access.seconds_to_wait(asked(None)) == 1
    finally:
        time.monotonic = real


def test_one_network_of_the_new_internet_is_one_address() -> None:
    """A single machine there has more addresses than it could ever try passwords from."""
    access = Access(Settings(presenter_password=PASSWORD))
    assert access.ask(asked("wrong", "2001:db8:0:1::1")) is Said.UNKNOWN
    assert access.ask(asked("wrong", "2001:db8:0:1::2")) is Said.TOO_SOON
    assert access.ask(asked("wrong", "2001:db8:0:2::1")) is Said.UNKNOWN
