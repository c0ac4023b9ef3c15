"""The stage: its scenes, what a press does, and the code that it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPException

import pytest

from store.reads.timeline import Fate, Step, Timeline
from store.stage import listing
from store.stage.crash_points import CRASH_POINTS
from store.stage.listing import CodeLine, Mark
from store.stage.script import SCENES
from store.vocabulary import Status
from tests.support.refusal import is_one_sentence
from tests.support.shop import PASSWORD, Shop
from tests.support.shopper import Answer, Shopper, eventually

OpenShop = Callable[..., Shop]
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def press(shopper: Shopper, do: str, moves: int) -> Answer:
    """Press a button of the stage that was loaded after so many moves."""
    return shopper.submit("/stage", do=do, moves=str(moves))


def place(shop: Shop) -> tuple[int, int, int]:
    """The scene, whether it has done what it does, and how often the talk has moved."""
    [row] = shop.tables.rows("SELECT scene, has_acted, moves FROM stage")
    return row.scene, row.has_acted, row.moves


# --- the code ------------------------------------------------------------------------------------


def story(*names: str, remembered: int = 0) -> Timeline:
    """A sale that has come so far; so many of its steps were recorded before a crash."""
    steps = [
        Step(
            name,
            {"status": "paid"} if name == "settle" else None,
            _NOW + timedelta(seconds=number),
            _NOW + timedelta(seconds=number),
            1,
            Fate.REMEMBERED if number < remembered else Fate.RAN,
        )
        for number, name in enumerate(names)
    ]
    return Timeline(tuple(steps), (), (), ())


def marks(lines: tuple[CodeLine, ...]) -> dict[str, Mark]:
    """How each line that does something is marked."""
    return {line.does: line.mark for line in lines if line.does}


@pytest.mark.quick
@pytest.mark.parametrize("lane", ["durable", "naive"])
def test_the_lines_that_matter_are_few_and_all_there(lane: str) -> None:
    """Eight to ten of the durable lane, and nothing that is done in a sale is left out."""
    lines = listing.lines_of(lane)
    assert 7 <= len(lines) <= 10
    assert [line.does for line in lines if line.does] == ["reserve", "wait", "settle", "start", "ticks"]


@pytest.mark.quick
def test_a_line_fits_on_the_projector() -> None:
    """As it runs, but for the arguments after the first: they are long, and the same in both lanes."""
    lines = [line.text.strip() for line in listing.lines_of("durable")]
    assert lines[:3] == [
        "@DBOS.workflow(name=CHECKOUT, …)",
        "def checkout(payment_id, …):",
        "order = reserve(payment_id, …)",
    ]
    assert "notice = wait_for_notice(order)" in lines
    assert all(len(line.text) < 44 for lane in ("durable", "naive") for line in listing.lines_of(lane))


@pytest.mark.quick
def test_little_differs() -> None:
    """Three lines are in the durable lane only: the audience is to see that."""
    assert sum(line.is_only_here for line in listing.lines_of("durable")) == 3
    assert not any(line.is_only_here for line in listing.lines_of("naive"))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("told", "status", "running", "done", "remembered"),
    [
        (None, None, set(), set(), set()),
        (story(), None, {"reserve"}, set(), set()),
        (story("reserve", "DBOS.setEvent", "DBOS.sleep"), "pending", {"wait"}, {"reserve"}, set()),
        (story("reserve", "DBOS.recv", "settle"), "paid", {"start"}, {"reserve", "wait", "settle"}, set()),
        (
            story("reserve", "DBOS.recv", "settle", "dispatch", "tick 1", remembered=5),
            "paid",
            {"ticks"},
            set(),
            {"reserve", "wait", "settle", "start"},
        ),
        (
            story("reserve", "DBOS.recv", "settle", "dispatch", *(f"tick {n}" for n in range(1, 11))),
            "dispatched",
            set(),
            {"reserve", "wait", "settle", "start", "ticks"},
            set(),
        ),
        (  # one that had not to wait, because the payment came before
            story("reserve", "settle", "dispatch", *(f"tick {n}" for n in range(1, 11))),
            "dispatched",
            set(),
            {"reserve", "wait", "settle", "start", "ticks"},
            set(),
        ),
    ],
)
def test_the_running_line_is_lit_and_remembered_ones_are_not_run_again(
    told: Timeline | None, status: str | None, running: set[str], done: set[str], remembered: set[str]
) -> None:
    """By what DBOS has recorded, and by nothing else."""
    found = marks(listing.durable(told, Status(status) if status else None))
    assert {does for does, mark in found.items() if mark is Mark.RUNNING} == running
    assert {does for does, mark in found.items() if mark is Mark.DONE} == done
    assert {does for does, mark in found.items() if mark is Mark.REMEMBERED} == remembered


@pytest.mark.quick
@pytest.mark.parametrize(
    ("status", "progress", "is_charged", "is_dead", "lit"),
    [
        (None, 0, False, False, ("reserve", Mark.RUNNING)),
        ("pending", 0, False, False, ("wait", Mark.RUNNING)),
        ("pending", 0, False, True, ("wait", Mark.STOPPED)),
        ("paid", 3, True, False, ("ticks", Mark.RUNNING)),
        ("paid", 3, True, True, ("ticks", Mark.STOPPED)),
    ],
)
def test_the_ordinary_lane_stops_where_it_was(
    status: str | None, progress: int, is_charged: bool, is_dead: bool, lit: tuple[str, Mark]
) -> None:
    """And stays there for ever."""
    lines = listing.ordinary(status, progress, is_charged=is_charged, is_dead=is_dead)
    assert [each for each in marks(lines).items() if each[1] in {Mark.RUNNING, Mark.STOPPED}] == [lit]


# --- the scenes ----------------------------------------------------------------------------------


def test_every_scene_has_its_sentence_and_its_note(open_shop: OpenShop) -> None:
    """On the projector and in the second window, in their order, and round again."""
    shop = open_shop()
    for number, scene in enumerate([*SCENES, SCENES[0]]):
        stage, notes = shop.shopper.page("/stage"), shop.shopper.page("/stage/notes")
        assert stage.heading == notes.heading == scene.sentence
        assert scene.note[:30] in notes.text
        assert press(shop.shopper, "go", number).location == "/stage"
    assert press(shop.shopper, "back", len(SCENES) + 1).status == 303
    assert place(shop)[0] == 0
    assert press(shop.shopper, "back", len(SCENES) + 2).status == 303
    assert place(shop)[0] == 0


@pytest.mark.quick
@pytest.mark.parametrize("word", ["tick", "checkpoint", "armed"])
def test_a_word_of_the_trade_is_explained_where_it_first_appears(word: str) -> None:
    """On the projector and in the notes, before or where anything that is read there uses it."""
    points = " ".join(point.words for point in CRASH_POINTS.values())
    explained = False
    for scene in SCENES:
        said = f"{scene.sentence} {scene.note} {points if scene.name == 'choose' else ''}"
        explained = explained or word in {term.word for term in scene.terms}
        assert explained or not re.search(rf"\b{word}s?\b", said), scene.name


def test_the_notes_read_only_what_they_show(open_shop: OpenShop) -> None:
    """They say what to say also where something of the projector's page cannot be read."""
    shop = open_shop()
    shop.tables.change("ALTER TABLE armed_crashes RENAME TO away")
    assert shop.shopper.page("/stage").status in {500, 503}
    for path in ("/stage/notes", "/stage/notes/now"):
        assert shop.shopper.page(path).heading == SCENES[0].sentence
    shop.tables.change("ALTER TABLE away RENAME TO armed_crashes")


