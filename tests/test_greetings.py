"""Two systems, one greeting: signed over there and written down here, once each, whatever crashes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from store.vocabulary import GREETING_TICKS, greeting_id
from tests.conftest import NewUrl, Often
from tests.support.guestbook import Guestbook
from tests.support.refusal import refuses, refuses_both
from tests.support.shop import Shop, SupervisedShop
from tests.support.shopper import Answer, Shopper, eventually, key

NAMES = (
    "Ada",
    "Ада Лавлейс",
    "李小龍",
    "O'Brien & Sons",
    "عمر الخيّام",
    "👩‍🚀",
    "x" * 80,
    " Ada ",
    "../etc",
    "a/b?c#d",
    "50 % off",
)
_ITS_OPENING = re.compile(r"An online guestbook, .* is at (http://\S+) \(process (\d+)\)\.")
_NO_NAMES = {
    "empty": "",
    "blank": " \u3000 ",
    "invisible": "\u200b\u2060\u3164",
    "too long": "x" * 81,
    "a line": "Ada\nLovelace",
    "NUL": "Ada\0",
    "escape": "\x1b[31mAda",
    "turned round": "Ada\u202e",
    "markup": "<b>Ada</b>",
    "half a tag": "Ada>",
}


@pytest.fixture(scope="module")
def guestbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """Somebody else's system."""
    with Guestbook(tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3") as guestbook:
        yield guestbook


@pytest.fixture(scope="module")
def quick(new_url: NewUrl, guestbook: Guestbook) -> Iterator[Shop]:
    """A shop beside it, where a tick is 20 ms."""
    shop = Shop(new_url(), STORE_GUESTBOOK_URL=guestbook.url)
    shop.server.start()
    yield shop
    shop.server.close()


def greetings(shop: Shop | SupervisedShop) -> list[tuple[int, str]]:
    """Our own book: the number of each signature, and who it is."""
    return [
        tuple(row) for row in shop.tables.rows("SELECT signature, name FROM greetings ORDER BY signature")
    ]


def signatures(guestbook: Guestbook) -> list[tuple[int, str]]:
    """The online one."""
    listed = guestbook.get("/signatures").json["signatures"]
    return [(each["signature"], each["name"]) for each in listed][::-1]


def greet(client: Shopper, name: str, one_key: str | None = None) -> Answer:
    """Ask for a greeting as a program does."""
    headers = {"Idempotency-Key": one_key} if one_key else {}
    return client.get(f"/greeting/{quote(name, safe='')}", **headers)


def greet_in_the_end(client: Shopper, name: str, one_key: str) -> Answer:
    """Ask again until there is more to say than that it is on its way."""
    return eventually(lambda: greet(client, name, one_key), lambda answer: answer.status != 504)


def sign(client: Shopper, name: str, one_key: str | None = None) -> str:
    """Send the form of the page; the key of the greeting."""
    one_key = one_key or client.page("/guestbook").key
    answer = client.submit("/guestbook", key=one_key, name=name)
    assert (answer.status, answer.location) == (303, f"/greetings/{one_key}"), answer
    return one_key


def polls(page: Answer) -> bool:
    """Whether what it shows of the greeting asks again."""
    return "hx-trigger" in page.text.partition('id="presenter"')[0].partition('id="greeting"')[2]


def wait_for(client: Shopper, one_key: str, heading: str) -> Answer:
    """Reload the greeting's page until it says so."""
    return eventually(
        lambda: client.page(f"/greetings/{one_key}"),
        lambda page: page.status == 200 and page.heading.startswith(heading),
    )


# --- one greeting -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_greeting_is_in_both_books_once(quick: Shop, guestbook: Guestbook, name: str) -> None:
    """As tutorials ask for it; the name is kept as it is, and nothing caches the answer."""
    before = signatures(guestbook)
    answer = greet(quick.shopper, name)
    assert (answer.status, answer.text) == (200, f"Thank you for being awesome, {name}!")
    assert answer.headers["Cache-Control"] == "no-store"
    [mine] = set(signatures(guestbook)) - set(before)
    assert mine[1] == name
    assert greetings(quick).count(mine) == 1


def test_the_same_key_is_the_same_greeting(quick: Shop, guestbook: Guestbook) -> None:
    """By many at once, over JSON and by the form; with another name it is refused."""
    one_key, before = key(), len(signatures(guestbook))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: greet_in_the_end(quick.shopper, "Grace", one_key), range(8)))
    assert {(answer.status, answer.text) for answer in answers} == {
        (200, "Thank you for being awesome, Grace!")
    }
    assert sign(quick.shopper, "Grace", one_key) == one_key
    assert refuses(greet(quick.shopper, "Somebody else", one_key), 409)
    assert refuses(quick.shopper.submit("/guestbook", key=one_key, name="Somebody else"), 409)
    assert len(signatures(guestbook)) == before + 1


