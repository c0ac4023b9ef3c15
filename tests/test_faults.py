"""The presenter's faults, each of which ends by itself; the shelf; the time to pay; a deploy."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from store.stage.faults import FAULTS
from store.stage.script import SCENES
from store.web.track import LEFT, STEP
from tests.conftest import NewUrl
from tests.support.guestbook import Guestbook
from tests.support.refusal import is_one_sentence
from tests.support.shop import PASSWORD, Shop, SupervisedShop
from tests.support.shopper import eventually, key

OpenShop = Callable[..., Shop]


@pytest.fixture
def guestbook(tmp_path: Path) -> Iterator[Guestbook]:
    """The online one."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        yield guestbook


@pytest.fixture
def supervised(new_url: NewUrl, guestbook: Guestbook) -> Iterator[SupervisedShop]:
    """A shop with a parent."""
    yield from _supervised(new_url(), guestbook, tick_seconds=0.2)


@pytest.fixture
def slow_supervised(new_url: NewUrl, guestbook: Guestbook) -> Iterator[SupervisedShop]:
    """A shop with a parent, where five ticks take longer than a server that was told to stop."""
    yield from _supervised(new_url(), guestbook, tick_seconds=0.6)


def _supervised(database_url: str, guestbook: Guestbook, *, tick_seconds: float) -> Iterator[SupervisedShop]:
    shop = SupervisedShop(
        database_url, STORE_GUESTBOOK_URL=guestbook.url, STORE_DISPATCH_TICK_SECONDS=tick_seconds
    )
    yield shop
    shop.parent.close()


def make(shop: Shop, name: str) -> None:
    """Press the button."""
    answer = shop.shopper.submit(f"/stage/faults/{name}")
    assert (answer.status, answer.location) == (303, "/stage/faults")


def is_over(shop: Shop) -> None:
    """Until the page says that nothing is wrong."""
    eventually(
        lambda: shop.shopper.page("/stage/faults").text,
        lambda text: "Nothing is wrong." in text,
        timeout_seconds=40,
    )


def state_of(pid: int) -> str:
    """What Linux says of a process: `T` where it is stopped."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0]
    return ""


# --- the server and its database ------------------------------------------------------------------


def test_a_frozen_server_goes_on_by_itself(supervised: SupervisedShop) -> None:
    """It stands still, is not killed, and its order goes on: no crash is counted."""
    shop = supervised
    payment_id = shop.shopper.buy()
    make(shop, "frozen")
    pid = shop.server_pid
    eventually(lambda: state_of(pid), lambda state: state == "T")
    eventually(lambda: state_of(pid), lambda state: state != "T")
    # On Postgres it begins nothing before it has given a sign of life again; a page would send it again, too.
    paid = {"outcome": "paid"}
    eventually(lambda: shop.shopper.submit(f"/pay/{payment_id}", **paid).status, lambda status: status == 303)
    shop.shopper.wait_for(payment_id, "Dispatched")
    is_over(shop)
    assert shop.deaths == []
    assert shop.server_pid == pid


def test_a_frozen_server_that_is_killed_is_replaced(supervised: SupervisedShop) -> None:
    """Whoever froze it leaves the next one alone."""
    shop = supervised
    make(shop, "frozen")
    pid = shop.server_pid
    eventually(lambda: state_of(pid), lambda state: state == "T")
    os.kill(pid, signal.SIGKILL)
    # The page says so for what is left of its time, which must be longer than the next server takes to open.
    shop.tables.change("UPDATE stage_faults SET ends_at_ms = ends_at_ms + 60000")
    shop.wait_for_deaths(1)
    eventually(shop.shopper.is_open, bool)
    assert "The server is frozen" in shop.shopper.page("/stage/faults").text
    shop.tables.change("UPDATE stage_faults SET ends_at_ms = ends_at_ms - 60000")
    is_over(shop)
    shop.shopper.buy()


@pytest.mark.each_database
def test_a_database_that_is_away_comes_back(open_shop: OpenShop) -> None:
    """Though the server dies meanwhile; a second fault is refused, and told which one is on."""
    shop = open_shop()
    payment_id = shop.shopper.buy()
    make(shop, "database")
    answer = shop.shopper.post("/stage/faults/frozen")
    assert answer.status == 409
    assert re.fullmatch(
        r"The database is locked: \d s more\. Wait until that is over\.", answer.json["error"]
    )
    shop.server.kill()
    shop.server.restart()
    is_over(shop)
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    assert not shop.tables.faults()


def test_a_press_that_comes_twice_is_one_fault(open_shop: OpenShop, guestbook: Guestbook) -> None:
    """It says after which one it was pressed."""
    shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url)
    after = re.search(r'name="after" value="(\d+)"', shop.shopper.page("/stage/faults").text)
    assert after
    assert shop.shopper.submit("/stage/faults/dying", after=after[1]).status == 303
    shop.tables.change("UPDATE stage_faults SET ends_at_ms = began_at_ms")
    before = shop.tables.rows("SELECT * FROM stage_faults")
    assert shop.shopper.submit("/stage/faults/dying", after=after[1]).status == 409
    assert shop.tables.rows("SELECT * FROM stage_faults") == before


# --- the guestbook ---------------------------------------------------------------------------------


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["slow", "failing", "dying"])
def test_a_greeting_gets_over_the_guestbook(open_shop: OpenShop, guestbook: Guestbook, name: str) -> None:
    """It signs once, whatever the guestbook does."""
    shop = open_shop(STORE_GUESTBOOK_URL=guestbook.url)
    make(shop, name)
    one_key = key()
    shop.shopper.submit("/guestbook", key=one_key, name="Ada")
    if name == "dying":
        assert guestbook.wait_for_death() == 1
        guestbook.start()
    eventually(
        lambda: shop.shopper.page(f"/greetings/{one_key}").heading,
        lambda heading: heading.startswith("Thank you"),
        timeout_seconds=60,
    )
    assert guestbook.names == ["Ada"]


def test_a_trouble_of_the_guestbook_ends_with_its_time(guestbook: Guestbook) -> None:
    """Though much of it is left; and one without an end does not."""
    guestbook.make_trouble(kind="fail", status=503, times=1000, for_seconds=0)
    assert guestbook.sign("Ada").status == 200
    guestbook.make_trouble(kind="fail", status=503, times=1)
    assert guestbook.sign("Ada").status == 503


def test_a_guestbook_that_does_not_take_it_leaves_no_fault_on(open_shop: OpenShop) -> None:
    """Nobody listens there; or it is somebody else's, and there is no button."""
    shop = open_shop()
    answer = shop.shopper.post("/stage/faults/slow")
    assert answer.status == 502
    assert "Nothing is wrong." in shop.shopper.page("/stage/faults").text
    elsewhere = open_shop(STORE_GUESTBOOK_URL="https://guestbook.example.com")
    page = elsewhere.shopper.page("/stage/faults").text
    assert page.count("on another machine, and not ours to change") == 3
    assert elsewhere.shopper.post("/stage/faults/slow").status == 409


