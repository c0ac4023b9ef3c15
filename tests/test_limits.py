"""What one visitor may take: units without paying, headers, connections, and other people's time."""

from __future__ import annotations

import contextlib
import itertools
import re
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from flask import Flask, request

from store.serving.listener import address_of, listen
from store.serving.server import serve
from store.settings import Settings
from store.web import origin
from tests.support.refusal import refuses
from tests.support.shop import Shop
from tests.support.shopper import HTML, Answer, Shopper, eventually, key

OpenShop = Callable[..., Shop]
_ENOUGH = "Too many unpaid orders"


def buy_from(shop: Shop, address: str, one_key: str | None = None) -> Answer:
    """Buy as a program does, through the proxy that says that this is the address."""
    one_key = one_key or key()
    return shop.shopper.request("POST", f"/checkout/{one_key}", headers={"X-Forwarded-For": address})


def unpaid(shop: Shop) -> int:
    """Orders that hold a unit and await their payment."""
    return list(shop.tables.orders().values()).count("pending")


# --- units --------------------------------------------------------------------------------------


def test_one_client_holds_so_many_units_and_no_more(open_shop: OpenShop) -> None:
    """429 for a program, a page for a browser, and nothing taken, until something is paid or given up."""
    shop = open_shop(STORE_UNPAID_PER_CLIENT=3)
    held = [shop.shopper.hold() for _ in range(3)]
    refused = shop.shopper.hold()
    page = shop.shopper.page(f"/pay/{refused}")
    assert (page.status, page.heading) == (200, _ENOUGH)
    assert refuses(shop.shopper.post(f"/checkout/{key()}"), 429)
    # What was refused stays refused, wherever it is looked for, and nobody can pay for it.
    assert refuses(shop.shopper.post(f"/checkout/{refused}"), 429)
    assert shop.shopper.submit("/buy", key=refused).location == f"/pay/{refused}"
    assert shop.shopper.page(f"/orders/{refused}").location == f"/pay/{refused}"
    assert shop.shopper.page(f"/pay/{refused}/status").heading == _ENOUGH
    assert refuses(shop.shopper.confirm(refused), 404)
    assert refuses(shop.shopper.post(f"/payment_webhook/{refused}/paid"), 404)
    assert shop.shopper.get("/product").json["inventory"] == 97
    assert set(shop.tables.orders()) == set(held)

    shop.shopper.confirm(held[0])
    shop.shopper.cancel(held[1])
    shop.shopper.wait_for(held[1], "Payment cancelled")
    shop.shopper.wait_for(held[0], "Dispatched")
    offered = shop.shopper.page(f"/pay/{refused}").key
    assert offered != refused
    shop.shopper.buy(offered)
    assert shop.shopper.post(f"/checkout/{key()}").status == 200
    assert shop.shopper.post(f"/checkout/{key()}").status == 429
    assert not shop.tables.faults()


def test_whoever_may_hold_no_more_is_shown_the_way_to_their_own_orders(open_shop: OpenShop) -> None:
    """By the cookie of the browser that held them: the address may be many people's."""
    shop = open_shop(STORE_UNPAID_PER_CLIENT=2)
    mine, theirs = shop.shopper.hold(), shop.shopper.hold()
    held = eventually(
        lambda: shop.shopper.page(f"/pay/{mine}"), lambda page: page.heading == "Your widget is held"
    )
    cookie, _, attributes = held.headers["Set-Cookie"].partition(";")
    assert {"HttpOnly", "SameSite=Lax", "Path=/pay"} <= {each.strip() for each in attributes.split(";")}
    refused = shop.shopper.hold()

    def links(cookie: str) -> list[str]:
        answer = shop.shopper.request("GET", f"/pay/{refused}", headers={**HTML, "Cookie": cookie})
        assert (answer.status, answer.heading) == (200, _ENOUGH)
        assert theirs not in answer.text
        return re.findall(r'<a href="/pay/([^"]+)">Pay for order No. \d+</a>', answer.text)

    assert links(cookie) == [mine]
    for other in ("other=1", "unpaid=", "unpaid=..%00/../etc.x" + "." * 3000):
        assert links(other) == []
    shop.shopper.cancel(mine)
    shop.shopper.wait_for(mine, "Payment cancelled")
    assert links(cookie) == []


