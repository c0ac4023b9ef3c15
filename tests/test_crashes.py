"""What pages tell of crashes: the track and the timeline, beside what DBOS and the shop have recorded."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store.durable import adoption
from store.settings import is_sqlite
from store.vocabulary import greeting_id
from tests.conftest import NewUrl
from tests.support.guestbook import Guestbook
from tests.support.shop import SupervisedShop
from tests.support.shopper import eventually, key

_CRASH = re.compile(r"Server (\d+) died ([a-z0-9 ]+?)\. Server (\d+) went on (\d+) ms later\.")
"""A sentence below a track."""
_ROW = re.compile(
    r'<li class="(step|crash|mending) ([a-z-]+)">\s*<span class="what">(.*?)</span>.*?'
    r'<time datetime="(.*?)".*?<span class="fate">(.*?)</span>',
    re.DOTALL,
)


@pytest.fixture
def keep(new_url: NewUrl) -> Iterator[Callable[..., SupervisedShop]]:
    """Opens a shop that is kept open by a parent."""
    shops: list[SupervisedShop] = []

    def open_shop(**settings: object) -> SupervisedShop:
        shops.append(SupervisedShop(new_url(), **settings))
        return shops[-1]

    yield open_shop
    for shop in shops:
        shop.server.close()


def kill(shop: SupervisedShop) -> None:
    """Kill the server, and see the next one answer."""
    count = len(shop.deaths)
    shop.kill()
    shop.wait_for_deaths(count + 1)


def recorded_crashes(shop: SupervisedShop, table: str, column: str, value: str) -> list[Any]:
    """Each crash that met it: who died, when, and when the next one had taken its work up."""
    return eventually(
        lambda: shop.tables.rows(
            "SELECT d.number, d.ended_at_ms, d.adopted_at_ms FROM executors d"  # noqa: S608 - ours
            f" JOIN {table} t ON t.left_by = d.number WHERE t.{column} = :value AND d.how_ended = 'died'"
            " ORDER BY d.number",
            value=value,
        ),
        lambda rows: all(None not in row for row in rows),
    )


def recorded_steps(shop: SupervisedShop, *workflow_ids: str) -> list[str]:
    """The names of what DBOS has recorded, as it ended."""
    return [
        name
        for (name,) in shop.checkpoints.rows(
            "SELECT function_name FROM operation_outputs WHERE workflow_uuid IN (:first, :last)"
            " ORDER BY completed_at_epoch_ms, workflow_uuid, function_id",
            first=workflow_ids[0],
            last=workflow_ids[-1],
        )
    ]


@pytest.mark.first_of_all
def test_an_order_that_met_three_crashes(keep: Callable[..., SupervisedShop]) -> None:
    """At the till, and twice in the dispatch: each is a crack where it came, as long as was recorded."""
    shop = keep(STORE_DISPATCH_TICK_SECONDS=0.5)
    payment_id = shop.shopper.hold()
    kill(shop)
    eventually(shop.shopper.is_open, bool)  # one that has answered may not take any click yet
    shop.shopper.confirm(payment_id)
    for reached in (2, 5):
        eventually(
            lambda: shop.tables.rows("SELECT progress FROM orders")[0][0],
            lambda progress: progress >= reached,  # noqa: B023 - asked before the next round
        )
        kill(shop)
    shop.shopper.wait_for(payment_id, "Dispatched")
    crashes = recorded_crashes(shop, "takeovers", "payment_id", payment_id)
    assert [number for number, *_ in crashes] == [1, 2, 3]
    left_at = [
        progress for (progress,) in shop.tables.rows("SELECT progress FROM takeovers ORDER BY left_by")
    ]
    assert left_at[0] == 0
    assert 2 <= left_at[1] < left_at[2]

    # The last tick is recorded a moment after it shows.
    page = eventually(
        lambda: shop.shopper.page(f"/orders/{payment_id}").text, lambda text: "<code>tick 10</code>" in text
    )
    assert _CRASH.findall(page) == [
        (
            str(number),
            f"after {left} of 10 ticks" if left else "before the dispatch",
            str(number + 1),
            str(back - died),
        )
        for (number, died, back), left in zip(crashes, left_at, strict=True)
    ]
    track, _, timeline = page.partition('<ol class="timeline">')
    assert track.count('<g class="crack">') == 3
    assert [f"{back - died} ms" in track for _, died, back in crashes] == [True] * 3

    rows = _ROW.findall(timeline)
    steps = [row for row in rows if row[0] == "step"]
    names = [re.sub(r".*<code>(.*)</code>", r"\1", what) for _, _, what, *_ in steps]
    assert sorted(names) == sorted(recorded_steps(shop, payment_id, f"{payment_id}.dispatch"))
    assert [row[2] for row in rows if row[0] == "crash"] == [
        "Server 1 died",
        "Server 2 died",
        "Server 3 died",
    ]
    # What stands above the last crash was remembered, or run again by the next one; what is below it, ran.
    last = max(index for index, row in enumerate(rows) if row[0] == "crash")
    assert {fate for kind, fate, *_ in rows[:last] if kind == "step"} <= {"remembered", "run-again"}
    assert {fate for kind, fate, *_ in rows[last:] if kind == "step"} <= {"ran", "run-again"}
    assert [f"tick {tick}" for tick in range(1, 11)] == [name for name in names if name.startswith("tick")]


def test_a_greeting_that_met_two_crashes(
    keep: Callable[..., SupervisedShop], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It has the same timeline, and its crashes are counted as an order's are."""
    with Guestbook(tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3") as guestbook:
        shop = keep(STORE_DISPATCH_TICK_SECONDS=4, STORE_GUESTBOOK_URL=guestbook.url)
        one_key = key()
        shop.shopper.submit("/guestbook", key=one_key, name="Ada Lovelace")
        address = f"/greetings/{one_key}"
        eventually(
            lambda: shop.shopper.page(address).heading,
            lambda heading: heading == "Signed in the online guestbook, not yet in ours",
        )
        kill(shop)
        eventually(lambda: shop.shopper.page("/").text, lambda text: "It resumed 1 greeting" in text)
        kill(shop)
        eventually(
            lambda: shop.shopper.page(address).heading,
            lambda heading: heading.startswith("Thank you for being awesome"),
            timeout_seconds=60,  # its five waits take twenty
        )
        crashes = recorded_crashes(shop, "greeting_takeovers", "greeting_id", greeting_id(one_key))
        assert [number for number, *_ in crashes] == [1, 2]
        rows = eventually(
            lambda: _ROW.findall(shop.shopper.page(address).text), lambda rows: "DBOS.setEvent" in rows[-1][2]
        )
        assert [row[2] for row in rows if row[0] == "crash"] == ["Server 1 died", "Server 2 died"]
        names = [re.sub(r".*<code>(.*)</code>", r"\1", what) for kind, _, what, *_ in rows if kind == "step"]
        assert names == recorded_steps(shop, greeting_id(one_key))
        assert [fate for kind, fate, *_ in rows if kind == "step"][:2] == ["remembered"] * 2


def test_an_unchanged_timeline_is_not_sent_again(keep: Callable[..., SupervisedShop]) -> None:
    """An open one asks every second: while nothing is recorded, the answer is a 304."""
    shop = keep(STORE_DISPATCH_TICK_SECONDS=3600)
    payment_id = shop.shopper.buy()
    shop.shopper.confirm(payment_id)
    address = f"/orders/{payment_id}/timeline"
    first = eventually(
        lambda: shop.shopper.request("GET", address, headers={"HX-Request": "true"}),
        lambda answer: "Told the page" in answer.text.partition("Started the dispatch")[2],
    )
    again = shop.shopper.request(
        "GET", address, headers={"HX-Request": "true", "HX-PTag": first.headers["Hx-Ptag"]}
    )
    assert (again.status, again.text) == (304, "")


def test_a_death_is_dated_by_who_saw_it(keep: Callable[..., SupervisedShop]) -> None:
    """Between the kill and the next server's start; one that was stopped in good order did not die."""
    shop = keep()
    before_ms = time.time() * 1000
    kill(shop)
    eventually(shop.shopper.is_open, bool)  # one that has answered may not have written down that it started
    shop.server.stop()
    [(_, died, how_first), (started, stopped, how_second)] = shop.tables.rows(
        "SELECT started_at_ms, ended_at_ms, how_ended FROM executors ORDER BY number"
    )
    assert before_ms - 1 <= died <= started <= stopped
    assert (how_first, how_second) == ("died", "stopped")


def test_what_ticks_is_taken_up_before_what_waits_for_its_payment(
    keep: Callable[..., SupervisedShop],
) -> None:
    """Though it was bought last; the others follow a few at a time, and each is under way again."""
    shop = keep(STORE_DISPATCH_TICK_SECONDS=0.5, STORE_PAYMENT_WINDOW_SECONDS=3600, STORE_UNPAID_PER_CLIENT=0)
    waiting = [shop.shopper.hold() for _ in range(adoption.AT_ONCE + 20)]
    ticking = shop.shopper.hold(key())
    shop.shopper.confirm(ticking)
    progress = "SELECT progress FROM orders WHERE payment_id = :id"
    eventually(lambda: shop.tables.rows(progress, id=ticking)[0].progress, lambda ticks: ticks > 0)
    shop.kill()
    taken_up = "SELECT 1 FROM executors WHERE number = 1 AND adopted_at_ms IS NOT NULL"
    eventually(lambda: shop.tables.rows(taken_up), bool, timeout_seconds=30)
    began = (
        "SELECT workflow_uuid AS id, started_at_epoch_ms AS at_ms FROM workflow_status"
        " WHERE status IN ('PENDING', 'SUCCESS') AND queue_name = 'adopted'"
    )
    all_of_them = {*waiting, f"{ticking}.dispatch"}
    begun_ms = eventually(
        lambda: {row.id: row.at_ms for row in shop.checkpoints.rows(began)},
        lambda begun: begun.keys() >= all_of_them,
    )
    assert begun_ms[f"{ticking}.dispatch"] == min(begun_ms[each] for each in all_of_them)
    if not is_sqlite(shop.database_url):  # where DBOS notes whole seconds, which are the same for all
        assert all(begun_ms[each] > begun_ms[f"{ticking}.dispatch"] for each in waiting)
    shop.shopper.wait_for(ticking, "Dispatched")
    shop.shopper.confirm(waiting[-1])
    shop.shopper.wait_for(waiting[-1], "Dispatched")
    assert shop.tables.faults() == {}
