"""The durable and the naive lane beside each other: the same crash, and what it leaves behind in each."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from store.stage import naive
from store.stage.listing import code
from tests.support.guestbook import Guestbook
from tests.support.refusal import refuses
from tests.support.shop import PASSWORD, Shop
from tests.support.shopper import HTML, Answer, eventually, key

OpenShop = Callable[..., Shop]


@pytest.fixture(scope="module")
def guestbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """Somebody else's system."""
    with Guestbook(tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3") as guestbook:
        yield guestbook


def run(shop: Shop) -> str:
    """Press the button; the page of the run."""
    answer = shop.shopper.submit("/lanes", key=shop.shopper.page("/lanes").key)
    assert answer.status == 303, answer
    return answer.location


def damage(shop: Shop) -> dict[str, int]:
    """What the books count of the naive lane; and the shop's own lines all hold."""
    books = eventually(lambda: shop.shopper.get("/ledger.json").json, lambda books: "naive_lane" in books)
    assert books["balanced"], books
    counted: dict[str, int] = books["naive_lane"]
    return counted


def assert_both_signed(names: list[str]) -> None:
    """One visitor of each lane, once."""
    durable, naive = sorted(names)
    assert durable == "Durable visitor 1"
    assert naive.startswith("Naive visitor ")


def test_without_a_crash_both_lanes_end_well(open_shop: OpenShop, guestbook: Guestbook) -> None:
    """One click, once in each; the same click again runs nothing."""
    shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.02)
    before = len(guestbook.names)
    key = shop.shopper.page("/lanes").key
    for _ in range(2):
        assert shop.shopper.submit("/lanes", key=key).location == f"/lanes/{key}"
    eventually(
        lambda: shop.shopper.page(f"/lanes/{key}").text,
        lambda text: (
            text.count("Nothing crashed.") == 2
            and "Charged once, and dispatched." in text
            and "In both books, once in each." in text
            # and with the last of its steps, nothing will change any more
            and 'hx-trigger="every 1s"' not in text.partition('id="lanes"')[2].partition("</section>")[0]
        ),
    )
    assert_both_signed(guestbook.names[before:])
    assert shop.tables.rows("SELECT payment_id, status, progress FROM naive_orders") == [
        (key, "dispatched", 10)
    ]
    assert shop.tables.orders() == {key: "dispatched"}
    assert damage(shop) == {
        "naive_runs": 1,
        "units_held_for_ever": 0,
        "charged_and_never_shipped": 0,
        "charged_more_than_once": 0,
        "greetings_never_written_down": 0,
    }
    assert not shop.tables.faults()


def test_each_key_has_one_run_and_a_number_of_its_own(open_shop: OpenShop) -> None:
    """Whoever begins at the same moment: of the same key all but one hear that it has begun."""
    shop = open_shop()
    url = shop.database_url.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url, pool_size=16)
    naive.lane.set(naive.Lane(engine, guestbook_url="", tick_seconds=0))
    for _ in range(10):
        together = threading.Barrier(16)

        def begin(one: str, together: threading.Barrier = together) -> str | None:
            together.wait()
            return naive.begin(one, executor=1)

        with ThreadPoolExecutor(16) as pool:
            visitors = list(pool.map(begin, [key() for _ in range(8)] * 2))
        assert len([visitor for visitor in visitors if visitor is not None]) == 8, visitors
    engine.dispose()
    assert shop.tables.rows("SELECT run FROM naive_runs ORDER BY run") == [(run,) for run in range(1, 81)]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("clicks_of_each_key", [1, 2])
