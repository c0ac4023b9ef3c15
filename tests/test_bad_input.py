"""What nobody should send, and somebody will: always a 4xx in one sentence, and a shop none the worse."""

from __future__ import annotations

import http.client
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from store.durable.runtime import MENDINGS, client_of
from store.settings import Settings
from store.vocabulary import RESTOCK
from tests.support.refusal import PROGRAM, refuses, refuses_both, secrets_told
from tests.support.shop import Shop
from tests.support.shopper import HTML, Answer, Shopper, eventually, key

_FORM = {**HTML, "Content-Type": "application/x-www-form-urlencoded"}
_LIMIT = 64 * 1024
_BAD_KEYS = {
    "nothing": "",
    "too long": "k" * 65,
    "far too long": "k" * 5000,
    "space": "two words",
    "dot": "some-order.dispatch",
    "slash": "some/order",
    "dots": "../../etc/passwd",
    "quote": "order' OR '1'='1",
    "markup": "<script>alert(1)</script>",
    "unicode": "приветствие",
    "other digits": "١٢٣٤٥٦٧٨",
    "newline": "some-order\n",
    "NUL": "some\0order",
}
_OF_AN_ORDER = ("/pay/{}", "/pay/{}/status", "/orders/{}", "/orders/{}/progress", "/orders/{}/timeline")
_GETS = ("/", "/shelf", "/recent", "/product", "/orders", "/order/1", "/orders/{}", "/health")
_POSTS = ("/buy", "/pay/{}", "/checkout/{}", "/payment_webhook/{}/paid", "/restock")


@pytest.fixture(scope="module", autouse=True)
def _none_the_worse(shop: Shop) -> Iterator[None]:
    """After all of this the books balance, the shop is well, and nothing in it broke."""
    yield
    assert shop.shopper.get("/health").status == 200
    assert not shop.tables.faults()
    assert "Traceback" not in shop.server.output


def send(shop: Shop, request: bytes) -> Answer:
    """Send bytes as they are, as no decent client would."""
    host, port = urlsplit(shop.server.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        with suppress(ConnectionError):  # it may have heard enough
            connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read().decode())


# --- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", _BAD_KEYS.values(), ids=_BAD_KEYS)
def test_a_bad_key_is_refused(shop: Shop, shopper: Shopper, bad: str) -> None:
    """400 wherever a key is given: over JSON, in the form, in the poll of the shelf."""
    before = set(shop.tables.orders())
    # No route holds a newline, so that one is refused before the key is looked at.
    assert refuses(shopper.post(f"/checkout/{quote(bad, safe='')}"), 404 if "\n" in bad else 400)
    assert refuses(shopper.submit("/buy", key=bad), 400)
    assert refuses_both(shopper, "GET", f"/shelf?key={quote(bad)}", 400)
    assert set(shop.tables.orders()) == before


@pytest.mark.parametrize("short", ["a", "1234567"])
def test_a_key_that_is_easy_to_guess_is_refused_over_json(shop: Shop, shopper: Shopper, short: str) -> None:
    """Fewer than eight characters: somebody else may have had the same idea."""
    answer = shopper.post(f"/checkout/{short}")
    assert refuses(answer, 400)
    assert "guess" in answer.json["error"]
    assert short not in shop.tables.orders()


def test_a_checkout_without_a_key_is_refused(shopper: Shopper) -> None:
    """With or without the last slash, and not sent elsewhere."""
    assert refuses(shopper.post("/checkout/"), 400)
    assert refuses(shopper.post("/checkout"), 400)


