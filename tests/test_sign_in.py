"""Signing in: sessions of browsers, what ends them, and that no dialog ever asks for the password."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPConnection
from urllib.parse import quote, urlsplit

import pytest
from flask import Request
from itsdangerous import TimestampSigner
from werkzeug.test import create_environ

from store.settings import Settings
from store.stage.access import SESSION_COOKIE, SESSION_SECONDS, Access, Decision
from tests.support.refusal import is_one_sentence
from tests.support.shop import PASSWORD, Shop
from tests.support.shopper import HTML, Answer, eventually

OpenShop = Callable[..., Shop]
_FORM = "application/x-www-form-urlencoded"
_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Browser:
    """Somebody with a cookie jar and no JavaScript."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.cookies: dict[str, str] = {}
        self.attributes: dict[str, set[str]] = {}

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        """One request, with the cookies; those of the answer are kept."""
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {**HTML, "User-Agent": _FIREFOX, "Content-Type": _FORM, "Cookie": jar, **headers}
        connection = HTTPConnection(urlsplit(self._shop.server.url).netloc, timeout=20)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            for cookie in response.headers.get_all("Set-Cookie", []):
                pair, *attributes = cookie.split("; ")
                name, _, self.cookies[pair.partition("=")[0]] = pair.partition("=")
                self.attributes[name] = set(attributes)
            return Answer(response.status, dict(response.headers.items()), response.read().decode())
        finally:
            connection.close()

    def sign_in(self, password: str = PASSWORD, wanted: str = "/stage") -> Answer:
        """Fill in the form."""
        return self.ask("POST", "/stage/sign_in", f"password={quote(password)}&next={quote(wanted)}")


@pytest.fixture
def guarded(open_shop: OpenShop) -> Shop:
    """A shop whose tools are behind a password."""
    return open_shop(STORE_PRESENTER_PASSWORD=PASSWORD)