def test_what_was_paid_before_it_was_reserved_is_not_refused(open_shop: OpenShop) -> None:
    """Money is never taken for an order that there is not: news of it that came first counts."""
    shop = open_shop(STORE_UNPAID_PER_CLIENT=1)
    shop.shopper.hold()
    early = key()
    shop.tables.change(
        "INSERT INTO payment_notices (payment_id, outcome, received_at_ms) VALUES (:id, 'paid', 1)", id=early
    )
    assert shop.shopper.post(f"/checkout/{early}").status == 200
    assert shop.shopper.post(f"/payment_webhook/{early}/paid").status == 200
    shop.shopper.wait_for(early, "Dispatched")
    assert not shop.tables.faults()


def test_what_expires_is_held_no_longer(open_shop: OpenShop) -> None:
    """Walking away costs nobody their place for longer than the payment window."""
    shop = open_shop(STORE_UNPAID_PER_CLIENT=1, STORE_PAYMENT_WINDOW_SECONDS=5)
    forgotten = shop.shopper.hold()
    assert shop.shopper.post(f"/checkout/{key()}").status == 429
    shop.shopper.wait_for(forgotten, "The payment window closed")
    assert shop.shopper.post(f"/checkout/{key()}").status == 200
    assert not shop.tables.faults()


def test_many_clicks_at_once_take_no_more(open_shop: OpenShop) -> None:
    """The limit is counted where the unit is taken, so there is no moment between."""
    shop = open_shop(STORE_UNPAID_PER_CLIENT=5)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: shop.shopper.post(f"/checkout/{key()}").status, range(32)))
    assert sorted(statuses) == [200] * 5 + [429] * 27
    assert unpaid(shop) == 5
    assert shop.shopper.get("/product").json["inventory"] == 95
    assert not shop.tables.faults()


@pytest.mark.first_of_all
def test_a_limit_outlives_a_crash(open_shop: OpenShop) -> None:
    """It is counted in the database."""
    shop = open_shop(STORE_UNPAID_PER_CLIENT=2)
    for _ in range(2):
        shop.shopper.buy()
    shop.server.kill()
    shop.server.restart()
    assert shop.shopper.post(f"/checkout/{key()}").status == 429


def test_each_address_has_a_limit_of_its_own(open_shop: OpenShop) -> None:
    """Behind a proxy the visitor's; of IPv6 the network, because a visitor has a whole one."""
    shop = open_shop(
        STORE_UNPAID_PER_CLIENT=1, STORE_TRUSTED_PROXIES=1, STORE_TRUSTED_HOSTS="widgets.example"
    )
    for address, status in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("2001:db8:1:2::1", 200),
        ("2001:db8:1:2::ffff", 429),
        ("2001:db8:1:3::1", 200),
    ]:
        assert buy_from(shop, address).status == status, address
    # What is kept is a digest.
    assert {len(client) for (client,) in shop.tables.rows("SELECT client FROM holds")} == {16}