def test_the_page_shows_how_far_it_has_come(open_shop: Callable[..., Shop], guestbook: Guestbook) -> None:
    """Signed over there, waiting, and in both books; with its checkpoints, and its line marked in each."""
    shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.3)
    one_key = sign(shop.shopper, "Ada & Grace")
    waiting = wait_for(shop.shopper, one_key, "Signed in the online guestbook, not yet in ours")
    assert not greetings(shop)
    assert "Ada &amp; Grace" in waiting.text
    # The last of its steps is listed a moment after it shows; with that, the page looks no longer.
    done = eventually(
        lambda: shop.shopper.page(f"/greetings/{one_key}"),
        lambda page: page.heading.startswith("Thank you for being awesome, ") and not polls(page),
    )
    for step in ("sign the online guestbook", "wait 1", f"wait {GREETING_TICKS}", "record the greeting"):
        assert f"<code>{step}</code>" in done.text
    [mine] = re.findall(r'<tr class="mine">.*?</tr>', done.text, re.DOTALL)
    assert mine.count("<bdi>Ada &amp; Grace</bdi>") == 2
    assert shop.shopper.page(f"/greetings/{one_key}/progress").heading.startswith("Thank you")
    assert [name for _, name in greetings(shop)] == ["Ada & Grace"]
    assert shop.server.output.count("a greeting has signed over there, and waits: ") == GREETING_TICKS


def test_a_page_looks_on_until_the_last_step_is_remembered(quick: Shop) -> None:
    """The row is written a moment before the checkpoint; once the checkpoints are lost, nothing will come."""
    one_key = sign(quick.shopper, "Ada")
    wait_for(quick.shopper, one_key, "Thank you")

    def looks_again() -> bool:
        page = quick.shopper.page(f"/greetings/{one_key}").text
        return "every 1s" in page[page.index('id="greeting"') :].partition(">")[0]

    eventually(looks_again, lambda looks: not looks)
    forget = "DELETE FROM operation_outputs WHERE workflow_uuid = :id"
    last = " AND function_name IN ('record the greeting', 'DBOS.setEvent')"
    quick.checkpoints.change(forget + last, id=greeting_id(one_key))
    assert looks_again()
    quick.checkpoints.change(forget, id=greeting_id(one_key))
    assert not looks_again()


def test_another_sites_page_cannot_have_its_readers_greet(quick: Shop, guestbook: Guestbook) -> None:
    """The one GET that acts is refused where a change would be, and HEAD does nothing."""
    before = len(signatures(guestbook))
    for site in ("cross-site", "same-site"):
        assert refuses(quick.shopper.get("/greeting/Ada", **{"Sec-Fetch-Site": site}), 403)
    assert quick.shopper.request("HEAD", "/greeting/Ada").status == 405
    assert len(signatures(guestbook)) == before