def test_the_place_that_was_picked_stays_marked(open_shop: OpenShop) -> None:
    """In the list and beside both tracks, with the server that died there; until another sale is shown."""
    # The ordinary sale is charged after one tick, by when the durable one must have died at its charge.
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=1.5)
    choose = [scene.name for scene in SCENES].index("choose")
    for moves in range(choose):
        press(shop.shopper, "go", moves)
    shop.shopper.submit("/stage/crashes/charge", do="arm")
    assert "next: it dies here" in shop.shopper.page("/stage").text
    with suppress(OSError, HTTPException):  # it may die before it has answered
        press(shop.shopper, "act", choose)
    assert shop.server.wait_for_death() == -9
    shop.server.restart()
    if place(shop)[1] == 0:  # then a browser sends it again
        press(shop.shopper, "act", choose)
    page = eventually(
        lambda: shop.shopper.page("/stage").text,
        lambda text: "paid and shipped" in text,
        timeout_seconds=60,
    )
    marked = re.findall(r'class="point fired".*?<strong>(.*?)</strong>', page, re.DOTALL)
    assert marked == ["⚡ server 1 died here"]
    # The point is of the durable sale: the ordinary one was elsewhere.
    assert re.findall(r"⚡ Server 1 died(.*?)</p>", page) == [" at point 3", ""]
    assert "next: it dies here" not in page
    # The ordinary sale died before its charge, and that is not what the total is of.
    assert "<span>This sale:</span> reserved, never charged" in page
    assert page.count("All sales so far: <strong>0 cheated<") == 2
    assert shop.tables.rows("SELECT executor, point FROM fired_crashes") == [(1, "charge")]
    press(shop.shopper, "act", choose + 1)
    assert "died here" not in shop.shopper.page("/stage").text
    assert not shop.tables.faults()


def test_a_press_counts_once(open_shop: OpenShop) -> None:
    """Whether it is sent twice, or comes from a window that was behind: nothing moves, and it is said."""
    shop = open_shop()
    assert press(shop.shopper, "go", 0).status == 303
    again = press(shop.shopper, "go", 0)
    assert again.status == 409
    assert place(shop) == (1, 0, 1)
    for do, moves in [("go", "x"), ("jump", "1"), ("", "")]:
        assert shop.shopper.submit("/stage", do=do, moves=moves).status == 400
    assert press(shop.shopper, "act", 1).status == 303
    assert press(shop.shopper, "act", 1).status == 409
    assert shop.tables.rows("SELECT count(*) FROM naive_runs") == [(1,)]
    assert len(shop.tables.orders()) == 1
    assert place(shop) == (1, 1, 2)