def test_forwarded_headers_of_strangers_are_not_believed(open_shop: OpenShop) -> None:
    """Whoever reaches the shop directly is one client, whatever they say; a proxy that was named is many."""
    shop = open_shop(
        STORE_UNPAID_PER_CLIENT=1,
        STORE_TRUSTED_PROXIES=1,
        STORE_TRUSTED_PROXY_ADDRESSES="127.0.0.2, 192.0.2.0/24",
        STORE_TRUSTED_HOSTS="widgets.example",
    )
    for source, second in [("127.0.0.1", 429), ("127.0.0.2", 200)]:
        visitor = Shopper(shop.server.url, source=source)
        statuses = [
            visitor.request("POST", f"/checkout/{key()}", headers={"X-Forwarded-For": address}).status
            for address in ("198.51.100.1", "198.51.100.2")
        ]
        assert statuses == [200, second], source
        page = visitor.get("/", **{"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"})
        assert (page.status == 400) is (source == "127.0.0.2")
        page = visitor.get("/", **{"X-Forwarded-Host": "widgets.example", "X-Forwarded-Proto": "https"})
        assert ("Strict-Transport-Security" in page.headers) is (source == "127.0.0.2")
    warnings = [line for line in shop.server.log if "STORE_TRUSTED_PROXY_ADDRESSES" in line]
    assert len(warnings) == 1, "the operator is told, and the log is not flooded"
    assert "127.0.0.1" in warnings[0]


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "client"),
    [
        (1, "10.1.2.3", "192.0.2.1", "192.0.2.1"),
        (1, "::ffff:10.1.2.3", "192.0.2.1", "192.0.2.1"),
        (1, "::1", "192.0.2.1", "192.0.2.1"),
        (1, "11.0.0.1", "192.0.2.1", "11.0.0.1"),
        (1, "127.0.0.1", "192.0.2.1", "127.0.0.1"),
        (1, "10.1.2.3", "", "10.1.2.3"),
        (1, "10.1.2.3", "127.0.0.1, 192.0.2.1", "192.0.2.1"),
        (1, "10.1.2.3", "192.0.2.1:5678", "192.0.2.1"),
        (1, "10.1.2.3", "2001:db8::1", "2001:0db8:0000:0000"),
        (1, "10.1.2.3", "[2001:db8::1]:5678", "2001:0db8:0000:0000"),
        (2, "10.1.2.3", "127.0.0.1, 192.0.2.1, 192.0.2.2", "192.0.2.1"),
        (2, "10.1.2.3", "192.0.2.2", "10.1.2.3"),
        (0, "10.1.2.3", "192.0.2.1", "10.1.2.3"),
    ],
)
def test_the_client_is_who_the_outermost_proxy_heard_from(
    proxies: int, peer: str, forwarded: str, client: str
) -> None:
    """As many proxies as there are have each added an address; what is before those is hearsay."""
    app = Flask("behind proxies")
    origin.prepare(app, Settings(trusted_proxies=proxies, trusted_proxy_addresses="10.0.0.0/8,::1"))
    app.add_url_rule("/", view_func=lambda: origin.client_of(request))
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    seen = app.test_client().get("/", headers=headers, environ_overrides={"REMOTE_ADDR": peer})
    assert (seen.status_code, seen.text) == (200, client)


def test_without_a_limit_one_client_may_hold_them_all(open_shop: OpenShop) -> None:
    """0, for an audience that shares one address."""
    shop = open_shop(STORE_UNPAID_PER_CLIENT=0, units=60)
    assert [shop.shopper.post(f"/checkout/{key()}").status for _ in range(61)] == [200] * 60 + [409]


def test_fifty_is_the_usual_limit(open_shop: OpenShop) -> None:
    """As the settings say: half a shelf."""
    shop = open_shop(STORE_UNPAID_PER_CLIENT="")
    statuses = [shop.shopper.post(f"/checkout/{key()}").status for _ in range(51)]
    assert statuses == [200] * 50 + [429]


# --- connections --------------------------------------------------------------------------------


def connect(url: str) -> socket.socket:
    """A connection to whoever listens there."""
    where = urlsplit(url)
    return socket.create_connection((str(where.hostname), where.port or 0), timeout=20)


@contextlib.contextmanager
def idlers(url: str, count: int, *sources: str) -> Iterator[list[socket.socket]]:
    """So many connections from each of these addresses, on which nothing is said."""
    where = urlsplit(url)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each is a file, and 1024 is usual
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                socket.create_connection(
                    (str(where.hostname), where.port or 0), timeout=20, source_address=(source, 0)
                )
            )
            for source in sources
            for _ in range(count)
        ]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def still_open(connections: list[socket.socket]) -> int:
    """How many of these the other side has not closed."""
    poller = select.poll()
    for connection in connections:
        poller.register(connection, select.POLLIN)
    return len(connections) - len(poller.poll(0))