@pytest.mark.sampled(1)
def test_many_who_wait_for_a_greeting_leave_room_to_shop(
    open_shop: Callable[..., Shop], tmp_path: Path
) -> None:
    """Fifty ask at once, of whom few may wait; the others are told to come back, and with which key."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.5)
        with ThreadPoolExecutor(50) as pool:
            asked = [pool.submit(greet, shop.shopper, f"Visitor {number}") for number in range(50)]
            payment_id = shop.shopper.hold(key())
            assert shop.shopper.page(f"/pay/{payment_id}").heading == "Your widget is held"
            statuses = [each.result().status for each in asked]
            assert set(statuses) == {200, 504}
            late = next(each.result() for each in asked if each.result().status == 504)
        one_key = re.search(r"Idempotency-Key (\S+)\.$", late.json["error"])
        assert one_key
        wait_for(shop.shopper, one_key[1], "Thank you")
        eventually(lambda: len(greetings(shop)), lambda count: count == 50)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _NO_NAMES.values(), ids=_NO_NAMES)
def test_what_is_no_name_is_refused(quick: Shop, guestbook: Guestbook, name: str) -> None:
    """One sentence, in the form and over JSON, and nothing written anywhere."""
    before = signatures(guestbook), greetings(quick)
    assert refuses(quick.shopper.submit("/guestbook", key=key(), name=name), 400)
    # No route holds a newline, so that one is refused before the name is looked at.
    assert refuses(greet(quick.shopper, name), 404 if "\n" in name else 400)
    assert (signatures(guestbook), greetings(quick)) == before


@pytest.mark.parametrize("bad", ["", "two words", "k" * 65, "a.greeting"])
def test_a_bad_key_is_refused(quick: Shop, guestbook: Guestbook, bad: str) -> None:
    """400, and nothing written."""
    before = len(signatures(guestbook))
    assert refuses(quick.shopper.submit("/guestbook", key=bad, name="Ada"), 400)
    assert refuses(quick.shopper.get("/greeting/Ada", **{"Idempotency-Key": bad}), 400)
    assert len(signatures(guestbook)) == before


def test_a_greeting_that_there_is_not_is_not_found(quick: Shop) -> None:
    """Nor is a checkout one."""
    order = quick.shopper.buy(key())
    for path in (f"/greetings/{key()}", f"/greetings/{order}", f"/greetings/{key()}/progress"):
        assert refuses_both(quick.shopper, "GET", path, 404)


# --- a guestbook in trouble ---------------------------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "trouble",
    [
        {"kind": "fail", "status": 500, "times": 2},
        {"kind": "fail", "status": 404, "times": 2},
        {"kind": "fail", "status": 429},
        {"kind": "rubbish", "times": 2},
        {"kind": "slow", "seconds": 5.5},
    ],
    ids=str,
)
def test_what_passes_is_waited_out(quick: Shop, guestbook: Guestbook, trouble: dict[str, object]) -> None:
    """The page says what is wrong, and in the end there is one signature and one greeting."""
    before = len(signatures(guestbook)), len(greetings(quick))
    guestbook.make_trouble(**trouble)
    one_key = sign(quick.shopper, "Patience")
    wait_for(quick.shopper, one_key, "Thank you")
    assert (len(signatures(guestbook)), len(greetings(quick))) == (before[0] + 1, before[1] + 1)


@pytest.mark.sampled(1)
def test_a_guestbook_that_is_down_is_waited_for(open_shop: Callable[..., Shop], tmp_path: Path) -> None:
    """Both pages say so, /greeting says 504 and may be asked again; then it is up, and all is well."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        guestbook.kill()
        shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url)
        one_key = sign(shop.shopper, "Ada")
        page = wait_for(shop.shopper, one_key, "The guestbook keeps you waiting")
        assert "The guestbook cannot be reached." in page.text
        eventually(
            lambda: shop.shopper.page("/guestbook").text,
            lambda text: "The guestbook cannot be reached." in text,
        )
        assert refuses(greet(shop.shopper, "Ada", one_key), 504)
        assert not greetings(shop)
        guestbook.start()
        wait_for(shop.shopper, one_key, "Thank you")
        assert signatures(guestbook) == greetings(shop) == [(1, "Ada")]


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_what_cannot_succeed_is_given_up(quick: Shop, guestbook: Guestbook, status: int) -> None:
    """With the reason, and nothing recorded here."""
    before = len(signatures(guestbook)), len(greetings(quick))
    guestbook.make_trouble(kind="fail", status=status)
    one_key = sign(quick.shopper, "Nobody")
    page = wait_for(quick.shopper, one_key, "The guestbook refused your name")
    assert f"The guestbook refuses ({status}): The guestbook was told to fail." in page.text
    assert refuses(greet(quick.shopper, "Nobody", one_key), 502)
    assert (len(signatures(guestbook)), len(greetings(quick))) == before