def test_clicks_at_once_are_one_run_for_each_key(
    open_shop: OpenShop, guestbook: Guestbook, clicks_of_each_key: int
) -> None:
    """Two keys are two runs, and two clicks with one key are one, however they meet."""
    shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.02)
    keys = [key() for _ in range(6)]

    def click(one: str) -> Answer:
        # 503 asks to come again, which the page does by itself: on a busy machine a click may take longer.
        return eventually(lambda: shop.shopper.submit("/lanes", key=one), lambda answer: answer.status != 503)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(click, sorted(keys * clicks_of_each_key)))
    assert [answer.status for answer in answers] == [303] * len(answers)
    runs = shop.tables.rows("SELECT run, key FROM naive_runs ORDER BY run")
    assert [number for number, _ in runs] == list(range(1, 7))
    assert {one for _, one in runs} == set(keys)
    visitors = eventually(lambda: shop.tables.rows("SELECT name FROM greetings"), lambda rows: len(rows) == 6)
    assert {name for (name,) in visitors} == {f"Durable visitor {number}" for number in range(1, 7)}
    assert not shop.tables.faults()


@pytest.mark.first_of_all
@pytest.mark.sampled(1)  # the paid one: the other waits for half a minute
@pytest.mark.parametrize(
    ("left_at", "said", "counted"),
    [
        ("pending", "A unit is held for ever", {"units_held_for_ever": 1, "charged_and_never_shipped": 0}),
        ("paid", "and never shipped.", {"units_held_for_ever": 0, "charged_and_never_shipped": 1}),
    ],
)
def test_a_crash_breaks_one_lane(
    open_shop: OpenShop, guestbook: Guestbook, left_at: str, said: str, counted: dict[str, int]
) -> None:
    """The durable one is whole; the naive one shows what it left, and the books count it apart."""
    # It is pending for one tick, part of which passes before the click is answered.
    tick_seconds = {"pending": 3, "paid": 0.5}[left_at]
    shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=tick_seconds)
    before = len(guestbook.names)
    address = run(shop)
    eventually(lambda: shop.tables.rows("SELECT status FROM naive_orders"), lambda rows: rows == [(left_at,)])
    eventually(lambda: len(guestbook.names), lambda count: count == before + 2)
    shop.server.kill()
    shop.server.restart()
    page = eventually(
        lambda: shop.shopper.page(address).text,
        lambda text: "Charged once, and dispatched." in text and "In both books, once in each." in text,
        timeout_seconds=90,
    )
    assert said in page
    assert "and never in ours." in page
    assert damage(shop) == {
        "naive_runs": 1,
        **counted,
        "charged_more_than_once": 0,
        "greetings_never_written_down": 1,
    }
    assert "The naive lane (not part of the shop)" in shop.shopper.page("/ledger").text
    assert shop.tables.rows("SELECT name FROM greetings") == [("Durable visitor 1",)]
    assert not shop.tables.rows("SELECT * FROM naive_greetings")
    assert_both_signed(guestbook.names[before:])
    assert not shop.tables.faults()


def test_run_again_the_naive_lane_charges_twice(open_shop: OpenShop, guestbook: Guestbook) -> None:
    """While both are running it is refused; the page and the books say what it has done."""
    # Both are running for ten ticks more.
    shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=0.3)
    address = run(shop)
    assert shop.shopper.submit(f"{address}/again").status == 409
    eventually(lambda: shop.shopper.page(address).text, lambda text: "Both lanes have ended" in text)
    assert shop.shopper.submit(f"{address}/again", executor="77").status == 303  # meant for another server
    assert shop.tables.rows("SELECT amount_cents FROM naive_payments") == [(9999,)]
    assert shop.shopper.submit(f"{address}/again").status == 303
    eventually(lambda: shop.shopper.page(address).text, lambda text: "charged 2 times: $199.98" in text)
    assert damage(shop)["charged_more_than_once"] == 1
    assert shop.shopper.submit("/lanes/nowhere/again").status == 404
    assert not shop.tables.faults()


def test_the_code_is_the_code(shop: Shop) -> None:
    """What the page shows are the functions that run, and what it marks is what makes them durable."""
    page = html.unescape(shop.shopper.page("/lanes").text)
    assert "<mark>@DBOS.workflow(name=DISPATCH, max_recovery_attempts=None)</mark>" in page
    for same in (
        "def dispatch(payment_id: str, paid_at_ms: int) -> OrderNow:",
        '        order = advance(payment_id, order["progress"] + 1, order["updated_at_ms"])',
        "        order = settle(payment_id, notice)",
    ):
        assert page.count(f"\n{same}\n") + page.count(f"<code>{same}\n") == 2, same
    marked, unmarked = page.count("<mark>"), sum(map(len, (each.lines for each in code())))
    assert marked < unmarked / 2, "the few lines that differ"


