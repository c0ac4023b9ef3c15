"""Thousands of requests that nobody should send, each different, to the running shop.

A request is put together from parts, of which each is sound or one of those below; what comes
out is sent as bytes. The seed is fixed, so a failure comes again. How often each status was
answered is logged: `make test ARGS="-n 0 --log-cli-level=INFO tests/test_fuzz.py"`.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import random
import socket
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import pytest

from store.settings import is_sqlite
from tests.conftest import Often
from tests.support.refusal import secrets_told
from tests.support.shop import PASSWORD, Shop
from tests.support.shopper import Answer, eventually, key

_log = logging.getLogger(__name__)

_METHODS = (
    "GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get",
    "PoSt", "BREW", "", "GET\0", "Ä", "A" * 3000, "GET /shelf",
)  # fmt: skip
_NASTY = (
    "", "0", "-1", "1", "007", "1e9", "9" * 30, "2147483648", "NaN", "true", "null", "[]", "{}", "%", "%zz",
    "%00", "\0", "%0d%0aX-Injected:1", "\r\nX-Injected: 1", "..", "../../etc/passwd", "%2e%2e%2f", "//",
    "\\", "'", '"', "' OR '1'='1", "1;DROP TABLE orders", "<script>alert(1)</script>", "{{7*7}}", "${7*7}",
    "%s%n", "ключ", "١٢٣٤٥", "\ud800", "\ufeff", "\u202e", "%ff%fe", "%c0%ae", "é", "\t", " ", "a b", "+",
    "#", "?", "&", "=", ";", ",", "k" * 64, "k" * 65, "k" * 9000, "a.dispatch", "some-order", "paid",
    "failed", "PAID", "soon", "_", "-" * 8,
)  # fmt: skip
_PATHS = (
    "/", "/shelf?key={}", "/recent", "/buy", "/pay/{}", "/pay/{}/status", "/pay/{}?outcome={}",
    "/orders/{}", "/orders/{}/progress", "/?key={}", "/orders/{}/timeline", "/product", "/orders",
    "/orders?limit={}", "/orders?before={}&limit={}", "/order/{}", "/checkout/{}", "/checkout/{}/{}",
    "/payment_webhook/{}/{}", "/payment_webhook/{}", "/restock", "/crash_application", "/presenter",
    "/presenter/tools", "/ledger", "/ledger/lines", "/ledger.json?{}={}", "/proof", "/health", "/static/{}",
    "/static/../app.py", "/{}", "{}", "*", "http://evil.example/{}", "//{}//{}",
)  # fmt: skip
_VERSIONS = (
    "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "http/1.1", "", "HTTP/1.1 more",
)  # fmt: skip
_HEADERS = (
    "Host", "Accept", "Accept-Encoding", "Authorization", "Connection", "Content-Encoding",
    "Content-Length", "Content-Type", "Cookie", "Expect", "Forwarded", "HX-Boosted", "HX-Current-URL",
    "HX-History-Restore-Request", "HX-PTag", "HX-Request", "HX-Request-Type", "HX-Target",
    "If-Modified-Since", "If-None-Match", "Origin", "Range", "Sec-Fetch-Site", "Transfer-Encoding",
    "Upgrade", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-HTTP-Method-Override",
    "webhook-id", "webhook-signature", "webhook-timestamp", "", "Bad Name", "Ä", "N\0L",
)  # fmt: skip
_SENSIBLE = (
    "text/html", "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded; charset=utf-16", "gzip", "chunked", "identity", "close",
    "keep-alive", "100-continue", "Basic OmFkbWlu", "Basic %%%", "Bearer x", "localhost", "127.0.0.1:8000",
    "bytes=0-", "bytes=5-1", "same-origin", "cross-site", "https://evil.example", "full", "partial",
    "websocket", "W/\"x\"", "Thu, 01 Jan 1970 00:00:00 GMT", "5", "0",
)  # fmt: skip
_BODIES = (
    b"", b"", b"key={}", b"key={}&key={}", b"outcome={}", b"outcome=paid&outcome=failed", b"executor={}",
    b"{}", b'{"key": "{}"}', b"--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n{}\r\n--x--\r\n",
    b"\x1f\x8b\x08", b"\xff\xfe\x00", b"k" * 70_000, b"&" * 5000, b"key=%", b"=" * 2000,
    b"5\r\nhello\r\n0\r\n\r\n", b"-1\r\nx\r\n",
)  # fmt: skip


def nasty(chance: random.Random, template: str, *, quoted: float = 0.5) -> bytes:
    """The template with something nasty in each of its places, so often quoted as a client would."""
    while "{}" in template:
        part = chance.choice(_NASTY)
        part = quote(part, safe="", errors="surrogatepass") if chance.random() < quoted else part
        template = template.replace("{}", part, 1)
    return template.encode("utf-8", "surrogatepass")


def malformed(chance: random.Random) -> bytes:
    """One request: well put together with something nasty in it, or wild all over."""
    return wild(chance) if chance.random() < 0.3 else well_put(chance)


def well_put(chance: random.Random) -> bytes:
    """What a client sends that is sound itself, and was given nonsense to send."""
    method = chance.choice(["GET", "GET", "POST", "POST", "POST", "HEAD", "OPTIONS", "PUT"]).encode()
    body = nasty(chance, chance.choice(_BODIES).decode("latin-1"), quoted=0.9) if method == b"POST" else b""
    lines = [
        method + b" " + nasty(chance, chance.choice(_PATHS), quoted=1) + b" HTTP/1.1",
        b"Host: localhost",
        b"Content-Type: " + chance.choice(_SENSIBLE[:5] + _SENSIBLE[2:3] * 10).encode(),
        f"Content-Length: {len(body)}".encode(),
    ]
    for header in chance.sample(_HEADERS, chance.choice([0, 1, 2])):
        if header.startswith(("A", "C", "HX", "If", "O", "R", "S", "X", "w")) and not header.startswith(
            "Content"
        ):
            value = chance.choice(_SENSIBLE) if chance.random() < 0.5 else "{}"
            lines.append(header.encode() + b": " + nasty(chance, value, quoted=1))
    return b"\r\n".join([*lines, b"", body])


def wild(chance: random.Random) -> bytes:
    """What no client sends."""
    body = nasty(chance, chance.choice(_BODIES).decode("latin-1")) if chance.random() < 0.5 else b""
    first = (
        chance.choice(_METHODS).encode(),
        nasty(chance, chance.choice(_PATHS)),
        chance.choice(_VERSIONS).encode(),
    )
    lines = [b" ".join(first)]
    if chance.random() < 0.9:
        lines.append(b"Host: localhost")
    if chance.random() < 0.9:
        size = len(body) if chance.random() < 0.8 else chance.choice([0, len(body) + 5, 10**9, -1])
        lines.append(f"Content-Length: {size}".encode())
    for _ in range(chance.choice([0, 1, 1, 2, 3, 8, 60])):
        value = chance.choice(_SENSIBLE) if chance.random() < 0.6 else "{}"
        between = chance.choice([b": ", b":", b" : ", b""])
        lines.append(chance.choice(_HEADERS).encode() + between + nasty(chance, value))
    return chance.choice([b"\r\n", b"\r\n", b"\r\n", b"\n"]).join([*lines, b"", body])


def send(shop: Shop, request: bytes) -> Answer | None:
    """Send it and hear the first answer to it; None where the shop hangs up without one."""
    where = urlsplit(shop.server.url)
    with socket.create_connection((str(where.hostname), where.port or 0), timeout=15) as connection:
        with contextlib.suppress(OSError):  # it may have heard enough
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)  # what was said to follow does not
        method = request.split(b" ", 1)[0].decode(
            "latin-1"
        )  # an answer to HEAD has no body, whatever it says
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
            return Answer(
                response.status, dict(response.getheaders()), response.read().decode("utf-8", "replace")
            )
        except TimeoutError:
            raise  # it hangs
        except (OSError, http.client.BadStatusLine):
            return None


def answer_to(shop: Shop, request: bytes) -> Answer | None:
    """Its first answer but 503, which asks to come again: on a busy machine, some take longer than they may.

    No answer to it tells or does what it must not.
    """

    def ask() -> tuple[bytes, Answer | None]:
        answer = send(shop, request)
        if answer is not None:
            assert not secrets_told(answer), (request[:2000], answer)
            assert "X-Injected" not in answer.headers, request[:2000]
        return request[:2000], answer

    return eventually(ask, lambda seen: seen[1] is None or seen[1].status != 503)[1]


@pytest.mark.timeout(600)  # there are many
def test_whatever_is_sent_breaks_nothing(open_shop: Callable[..., Shop], often: Often) -> None:
    """An answer or a closed connection, never a 500 or a traceback; and then an ordinary purchase."""
    shop = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD, STORE_PAYMENT_WINDOW_SECONDS=2)
    count = often(2_000, 10_000) if is_sqlite(shop.database_url) else often(1_000, 5_000)
    chance = random.Random(2026)
    counts: Counter[int] = Counter()
    for _ in range(count):
        request = malformed(chance)
        answer = answer_to(shop, request)
        counts[answer.status if answer else 0] += 1
        if answer is not None:
            # 501: a transfer coding that waitress has not got.
            assert answer.status < 500 or answer.status == 501, (request[:2000], answer)
    _log.info("%d malformed requests, by status (0: hung up): %s", count, dict(sorted(counts.items())))
    assert {200, 400, 401, 403, 404, 405, 413, 431} <= set(counts), "every kind of refusal was met"
    assert count < 5_000 or 303 in counts, "among so many, one is a form that is taken"

    payment_id = shop.shopper.buy(key())
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    eventually(shop.shopper.is_open, bool)
    assert shop.shopper.get("/ledger.json").json["balanced"]
    assert not shop.tables.faults()
    assert "Traceback" not in shop.server.output, shop.server.output[-3000:]