class _Odd(BaseHTTPRequestHandler):
    """Answers as other people's systems do on a bad day."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answers: list[tuple[int, bytes]] = self.server.answers  # type: ignore[attr-defined]
        status, body = answers.pop(0)
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.listed)  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def odd() -> Iterator[ThreadingHTTPServer]:
    """A service whose answers a test makes up."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Odd)
    server.listed = b"{}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.sampled(1)
def test_rubbish_of_every_kind_is_no_signature(
    open_shop: Callable[..., Shop], odd: ThreadingHTTPServer
) -> None:
    """Nothing that is not one is taken for one."""
    right = json.dumps({"signature": 7, "name": "Ada"}).encode()
    odd.answers = [  # type: ignore[attr-defined]
        *[(200, body) for body in (b"", b"[]", b"null", b"\xff\xfe", b"{" * 200_000, b"[" * 60_000)],
        (200, b'{"signature": "7", "name": "Ada"}'),
        (200, b'{"signature": true, "name": "Ada"}'),
        (200, b'{"signature": 7}'),
        (200, b'{"signature": 99999999999999999999, "name": "Ada"}'),
        *[(status, right) for status in (302, 404, 409, 500, 201)],
    ]
    shop = open_shop(
        STORE_GUESTBOOK_URL=f"http://127.0.0.1:{odd.server_port}", STORE_DISPATCH_TICK_SECONDS=0.001
    )
    one_key = sign(shop.shopper, "Ada")
    wait_for(shop.shopper, one_key, "Thank you")
    assert greetings(shop) == [(7, "Ada")]
    assert not odd.answers  # type: ignore[attr-defined]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "odd_text",
    [
        "\ud800",
        "\udfff\ud83d",
        "\0",
        "\x1b[31m",
        "\u202e",
        "\u2028",
        "\r\nSet-Cookie: a=b",
        "x" * 100_000,
        "<b>",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_others_say_is_fit_to_be_shown_and_kept(
    open_shop: Callable[..., Shop], odd: ThreadingHTTPServer, odd_text: str
) -> None:
    """Halves of characters, NUL, which Postgres refuses, what turns text round, and no end of it."""
    odd.answers = [  # type: ignore[attr-defined]
        (200, json.dumps({"signature": 7, "name": f"Ada{odd_text}"}).encode()),
        (422, json.dumps({"error": f"Not you{odd_text}, Grace"}).encode()),
    ]
    odd.listed = json.dumps(  # type: ignore[attr-defined]
        {"signatures": [{"signature": 7, "name": f"Ada{odd_text}"}, {"signature": 6, "name": odd_text}]}
    ).encode()
    shop = open_shop(STORE_GUESTBOOK_URL=f"http://127.0.0.1:{odd.server_port}")
    wait_for(shop.shopper, sign(shop.shopper, "Ada"), "Thank you")
    assert greetings(shop) == [(7, "Ada")]
    refused = sign(shop.shopper, "Grace")
    page = wait_for(shop.shopper, refused, "The guestbook refused your name")
    assert "The guestbook refuses (422): Not you" in page.text
    books = eventually(
        lambda: shop.shopper.page("/guestbook"), lambda page: page.status == 200 and ">7</th>" in page.text
    )
    names = re.findall(r"<bdi>(.*?)</bdi>", books.text, re.DOTALL)
    assert len(names) == 3  # two over there, one here
    for text in (*names, page.text):
        assert not re.search("[\ud800-\udfff\0\x1b\u202e\u2028\r]|<b>|x{201}", text)
    assert max(map(len, names)) <= len("Ada") + 80
    assert greet(shop.shopper, "Grace", refused).status == 502


# --- crashes ------------------------------------------------------------------------------------


@pytest.mark.first_of_all
@pytest.mark.sampled(2)
@pytest.mark.parametrize("beats", range(GREETING_TICKS + 1))
def test_the_store_is_killed_at_each_second(
    open_shop: Callable[..., Shop], guestbook: Guestbook, beats: int
) -> None:
    """Before the first and after each; one signature, one greeting."""
    shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.3)
    before = len(signatures(guestbook))
    one_key = sign(shop.shopper, "Ada")
    waited = f"and waits: {beats} of {GREETING_TICKS}" if beats else ""
    eventually(lambda: shop.server.output, lambda output: waited in output)
    shop.server.kill()
    shop.server.restart()
    wait_for(shop.shopper, one_key, "Thank you")
    assert len(signatures(guestbook)) == before + 1
    assert [name for _, name in greetings(shop)] == ["Ada"]
    assert greetings(shop)[0] == signatures(guestbook)[-1]