def test_signing_in_leads_to_the_page_that_was_asked_for(guarded: Shop) -> None:
    """By a plain form, into a session whose cookie no script reads and no other site sends."""
    browser = Browser(guarded)
    asked = browser.ask("GET", "/stage/notes?from=here")
    assert asked.status == 303
    form = browser.ask("GET", asked.location)
    assert (form.status, form.heading) == (200, "Sign in")
    assert 'name="next" value="/stage/notes?from=here"' in form.text
    assert not browser.cookies
    signed_in = browser.sign_in(wanted="/stage/notes?from=here")
    assert (signed_in.status, signed_in.location) == (303, "/stage/notes?from=here")
    told = {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={SESSION_SECONDS}"}
    assert told <= browser.attributes[SESSION_COOKIE]
    assert browser.ask("GET", "/stage/notes").status == 200
    assert "Crash the server" in browser.ask("GET", "/").text
    assert browser.ask("GET", "/stage/sign_in?next=/ledger").location == "/ledger"
    assert PASSWORD not in "".join(browser.cookies.values()) + guarded.server.output


def test_a_session_outlives_a_crash_and_ends_by_signing_out(guarded: Shop) -> None:
    """The key of its signature is made of the password, so the next server knows it, too."""
    browser = Browser(guarded)
    browser.sign_in()
    guarded.server.kill()
    guarded.server.restart()
    assert browser.ask("GET", "/stage").status == 200
    assert "Sign out" in browser.ask("GET", "/").text
    out = browser.ask("POST", "/stage/sign_out")
    assert (out.status, out.location) == (303, "/stage/sign_in")
    assert not browser.cookies[SESSION_COOKIE]
    assert browser.ask("GET", "/stage").status == 303
    assert "Crash" not in browser.ask("GET", "/").text


def test_another_password_ends_all_sessions(open_shop: OpenShop, guarded: Shop) -> None:
    """And a cookie that was changed, or is of the other kind, is none."""
    browser = Browser(guarded)
    browser.sign_in()
    session, device = browser.cookies[SESSION_COOKIE], browser.cookies["presenter"]
    other = Browser(open_shop(STORE_PRESENTER_PASSWORD=PASSWORD + "!"))
    other.cookies = {SESSION_COOKIE: session}
    assert other.ask("GET", "/stage").status == 303
    for forged in (session[:-1] + "~", device, "", "a.b.c"):
        browser.cookies = {SESSION_COOKIE: forged}
        assert browser.ask("GET", "/stage").status == 303


def test_behind_https_the_cookie_is_for_https_alone(open_shop: OpenShop) -> None:
    """As a proxy in front says."""
    shop = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD, STORE_TRUSTED_PROXIES=1)
    browser = Browser(shop)
    form = f"password={quote(PASSWORD)}"
    browser.ask("POST", "/stage/sign_in", form, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in browser.attributes[SESSION_COOKIE]
    browser.ask("POST", "/stage/sign_in", form)
    assert "Secure" not in browser.attributes[SESSION_COOKIE]


@pytest.mark.parametrize(
    "wanted",
    [
        "https://example.org/",
        "//example.org/",
        "/\\example.org/",
        "\\\\example.org",
        "/%0d%0aa b",
        "",
        "stage",
        "x" * 600,
    ],
)
def test_signing_in_leads_to_no_other_site(guarded: Shop, wanted: str) -> None:
    """Whatever the address said: to the stage."""
    wanted = wanted.replace("%0d%0a", "\r\n")
    assert Browser(guarded).sign_in(wanted=wanted).location == "/stage"


def test_a_wrong_password_is_said_beside_its_field_and_waited_for(guarded: Shop) -> None:
    """Also by the next server: where every sale is a crash, a guesser could end the one that remembers."""
    browser = Browser(guarded)
    refused = browser.sign_in("a guess")
    assert refused.status == 401
    assert refused.alert == "That is not the password: wait 1 second before the next try."
    assert 'name="next" value="/stage"' in refused.text
    assert "a guess" not in refused.text
    for _ in range(3):  # each wait is longer than the one before: 2, 4, 8 seconds
        eventually(lambda: browser.sign_in("a guess").status, lambda status: status == 401)
    guarded.server.kill()
    guarded.server.restart()
    too_soon = browser.sign_in()
    assert too_soon.status == 429
    assert int(too_soon.headers["Retry-After"]) >= 1
    assert is_one_sentence(too_soon.alert)
    assert SESSION_COOKIE not in browser.cookies
    eventually(lambda: browser.sign_in().status, lambda status: status == 303)
    assert guarded.tables.rows("SELECT count(*) FROM failed_tries") == [(0,)]


def test_no_browser_is_asked_by_a_dialog(guarded: Shop) -> None:
    """A page leads to the form, a poll too; a script and a form that came too late are refused without it."""
    browser = Browser(guarded)
    page = browser.ask("GET", "/stage")
    poll = browser.ask("GET", "/stage/now", **{"HX-Request": "true", "HX-Current-URL": "http://x/stage?a=b"})
    script = browser.ask("GET", "/presenter/server", Accept="*/*")
    form = browser.ask("POST", "/stage", "do=go&moves=0", Referer="http://x/stage")
    wrong = browser.ask("GET", "/stage", Authorization="Basic eDp4")
    for answer in (page, poll, script, form, wrong):
        assert "Www-Authenticate" not in answer.headers
        assert "WWW-Authenticate" not in answer.headers
    assert (page.status, poll.status, script.status, form.status) == (303, 401, 401, 401)
    assert poll.headers["Hx-Redirect"] == "/stage/sign_in?next=/stage"
    assert not poll.text
    assert 'name="next" value="/stage"' in form.text
    assert form.alert == "You are signed out, so nothing was done: sign in, and press again."


def test_where_nobody_needs_to_sign_in_there_is_no_form(open_shop: OpenShop) -> None:
    """On loopback it leads on; where there are no tools, it is not found."""
    assert Browser(open_shop()).ask("GET", "/stage/sign_in?next=/ledger").location == "/ledger"
    off = Browser(open_shop(STORE_TRUSTED_PROXIES=1))
    for method, path in [("GET", "/stage/sign_in"), ("POST", "/stage/sign_in"), ("POST", "/stage/sign_out")]:
        answer = off.ask(method, path)
        assert answer.status == 404
        assert "password" not in answer.text.lower()


def _with_session(cookie: str) -> Request:
    return Request(create_environ(headers={"Cookie": f"{SESSION_COOKIE}={cookie}"}))


@pytest.mark.quick
def test_a_session_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is signed with it."""
    access = Access(Settings(presenter_password=PASSWORD))
    now = int(time.time())
    for age, decision in [(SESSION_SECONDS - 60, Decision.WELCOME), (SESSION_SECONDS + 60, Decision.UNKNOWN)]:
        with monkeypatch.context() as patched:
            patched.setattr(TimestampSigner, "get_timestamp", lambda _self, at=now - age: at)
            cookie = access.new_session()
        assert access.ask(_with_session(cookie)) is decision