def test_a_scene_sells_in_both_lanes_and_may_crash(open_shop: OpenShop) -> None:
    """The naive lane has taken the money and never ships; the durable one has."""
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=0.5)
    for moves in range(2):
        press(shop.shopper, "go", moves)
    with suppress(OSError, HTTPException):  # it may die before it has answered
        press(shop.shopper, "act", 2)
    assert shop.server.wait_for_death() == -9
    shop.server.restart()
    if place(shop) == (2, 0, 2):  # then a browser sends it again
        press(shop.shopper, "act", 2)
    eventually(lambda: list(shop.tables.orders().values()), lambda ended: ended == ["dispatched"])
    page = eventually(
        lambda: shop.shopper.page("/stage").text,
        lambda text: "All sales so far: <strong>1 cheated, $99.99" in text,
    )
    assert "line stopped" in page
    assert "paid, and never shipped" in page
    press(shop.shopper, "go", 3)
    page = shop.shopper.page("/stage").text
    assert "All sales so far: <strong>0 cheated<" in page
    assert "paid and shipped" in page
    assert page.count("line remembered") == 4
    assert not shop.tables.faults()


def test_a_sale_that_is_refused_holds_nothing_up(open_shop: OpenShop) -> None:
    """It is said, no crash is left armed for somebody else, and the next press sells."""
    shop = open_shop(STORE_UNPAID_PER_CLIENT=1)
    held = shop.shopper.hold()
    for moves in range(2):
        press(shop.shopper, "go", moves)
    for _ in range(2):
        assert press(shop.shopper, "act", 2).status == 409
    assert shop.tables.rows("SELECT point FROM armed_crashes") == []
    assert place(shop) == (2, 0, 2)
    shop.shopper.confirm(held)
    shop.shopper.wait_for(held, "Dispatched")
    with suppress(OSError, HTTPException):  # it may die before it has answered
        press(shop.shopper, "act", 2)
    assert shop.server.wait_for_death() == -9


def test_the_crash_of_a_scene_is_for_its_own_sale(open_shop: OpenShop) -> None:
    """Somebody else's order that passes tick 5 first goes on."""
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=0.2)
    for moves in range(2):
        press(shop.shopper, "go", moves)
    other = shop.shopper.buy()
    shop.shopper.confirm(other)
    progress_of_other = "SELECT progress FROM orders WHERE payment_id = :id"
    eventually(lambda: shop.tables.rows(progress_of_other, id=other)[0].progress, bool)
    with suppress(OSError, HTTPException):  # it may die before it has answered
        press(shop.shopper, "act", 2)
    assert shop.server.wait_for_death() == -9
    [(progress,)] = shop.tables.rows(progress_of_other, id=other)
    assert progress >= 5
    assert shop.tables.rows("SELECT progress FROM orders WHERE payment_id <> :id", id=other) == [(5,)]


def test_every_sale_is_a_crash(open_shop: OpenShop) -> None:
    """One for each, until it is ended; nothing is lost or doubled."""
    shop = open_shop()
    assert shop.shopper.submit("/stage/every_sale", do="begin").status == 303
    for count in (1, 2):
        with suppress(OSError, HTTPException):  # it dies over the click
            shop.shopper.submit("/buy", key=f"every-sale-{count}")
        assert shop.server.wait_for_death() == -9
        shop.server.restart()
        assert len(shop.tables.orders()) == count
    assert shop.shopper.submit("/stage/every_sale", do="end").status == 303
    shop.shopper.buy()
    assert list(shop.tables.orders().values()) == ["pending"] * 3
    assert shop.shopper.submit("/stage/every_sale", do="explode").status == 400
    assert not shop.tables.faults()


def test_nobody_else_finds_the_stage(open_shop: OpenShop) -> None:
    """Off, it is not found; behind a password, it is asked for."""
    off, guarded = open_shop(STORE_TRUSTED_PROXIES=1), open_shop(STORE_PRESENTER_PASSWORD=PASSWORD)
    for path in ("/stage", "/stage/now", "/stage/notes", "/stage/notes/now", "/stage/crashes"):
        assert off.shopper.page(path).status == 404
        assert guarded.shopper.page(path).location == f"/stage/sign_in?next={path}"
        assert guarded.shopper.get(path).status == 401
    for path in ("/stage", "/stage/every_sale"):
        assert off.shopper.submit(path, do="go", moves="0").status == 404
        assert guarded.shopper.submit(path, do="go", moves="0").status == 401
    assert is_one_sentence(off.shopper.get("/stage", Accept="application/json").json["error"])