def test_one_address_cannot_have_every_connection(open_shop: OpenShop) -> None:
    """What it opens beyond its limit is closed at once; others are answered, and so is it where it is in."""
    shop = open_shop()
    with idlers(shop.server.url, 2300, "127.0.0.2") as connections:
        for _ in range(20):
            assert shop.shopper.page("/").status == 200
        assert eventually(lambda: still_open(connections), lambda count: count <= 500) == 500
        connections[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connections[0].makefile("rb").readline().split()[1] == b"200"
    visitor = Shopper(shop.server.url, source="127.0.0.2")
    eventually(visitor.is_open, bool)
    assert shop.server.output.count("STORE_CONNECTIONS_PER_CLIENT") == 1


@pytest.mark.parametrize("settings", [{}, {"STORE_CONNECTIONS_PER_CLIENT": 0}], ids=["limited", "unlimited"])
def test_when_every_connection_is_taken_the_idle_ones_make_room(
    open_shop: OpenShop, settings: dict[str, object]
) -> None:
    """Those of whoever has most of them first, so that a shopper's own stays open."""
    shop = open_shop(**settings)
    with contextlib.ExitStack() as stack:
        shopper = stack.enter_context(connect(shop.server.url))
        for sources in (["127.0.0.2", "127.0.0.3", "127.0.0.4"], ["127.0.0.5", "127.0.0.6", "127.0.0.7"]):
            stack.enter_context(idlers(shop.server.url, 400, *sources))
            for _ in range(5):
                assert shop.shopper.page("/").status == 200
        assert still_open([shopper]) == 1
        shopper.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert shopper.makefile("rb").readline().split()[1] == b"200"


def test_a_proxy_that_was_named_has_no_limit_of_its_own(open_shop: OpenShop) -> None:
    """All visitors come through it; whoever else connects has one."""
    shop = open_shop(STORE_CONNECTIONS_PER_CLIENT=5, STORE_TRUSTED_PROXIES=1)
    with (
        idlers(shop.server.url, 20, "127.0.0.1") as proxied,
        idlers(shop.server.url, 20, "127.0.0.2") as strangers,
    ):
        assert eventually(lambda: still_open(strangers), lambda count: count <= 5) == 5
        assert still_open(proxied) == 20
    eventually(Shopper(shop.server.url, source="127.0.0.2").is_open, bool)


def test_headers_without_end_are_refused(shop: Shop) -> None:
    """431, and the connection is closed."""
    with connect(shop.server.url) as connection:
        with contextlib.suppress(ConnectionError):  # it may have heard enough
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            for _ in range(40):
                connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"431"
    assert shop.shopper.is_open()


_DRIBBLES = {
    "headers": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-More: ",
    "a body": b"POST /buy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\nkey=",
    "chunks": b"POST /buy HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFF\r\n",
}


@contextlib.contextmanager
def dribblers(url: str, count: int) -> Iterator[Callable[[], int]]:
    """Connections that each send a byte now and then and never finish; gives how many bytes came through."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(url)) for _ in range(count)]
        for connection, began in zip(connections, itertools.cycle(_DRIBBLES.values()), strict=False):
            connection.sendall(began)
        is_over = threading.Event()
        sent = itertools.count()
        so_far = [0]

        def dribble() -> None:
            while not is_over.wait(0.02):
                for connection in connections:
                    connection.sendall(b"x")
                    so_far[0] = next(sent)

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            yield lambda: so_far[0]
        finally:
            is_over.set()
            thread.join()


def seconds_to_buy(shop: Shop) -> float:
    """How long it takes until a unit is held."""
    asked_at = time.monotonic()
    shop.shopper.hold(key())
    return time.monotonic() - asked_at


def test_slow_clients_starve_nobody(shop: Shop) -> None:
    """A hundred connections dribble bytes, and each Buy Now is answered within a second."""
    with dribblers(shop.server.url, 100) as bytes_sent:
        eventually(bytes_sent, lambda count: count > 200)
        for _ in range(5):
            # Whoever is starved stays so; a machine that was busy elsewhere for a moment does not.
            eventually(lambda: seconds_to_buy(shop), lambda seconds: seconds < 1.0)
    assert not shop.tables.faults()


@pytest.mark.parametrize("began", _DRIBBLES.values(), ids=_DRIBBLES)
def test_a_request_that_never_ends_is_hung_up_on(began: bytes) -> None:
    """However often another byte of it comes; a whole request on the same server is answered meanwhile."""

    def app(_: object, start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"here"]

    listener = listen("127.0.0.1", 0)
    url = address_of("127.0.0.1", listener)
    threading.Thread(target=serve, args=[app, Settings(), [listener], 1], daemon=True).start()
    with connect(url) as slow:
        slow.sendall(began)

        def is_hung_up() -> bool:
            try:
                slow.sendall(b"1")
            except OSError:
                return True
            return False

        eventually(is_hung_up, bool)
        with connect(url) as other:
            other.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert other.makefile("rb").read().endswith(b"here")