# --- the shelf and the window ------------------------------------------------------------------------


@pytest.mark.each_database
def test_sold_out_is_a_movement_of_the_books(open_shop: OpenShop) -> None:
    """The shelf is empty, whoever has an order keeps it, a restock fills it; the books balance."""
    shop = open_shop()
    held = shop.shopper.buy()
    for _ in range(2):
        assert shop.shopper.submit("/stage/sell_out").status == 303
        assert shop.shopper.get("/product").json["inventory"] == 0
    assert shop.shopper.get("/ledger.json").json["balanced"]
    assert not shop.tables.faults()
    units = "SELECT units FROM stock_movements WHERE kind = 'restock' ORDER BY recorded_at_ms, units"
    assert sorted(row.units for row in shop.tables.rows(units)) == [-99, 0, 100]
    assert shop.shopper.submit("/stage/sell_out", executor="77").status == 303  # meant for another server
    shop.shopper.post("/restock")
    shop.shopper.cancel(held)
    eventually(lambda: shop.shopper.get("/product").json["inventory"], lambda count: count == 101)
    assert shop.shopper.get("/ledger.json").json["balanced"]


@pytest.mark.each_database
def test_a_window_that_is_held_outlives_a_crash(open_shop: OpenShop) -> None:
    """Whoever buys has an hour, whoever waits as long again; let go, it is as it was."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=60)
    lengths = "SELECT pay_by_ms - created_at_ms FROM orders ORDER BY order_id"
    shop.shopper.buy()
    for _ in range(2):
        assert shop.shopper.submit("/stage/window", do="hold").status == 303
    shop.shopper.buy()
    shop.server.kill()
    shop.server.restart()
    shop.shopper.buy()
    assert shop.shopper.submit("/stage/window", do="end").status == 303
    shop.shopper.buy()
    assert [row[0] for row in shop.tables.rows(lengths)] == [120_000, 3_600_000, 3_600_000, 60_000]
    assert shop.shopper.get("/ledger.json").json["balanced"]
    assert shop.shopper.submit("/stage/window", do="explode").status == 400


# --- a deploy ------------------------------------------------------------------------------------------


def test_a_deploy_in_the_middle_of_an_order_is_no_crash(supervised: SupervisedShop) -> None:
    """The next server goes on with it; nobody died, nobody was refused, and each server's code is named."""
    shop = supervised
    scene = 0
    while shop.shopper.page("/stage").heading != "New code, in the middle of an order.":
        shop.shopper.submit("/stage", do="go", moves=str(scene))
        scene += 1
    assert shop.shopper.submit("/stage", do="act", moves=str(scene)).status == 303
    eventually(lambda: shop.parent.output, lambda output: "was replaced; server" in output)
    eventually(lambda: list(shop.tables.orders().values()), lambda ended: ended == ["dispatched"])
    assert shop.deaths == []
    assert shop.tables.rows("SELECT * FROM executors WHERE how_ended <> 'stopped'") == []
    assert shop.tables.rows("SELECT * FROM armed_crashes") == []
    [first, second] = shop.tables.rows("SELECT executor, digest FROM server_code ORDER BY executor")
    assert first.digest == second.digest
    page = shop.shopper.page("/stage").text
    assert 'class="flag"' not in page  # nothing was changed
    assert page.count(f"<code>{first.digest}</code>") == 2
    assert "replaced in good order" in page
    books = shop.shopper.get("/ledger.json").json
    assert books["balanced"]
    assert [line["figures"] for line in books["lines"] if line["name"] == "Crashes survived"] == [
        {"crashes": 0}
    ]