def test_the_guestbook_dies_after_it_recorded_and_before_it_answers(
    open_shop: Callable[..., Shop], tmp_path: Path
) -> None:
    """The store asks again with the same key, and is told of the signature that there is."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url)
        guestbook.make_trouble(kind="die")
        one_key = sign(shop.shopper, "Ada")
        assert guestbook.wait_for_death() == 1
        wait_for(shop.shopper, one_key, "The guestbook keeps you waiting")
        guestbook.start()
        wait_for(shop.shopper, one_key, "Thank you")
        assert signatures(guestbook) == greetings(shop) == [(1, "Ada")]


def test_the_store_is_killed_while_it_waits_for_the_guestbook(
    open_shop: Callable[..., Shop], guestbook: Guestbook
) -> None:
    """What it had asked for is done over there, and it does not know; it asks again."""
    shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url)
    before = len(signatures(guestbook))
    guestbook.make_trouble(kind="slow", seconds=1)
    one_key = sign(shop.shopper, "Ada")
    shop.server.kill()
    shop.server.restart()
    wait_for(shop.shopper, one_key, "Thank you")
    eventually(lambda: len(signatures(guestbook)), lambda count: count == before + 1)
    assert greetings(shop) == [signatures(guestbook)[-1]]


def test_many_at_once_with_kills_are_as_many_pairs(new_url: NewUrl, tmp_path: Path, often: Often) -> None:
    """Of the store, and of the guestbook between them: nobody is missing, and nobody is there twice."""
    chance = random.Random(50)
    count_of_visitors, kills = often(15, 50), often(3, 10)
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        shop = SupervisedShop(new_url(), STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.6)
        try:
            visitors = {key(): f"Visitor {number}" for number in range(count_of_visitors)}

            def visit(one_key: str) -> None:
                def once() -> bool:
                    try:
                        return greet(shop.shopper, visitors[one_key], one_key).status == 200
                    except (OSError, http.client.HTTPException):
                        return False

                # A server answers eight such calls at a time, each after three seconds at least.
                eventually(once, bool, timeout_seconds=120)

            with ThreadPoolExecutor(count_of_visitors) as pool:
                answers = [pool.submit(visit, one_key) for one_key in visitors]
                for count in range(1, kills + 1):
                    threading.Event().wait(chance.uniform(0, 0.5))  # some moment or other
                    if count % 5 == 3:
                        guestbook.kill()
                        guestbook.start()
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(shop.server_pid, signal.SIGKILL)
                    shop.wait_for_deaths(count)
                for answer in answers:
                    answer.result()
            assert signatures(guestbook) == greetings(shop)
            assert sorted(name for _, name in greetings(shop)) == sorted(visitors.values())
        finally:
            shop.parent.close()


# --- the guestbook of our own -------------------------------------------------------------------


def test_the_parent_keeps_a_guestbook_beside_the_store(tmp_path: Path) -> None:
    """Without an address of another; it survives the crashes of the store, and is started again itself."""
    shop = SupervisedShop(f"sqlite:///{tmp_path}/store.sqlite3", STORE_GUESTBOOK_URL="")
    try:
        told = eventually(lambda: _ITS_OPENING.search(shop.parent.output), bool)
        assert told
        theirs = Shopper(told[1])
        one_key = sign(shop.shopper, "Ada")
        os.kill(shop.server_pid, signal.SIGKILL)
        shop.wait_for_deaths(1)
        wait_for(shop.shopper, one_key, "Thank you")
        os.kill(int(told[2]), signal.SIGKILL)
        eventually(lambda: shop.parent.output, lambda output: "; guestbook " in output)
        assert [each["name"] for each in theirs.get("/signatures").json["signatures"]] == ["Ada"]
        sign(shop.shopper, "Grace")
        eventually(lambda: [name for _, name in greetings(shop)], lambda names: names == ["Ada", "Grace"])
        assert (tmp_path / "store-guestbook.sqlite3").exists()
    finally:
        assert shop.parent.stop() == 0
    assert not theirs.is_open()


def test_without_any_guestbook_the_page_says_so(open_shop: Callable[..., Shop]) -> None:
    """A server that runs alone has none; the greeting waits until it is told of one."""
    shop = open_shop(STORE_GUESTBOOK_URL="")
    eventually(lambda: shop.shopper.page("/guestbook").text, lambda text: "STORE_GUESTBOOK_URL" in text)
    one_key = sign(shop.shopper, "Ada")
    assert "STORE_GUESTBOOK_URL" in wait_for(shop.shopper, one_key, "The guestbook keeps you waiting").text


# --- limits ---------------------------------------------------------------------------------------

AWAY = "http://127.0.0.1:9"
"""Where nobody listens."""


def test_one_client_has_so_many_greetings_under_way(open_shop: Callable[..., Shop]) -> None:
    """429 for a program and for a form, and no row of it; the same key goes on, another address is free."""
    shop = open_shop(STORE_GUESTBOOK_URL=AWAY, STORE_GREETINGS_PER_CLIENT=3, STORE_TRUSTED_PROXIES=1)
    first = [sign(shop.shopper, "Ada") for _ in range(3)]
    assert refuses(shop.shopper.submit("/guestbook", key=key(), name="Ada"), 429)
    assert refuses(greet(shop.shopper, "Ada"), 429)
    assert sign(shop.shopper, "Ada", first[0]) == first[0]
    elsewhere = {"X-Forwarded-For": "192.0.2.7", "Content-Type": "application/x-www-form-urlencoded"}
    answer = shop.shopper.request("POST", "/guestbook", f"key={key()}&name=Ada", elsewhere)
    assert answer.status == 303
    assert shop.tables.rows("SELECT count(*) FROM greeting_requests") == [(4,)]


def test_many_at_once_are_no_more(open_shop: Callable[..., Shop]) -> None:
    """The limit is counted where the greeting is written down, so there is no moment between."""
    shop = open_shop(STORE_GUESTBOOK_URL=AWAY, STORE_GREETINGS_PER_CLIENT=5)

    def click(one_key: str) -> int:
        # 503 asks to come again, which the page does by itself: on a busy machine a click may take longer.
        return eventually(
            lambda: shop.shopper.submit("/guestbook", key=one_key, name="Ada").status,
            lambda status: status != 503,
        )

    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(click, [key() for _ in range(24)]))
    assert sorted(statuses) == [303] * 5 + [429] * 19


def test_a_greeting_ends_with_its_reason_though_the_guestbook_never_answers(
    open_shop: Callable[..., Shop],
) -> None:
    """It is given up after its time, the page and the program are told why, and its place is free again."""
    shop = open_shop(STORE_GUESTBOOK_URL=AWAY, STORE_GREETINGS_PER_CLIENT=1, STORE_GREETING_WINDOW_SECONDS=1)
    one_key = sign(shop.shopper, "Ada")
    page = wait_for(shop.shopper, one_key, "The guestbook did not answer in time")
    assert "The guestbook cannot be reached." in page.text
    # It asks on until the last of its steps is in the list, and then never again.
    eventually(
        lambda: shop.shopper.page(f"/greetings/{one_key}").text,
        lambda text: "every 1s" not in text[text.index('id="greeting"') :].partition(">")[0],
    )
    answer = greet_in_the_end(shop.shopper, "Ada", one_key)
    assert (answer.status, answer.json) == (502, {"error": "The guestbook cannot be reached."})
    assert greetings(shop) == []
    sign(shop.shopper, "Ada")


@pytest.mark.sampled(1)
def test_greetings_that_wait_hold_few_threads(open_shop: Callable[..., Shop]) -> None:
    """A hundred that wait for a guestbook that is away take no thread each."""
    shop = open_shop(STORE_GUESTBOOK_URL=AWAY)

    def threads() -> int:
        return len(list(Path(f"/proc/{shop.server.pid}/task").iterdir()))

    before = threads()
    for _ in range(100):
        sign(shop.shopper, "Ada")
    assert shop.tables.rows("SELECT count(*) FROM greeting_requests WHERE outcome IS NULL") == [(100,)]
    # As many as are asked about at once, and what answers requests.
    assert threads() < before + 60