@pytest.mark.parametrize("length", [8, 64])
def test_the_shortest_and_the_longest_key_are_taken(shop: Shop, shopper: Shopper, length: int) -> None:
    """The limits belong to what is allowed."""
    one_key = secrets.token_hex(length // 2)
    assert shopper.post(f"/checkout/{one_key}").text == one_key
    assert shop.tables.orders()[one_key] == "pending"


def test_a_key_that_belongs_to_another_workflow_is_refused(shop: Shop, shopper: Shopper) -> None:
    """Restocks of earlier shops have such ids. Nothing can be bought with one, and it is nobody's order."""
    foreign = key()
    client = client_of(Settings.from_env({"DBOS_DATABASE_URL": shop.database_url}))
    restock: Any = {"workflow_name": RESTOCK, "queue_name": MENDINGS, "workflow_id": foreign}
    client.enqueue(restock, foreign)
    client.destroy()
    made = "SELECT 1 FROM stock_movements WHERE kind = 'restock' AND cause = :cause"
    eventually(lambda: shop.tables.rows(made, cause=foreign), bool)
    before = set(shop.tables.orders())
    assert refuses(shopper.post(f"/checkout/{foreign}"), 409)
    assert refuses(shopper.submit("/buy", key=foreign), 409)
    assert set(shop.tables.orders()) == before
    for path in _OF_AN_ORDER:
        assert refuses_both(shopper, "GET", path.format(foreign), 404)
    assert refuses(shopper.submit(f"/pay/{foreign}", outcome="paid"), 404)
    assert refuses(shopper.post(f"/payment_webhook/{foreign}/paid"), 404)


def test_the_payment_of_an_order_whose_workflow_is_gone_is_not_lost(open_shop: Callable[..., Shop]) -> None:
    """Somebody threw the checkpoints away. What is heard of its payment is kept, and acted on later."""
    shop = open_shop()
    payment_id = shop.shopper.hold()
    shop.checkpoints.change("DELETE FROM workflow_status")
    assert shop.shopper.order(payment_id).status == 200
    assert refuses(shop.shopper.post(f"/payment_webhook/{payment_id}/paid"), 504)
    assert shop.tables.rows("SELECT payment_id, outcome FROM payment_notices") == [(payment_id, "paid")]
    assert shop.shopper.order(payment_id).heading == "Settling your payment…"


# --- ids, numbers and outcomes ------------------------------------------------------------------


@pytest.mark.parametrize("unknown", ["nobody-has-this-one", *_BAD_KEYS.values()], ids=["unknown", *_BAD_KEYS])
def test_an_unknown_payment_id_is_not_found(shopper: Shopper, unknown: str) -> None:
    """404 on every page and fragment, as a page or as JSON; and it cannot be settled either."""
    address = quote(unknown, safe="")
    for path in _OF_AN_ORDER:
        if unknown:  # with nothing in its place, what is left is another address
            assert refuses_both(shopper, "GET", path.format(address), 404)
    for outcome in ("paid", "failed"):
        assert refuses(shopper.submit(f"/pay/{address}", outcome=outcome), 404)
        assert refuses(shopper.post(f"/payment_webhook/{address}/{outcome}"), 404)


@pytest.mark.parametrize("number", ["-1", "1.5", "1e3", "one", "%20", "1%00", "0x1", str(10**30), "9" * 5000])
def test_an_unknown_order_number_is_not_found(shopper: Shopper, number: str) -> None:
    """404, also where it is no number."""
    assert refuses(shopper.get(f"/order/{number}"), 404)


@pytest.mark.parametrize(
    "status", ["PAID", "Paid", "paid ", "refunded", "cancelled", "1", "true", "p\u0430id", "paid\0"]
)
def test_a_status_other_than_paid_or_failed_is_refused(shop: Shop, shopper: Shopper, status: str) -> None:
    """400 by webhook and by form, and the order is as it was."""
    payment_id = shopper.hold()
    assert refuses(shopper.post(f"/payment_webhook/{payment_id}/{quote(status)}"), 400)
    assert refuses(shopper.submit(f"/pay/{payment_id}", outcome=status), 400)
    assert shop.tables.orders()[payment_id] == "pending"


@pytest.mark.parametrize(
    "form", [b"", b"outcome", b"outcome=", b"outcome=%ff", b"result=paid", b'{"outcome":"paid"}']
)
def test_a_form_without_an_outcome_is_refused(shop: Shop, shopper: Shopper, form: bytes) -> None:
    """400, and the order is as it was."""
    payment_id = shopper.hold()
    assert refuses(shopper.request("POST", f"/pay/{payment_id}", form, _FORM), 400)
    assert shop.tables.orders()[payment_id] == "pending"


# --- bodies and methods -------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*_POSTS, "/nowhere"])
def test_a_body_over_64_kb_is_refused(shop: Shop, shopper: Shopper, path: str) -> None:
    """413 on every route, also on those that read no body, and nothing happens."""
    before = set(shop.tables.orders())
    body = b"key=a-long-story&".ljust(_LIMIT + 1, b"x")
    page = shopper.request("POST", path.format(key()), body, _FORM)
    program = shopper.request("POST", path.format(key()), body, PROGRAM)
    assert refuses(page, 413)
    assert refuses(program, 413)
    assert program.headers["Content-Type"] == "application/json"
    assert set(shop.tables.orders()) == before


@pytest.mark.parametrize("path", _POSTS)
def test_a_body_without_a_length_is_measured_all_the_same(shop: Shop, path: str) -> None:
    """413 for chunks that add up to more."""
    before = set(shop.tables.orders())
    head = f"POST {path.format(key())} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    assert refuses(send(shop, head.encode() + chunk * 5 + b"0\r\n\r\n"), 413)
    assert set(shop.tables.orders()) == before


def test_a_body_that_is_only_announced_is_refused_at_once(shop: Shop) -> None:
    """Nobody waits for a terabyte."""
    head = b"POST /buy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1099511627776\r\n\r\n"
    assert send(shop, head).status == 413


def test_a_body_of_64_kb_is_read(shopper: Shopper) -> None:
    """The limit belongs to what is allowed."""
    one_key = key()
    body = f"key={one_key}&".encode().ljust(_LIMIT, b"x")
    assert shopper.request("POST", "/buy", body, _FORM).status == 303


@pytest.mark.parametrize("path", [*_GETS, *_POSTS])
def test_a_wrong_method_is_refused(shop: Shop, shopper: Shopper, path: str) -> None:
    """405 with the right ones in `Allow`; nothing that belongs to POST is done by GET."""
    before = set(shop.tables.orders())
    right = {"POST", "OPTIONS"} if path in _POSTS else {"GET", "HEAD", "OPTIONS"}
    if path == "/pay/{}":
        right |= {"GET", "HEAD"}
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "BREW"} - right:
        assert refuses_both(shopper, method, path.format(key()), 405)
        assert set(shopper.request(method, path.format(key())).headers["Allow"].split(", ")) == right
    assert set(shop.tables.orders()) == before


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"&&&==="),
        ("application/x-www-form-urlencoded", b"key=%ff%fe%00"),
        ("application/x-www-form-urlencoded", b"key=\xff\xfe\xfd\xfc"),
        ("application/x-www-form-urlencoded", b"%"),
        ("application/x-www-form-urlencoded; charset=no-such-thing", b"key=two words"),
        ("application/json", b'{"key": "a-good-enough-key"}'),
        ("text/plain", b"key=a-good-enough-key"),
        ("no kind at all", b"key=a-good-enough-key"),
        ("multipart/form-data", b"key=a-good-enough-key"),
        ("multipart/form-data; boundary=b", b"not a part in sight"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\nhalf'),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nkey\r\n--b--"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n\r\n--b--\r\n"),
    ],
)
def test_a_broken_form_is_refused(shop: Shop, shopper: Shopper, kind: str, body: bytes) -> None:
    """400, with a page that leads back to the store."""
    before = set(shop.tables.orders())
    answer = shopper.request("POST", "/buy", body, {**HTML, "Content-Type": kind})
    assert refuses(answer, 400)
    assert 'href="/"' in answer.text
    assert set(shop.tables.orders()) == before