def test_where_new_code_went_on_is_seen(slow_supervised: SupervisedShop) -> None:
    """By a flag in the track, after the fifth bead or soon, and a line in the timeline of the order."""
    shop = slow_supervised
    deploy = [scene.name for scene in SCENES].index("deploy")
    for moves in range(deploy):
        shop.shopper.submit("/stage", do="go", moves=str(moves))
    shop.tables.change("UPDATE server_code SET digest = '00000000'")  # as if the first one ran other code
    shop.shopper.submit("/stage", do="act", moves=str(deploy))
    eventually(lambda: list(shop.tables.orders().values()), lambda ended: ended == ["dispatched"])
    page = shop.shopper.page("/stage")
    assert page.heading == "New code, in the middle of an order."
    assert 'data-progress="10"' in page.text
    [x] = re.findall(r'class="flag">\s*<path d="M([\d.]+) ', page.text)
    ticks = round((float(x) - LEFT) / STEP - 0.5)
    assert 5 <= ticks < 10  # a tick may come before the server that was asked to stop has stopped
    [(payment_id,)] = shop.tables.rows("SELECT payment_id FROM orders")
    for address in (f"/orders/{payment_id}", f"/orders/{payment_id}/progress"):
        said = f"After {ticks} of 10 ticks, server 2 went on with another version"
        assert said in shop.shopper.page(address).text
    rows = re.findall(
        r'<li class="(step|deploy) .*?<span class="what">(.*?)(?: <code>|<)',
        shop.shopper.page(f"/orders/{payment_id}/timeline").text,
        re.DOTALL,
    )
    place = rows.index(("deploy", "New code"))
    assert rows[place - 1][1].startswith(f"Tick {ticks} ")
    assert rows[place + 1][1].startswith(f"Tick {ticks + 1} ")


def test_without_a_parent_nothing_is_deployed(open_shop: OpenShop) -> None:
    """One sentence says how to have one, and nothing is sold."""
    shop = open_shop()
    for moves in range(8):
        shop.shopper.submit("/stage", do="go", moves=str(moves))
    answer = shop.shopper.submit("/stage", do="act", moves="8")
    assert answer.status == 409
    assert "Nobody starts the next server" in answer.text
    assert shop.tables.orders() == {}


def test_the_page_says_what_is_done_to_the_database_of_this_shop(supervised: SupervisedShop) -> None:
    """A lock, and whose: no database is away."""
    page = supervised.shopper.page("/stage/faults").text
    on_sqlite = supervised.database_url.startswith("sqlite")
    assert ("holds the write lock of the SQLite file" in page) == on_sqlite
    assert ("locks the table of orders" in page) != on_sqlite
    assert "is away" not in page


# --- who may -------------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused(open_shop: OpenShop) -> None:
    """One sentence and the right status; without the tools, nothing is found."""
    shop = open_shop()
    for path, body, status in [("nowhere", "", 404), ("frozen", "after=x", 400), ("frozen", "after=-1", 400)]:
        answer = shop.shopper.request(
            "POST", f"/stage/faults/{path}", body, {"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert answer.status == status
        assert is_one_sentence(answer.json["error"])
    assert shop.tables.rows("SELECT * FROM stage_faults") == []
    guarded, off = open_shop(STORE_PRESENTER_PASSWORD=PASSWORD), open_shop(STORE_TRUSTED_PROXIES=1)
    for path in (*(f"/stage/faults/{name}" for name in FAULTS), "/stage/sell_out", "/stage/window"):
        assert guarded.shopper.submit(path).status == 401
        assert off.shopper.submit(path).status == 404
    assert off.shopper.page("/stage/faults").status == 404
    assert "faults" not in off.shopper.page("/").text