def test_nobody_else_finds_the_lanes(open_shop: OpenShop) -> None:
    """They are the presenter's, and a click on them is no order of anybody else's."""
    shop = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD)
    for path in ("/lanes", "/lanes/some-key"):
        assert shop.shopper.page(path).location == f"/stage/sign_in?next={path}"
    assert shop.shopper.submit("/lanes").status == 401
    assert "/lanes" not in shop.shopper.page("/").text
    proxied = open_shop(STORE_TRUSTED_PROXIES=1)
    for method, path in [
        ("GET", "/lanes"),
        ("POST", "/lanes"),
        ("DELETE", "/lanes"),
        ("GET", "/lanes/some-key"),
    ]:
        assert proxied.shopper.request(method, path, headers=HTML).status == 404


def test_a_run_that_there_is_not_is_not_found(shop: Shop) -> None:
    """And a key that is none is refused."""
    assert refuses(shop.shopper.page("/lanes/some-key"), 404)
    assert refuses(shop.shopper.submit("/lanes", key="two words"), 400)


def polls(shop: Shop, address: str) -> bool:
    """Whether the page of a run looks again."""
    lanes = shop.shopper.page(address).text.partition('id="lanes"')[2]
    return 'hx-trigger="every 1s"' in lanes.partition("</section>")[0]


def test_a_greeting_that_was_given_up_is_an_end(open_shop: OpenShop) -> None:
    """The naive lane asks once, and says why it gave up; nothing more comes of it, and nobody looks again."""
    shop = open_shop(
        STORE_GUESTBOOK_URL="http://127.0.0.1:9",
        STORE_GREETING_WINDOW_SECONDS=1,
        STORE_DISPATCH_TICK_SECONDS=0.02,
    )
    address = run(shop)
    eventually(lambda: polls(shop, address), lambda polls: not polls, timeout_seconds=60)
    page = shop.shopper.page(address).text
    assert "Both lanes have ended." in page
    assert "It was given up. The guestbook cannot be reached." in page
    assert shop.tables.rows("SELECT work FROM naive_troubles") == [("greeting",)]
    assert shop.shopper.submit(f"{address}/again").status == 303  # which forgets it, and gives up again
    eventually(lambda: shop.tables.rows("SELECT work FROM naive_troubles"), lambda rows: len(rows) == 1)
    assert not shop.tables.faults()


def test_a_sale_in_which_nobody_greets_is_an_end(open_shop: OpenShop) -> None:
    """As one of a storm: there is no greeting to wait for."""
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=0.02)
    payment_id = shop.shopper.buy()
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    shop.tables.change(
        "INSERT INTO naive_runs (run, key, visitor, executor, started_at_ms) VALUES (1, :id, '', 1, 1)",
        id=payment_id,
    )
    assert polls(shop, f"/lanes/{payment_id}")
    shop.tables.change("INSERT INTO naive_orders VALUES (:id, 'dispatched', 10)", id=payment_id)
    assert not polls(shop, f"/lanes/{payment_id}")
    page = shop.shopper.page(f"/lanes/{payment_id}").text
    assert page.count("Nobody greets in this sale") == 2
    assert "Both lanes have ended, and nothing crashed." in page


def test_a_sale_that_was_cancelled_is_not_called_sold_out(open_shop: OpenShop) -> None:
    """It was not paid, as when the server was away for longer than one may take to pay."""
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=0.02)
    payment_id = shop.shopper.hold()
    shop.shopper.cancel(payment_id)
    assert shop.shopper.submit("/lanes", key=payment_id).status == 303
    page = shop.shopper.page(f"/lanes/{payment_id}").text
    assert "The durable sale was cancelled before it was paid: run both again." in page
    assert "Cancelled before it was paid, and its unit is back on the shelf." in page
    assert "Sold out" not in page
    assert not shop.tables.faults()