# --- addresses and headers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    ["limit=%ff", "limit=%00", "limit=1%0a", "limit=1&before=-1", "before=%D9%A1", "before=1.0",
     "before=9" + "9" * 5000, "before=000000000001" + "9" * 30, "limit=000000000001" + "9" * 5000],
    ids=lambda query: query[:24],
)  # fmt: skip
def test_a_bad_query_is_refused(shopper: Shopper, query: str) -> None:
    """400 as JSON, however the number is dressed up."""
    assert refuses(shopper.get(f"/orders?{query}"), 400)


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/%ff%fe", "/%00", "//elsewhere.example/", "/..%2f..%2fetc%2fpasswd", "/var/store.sqlite3",
     "/static/", "/static/%00", "/static/..%2fapp.py", "/static/../app.py", "/static/%2e%2e/schema.sql",
     "/static/" + "long/" * 999, "/pay/some-good-key%0a", "/pay/", "/" + "x" * 30_000],
    ids=lambda path: path[:30],
)  # fmt: skip
def test_an_address_that_leads_nowhere_is_not_found(shopper: Shopper, path: str) -> None:
    """404, as a page or as JSON; no file is served but those in static/."""
    assert refuses_both(shopper, "GET", path, 404)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"x" * 300_000 + b"\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon here\r\n\r\n",
        b"POST /buy HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /buy HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
        b"POST /buy HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=lambda nonsense: repr(nonsense)[2:40],
)
def test_what_is_hardly_http_is_refused(shop: Shop, nonsense: bytes) -> None:
    """4xx from the server itself, before any of the shop sees it."""
    answer = send(shop, nonsense)
    assert 400 <= answer.status < 500
    assert not secrets_told(answer)


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "\xff/\xfe;q=many"}, {"HX-PTag": "x" * 10_000}, {"Cookie": "=;=\xff;;session"},
        {"Range": "bytes=9-1,-,x"}, {"If-Modified-Since": "yesterday"}, {"X-Forwarded-For": "' OR 1=1"},
        {"Authorization": "Basic !!!"}, {"Accept-Encoding": "gzip;q=\xff"},
        {"Content-Type": "multipart/form-data"},
    ],
    ids=lambda headers: next(iter(headers)),
)  # fmt: skip
def test_odd_headers_change_nothing(shopper: Shopper, headers: dict[str, str]) -> None:
    """The shop answers as ever."""
    for path in ("/", "/recent", "/product", "/static/css/base.css"):
        answer = shopper.get(path, **headers)
        assert answer.status == 200 or ("Range" in headers and answer.status == 416)
