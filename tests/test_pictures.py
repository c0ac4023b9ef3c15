"""The track and the timeline as functions: what is placed where, and which words are said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from store.reads import timeline
from store.reads.crashes import Crash, Start
from store.reads.timeline import Fate, Mending
from store.web.track import LEFT, STEP, Track
from store.web.waterfall import WIDTH, Waterfall, duration

pytestmark = pytest.mark.quick
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_ORDER = {"order_id": 1, "status": "paid", "reason": None, "price_cents": 9999, "has_been_paid": True}


def at(ms: float) -> datetime:
    """So many ms after the beginning."""
    return _BEGAN + timedelta(milliseconds=ms)


def crash(dead: int, died: float, back: float | None, progress: int = 0, adopter: int = 0) -> Crash:
    """The crash of a server, taken up by the next one unless another is named."""
    return Crash(
        dead=dead,
        came_at=at(died),
        was_seen=True,
        adopter=adopter or dead + 1,
        adopter_pid=100 + dead,
        back_at=None if back is None else at(back),
        progress=progress,
    )


def step(name: str, began: float, ended: float, output: Any = None) -> dict[str, Any]:
    """A step as DBOS lists it."""
    since = _BEGAN.timestamp() * 1000
    return {
        "function_name": name,
        "output": output,
        "started_at_epoch_ms": int(since + began),
        "completed_at_epoch_ms": int(since + ended),
    }


def made(ms: float) -> dict[str, Any]:
    """What a step returned whose change was made then."""
    return {**_ORDER, "updated_at_ms": int(_BEGAN.timestamp() * 1000 + ms)}


STARTS = [Start(1, at(-1000)), Start(2, at(101)), Start(3, at(201))]


# --- what became of each step -------------------------------------------------------------------


def test_a_step_ran_was_remembered_or_was_run_again() -> None:
    """By when it was recorded, and by when its change was made, on both sides of a crash."""
    story = timeline.of(
        [
            step("reserve", 0, 10, made(5)),
            step("settle", 120, 130, made(90)),  # made by the server that died at 100
            step("tick 1", 140, 150, made(145)),
        ],
        [crash(1, 100, 110)],
        [],
        STARTS,
        {},
    )
    assert [(each.name, each.fate, each.server) for each in story.steps] == [
        ("reserve", Fate.REMEMBERED, 1),
        ("settle", Fate.RUN_AGAIN, 2),
        ("tick 1", Fate.RAN, 2),
    ]


def test_what_a_mending_finds_made_was_run_again() -> None:
    """It runs a workflow from its first line, without any crash."""
    story = timeline.of(
        [step("reserve", 60, 70, made(5))], [], [Mending("It stood still.", at(50))], STARTS, {}
    )
    assert [each.fate for each in story.steps] == [Fate.RUN_AGAIN]
    assert [row.words for row in Waterfall.of(story).rows] == [
        "Found stuck, and run again",
        "Took a unit off the shelf",
    ]


def test_a_sleep_was_recorded_when_it_began() -> None:
    """DBOS writes down when it will be over; a crash within it comes after the record."""
    story = timeline.of([step("DBOS.sleep", 10, 30_000, 1.0)], [crash(1, 100, 110)], [], STARTS, {})
    [slept] = story.steps
    assert (slept.ended_at, slept.fate, slept.server) == (at(10), Fate.REMEMBERED, 1)


# --- the waterfall ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [None, "gASVtext", [], {}, {"order_id": 1, "status": "pending", "pay_by_ms": 1}],
    ids=["nothing", "a pickle", "a list", "an object", "of version 1"],
)
@pytest.mark.parametrize(
    "name", ["reserve", "settle", "sign the online guestbook", "DBOS.recv", "tick 1", "else"]
)
def test_whatever_a_step_returned_it_has_words(name: str, output: Any) -> None:
    """Earlier shops returned less, and what is no JSON cannot be read: then it is called by its name."""
    [row] = Waterfall.of(timeline.of([step(name, 0, 1, output)], [], [], STARTS, {})).rows
    assert row.words
    assert row.technical == name


def test_in_short_the_ticks_of_one_fate_are_one_row() -> None:
    """The one that was run again stands by itself, and is explained; what only DBOS needs is left out."""
    steps = [step("reserve", 0, 10, made(5)), step("DBOS.setEvent", 10, 11)]
    steps += [step(f"tick {tick}", 20 * tick, 20 * tick + 10, made(20 * tick + 5)) for tick in range(1, 4)]
    steps += [step("tick 4", 200, 210, made(90))]  # made by the server that died at 100
    steps += [
        step(f"tick {tick}", 100 + 30 * tick, 110 + 30 * tick, made(105 + 30 * tick)) for tick in (5, 6)
    ]
    whole = Waterfall.of(timeline.of(steps, [crash(1, 100, 110)], [], STARTS, {}))
    short = whole.in_short()
    assert [row.words for row in short.rows] == [
        "Took a unit off the shelf",
        "Ticks 1 to 3 of 10",
        "Server 1 died",
        "Tick 4 of 10",
        "Ticks 5 to 6 of 10",
    ]
    first, last = (next(row for row in whole.rows if row.technical == f"tick {tick}") for tick in (1, 3))
    assert short.rows[1].bar.x == first.bar.x
    assert short.rows[1].bar.width == pytest.approx(last.bar.x + last.bar.width - first.bar.x, abs=0.1)
    assert short.explains.startswith("Run again safely: ")
    assert Waterfall.of(timeline.of(steps[:3], [], [], STARTS, {})).explains == ""


@pytest.mark.parametrize(
    ("name", "output", "words"),
    [
        ("reserve", {**_ORDER, "status": "pending"}, "Took a unit off the shelf"),
        ("reserve", {**_ORDER, "status": "cancelled", "reason": "sold_out"}, "Found the shelf empty"),
        ("reserve", {**_ORDER, "status": "refused"}, "Refused: too many unpaid units"),
        ("settle", _ORDER, "Charged $99.99"),
        ("settle", {**_ORDER, "status": "lost"}, "Found no order to settle"),
        (
            "settle",
            {**_ORDER, "status": "cancelled", "reason": "declined", "has_been_paid": False},
            "Cancelled it; the unit went back on the shelf",
        ),
        ("DBOS.recv", None, "Waited for the payment: no word came"),
        ("DBOS.recv", "paid", "Waited for the payment: paid"),
        ("sign the online guestbook", {"signature": 7}, "Signed the online guestbook as No. 7"),
        ("sign the online guestbook", {"signature": 0}, "Asked the online guestbook in vain"),
        ("wait 2", 1, "Waited, 2 of 5"),
        ("tick 3", _ORDER, "Tick 3 of 10"),
    ],
)
def test_a_step_is_told_in_plain_words(name: str, output: Any, words: str) -> None:
    """As its shopper would say it, by what it returned."""
    [row] = Waterfall.of(timeline.of([step(name, 0, 1, output)], [], [], STARTS, {})).rows
    assert row.words == words


def test_a_long_wait_is_cut_short_and_everything_stays_in_the_picture() -> None:
    """Two minutes in which nothing happens take no room from two steps of 10 ms."""
    story = timeline.of(
        [step("reserve", 0, 10, made(5)), step("settle", 120_000, 120_010, made(120_005))],
        [crash(1, 60_000, 60_500)],
        [],
        STARTS,
        {},
    )
    picture = Waterfall.of(story)
    assert len(picture.cuts) == 2
    bars = [row.bar for row in picture.rows] + list(picture.dark) + list(picture.servers)
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH + 0.2 for bar in bars)
    assert [row.kind for row in picture.rows] == ["step", "crash", "step"]
    assert picture.rows[0].bar.x < picture.rows[1].bar.x < picture.rows[2].bar.x


@pytest.mark.parametrize(
    ("ms", "said"), [(0.4, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (-3_600_000, "0 ms")]
)
def test_a_length_of_time_is_said_as_people_read_it(ms: float, said: str) -> None:
    """And is never less than nothing, though a clock was set back."""
    assert duration(timedelta(milliseconds=ms)) == said


# --- the track ----------------------------------------------------------------------------------


def test_a_crack_stands_where_its_crash_came_and_is_as_wide_as_it_was_dark() -> None:
    """Between the last tick that was done and the next."""
    track = Track.of("order 1", 7, [crash(1, 0, 200, progress=0), crash(2, 0, 900, progress=4)])
    narrow, wide = track.cracks
    assert LEFT < narrow.x < LEFT + STEP
    assert LEFT + 4 * STEP < wide.x < LEFT + 5 * STEP
    assert (narrow.dark_ms, wide.dark_ms) == (200, 900)
    assert narrow.width < wide.width
    assert [is_done for _, is_done in track.beads].count(True) == 7


@pytest.mark.parametrize(
    ("crashes", "dark_ms"),
    [
        ([crash(1, 0, 200), crash(2, 300, 400)], 300),
        # The second died while it took over: both were taken up by the third at the same moment.
        ([crash(1, 0, 500, adopter=3), crash(2, 200, 500)], 500),
        ([crash(1, 0, 200), crash(2, 300, None)], None),
    ],
    ids=["one after the other", "one within the other", "not over"],
)
def test_darkness_counts_once(crashes: list[Crash], dark_ms: int | None) -> None:
    """Of crashes at one tick, which are one crack."""
    [crack] = Track.of("order 1", 3, crashes).cracks
    assert crack.dark_ms == dark_ms


def test_labels_that_would_meet_stand_in_two_lines() -> None:
    """Of cracks at one tick after the other."""
    track = Track.of("order 1", 9, [crash(n, 0, 100, progress=n) for n in (1, 2, 3, 6)])
    assert [crack.is_lower for crack in track.cracks] == [False, True, False, False]


def test_a_flag_stands_where_other_code_went_on() -> None:
    """In the track and in the timeline; not where the code is the same, or nobody knows."""
    starts = [Start(1, at(-1000), "a"), Start(2, at(101), "a"), Start(3, at(201), "b"), Start(4, at(301), "")]
    steps = [
        step("tick 1", 0, 90),
        step("tick 2", 110, 190),
        step("tick 3", 210, 290),
        step("tick 4", 310, 390),
    ]
    story = timeline.of(steps, [], [], starts, {})
    [deploy] = story.deploys
    assert (deploy.server, deploy.progress) == (3, 2)
    [flag] = Track.of("order 1", 4).with_deploys(story.deploys).flags
    assert LEFT + 2 * STEP < flag.x < LEFT + 3 * STEP
    rows = Waterfall.of(story).rows
    assert [row.kind for row in rows] == ["step", "step", "deploy", "step", "step"]
    assert (rows[2].words, rows[2].fate) == ("New code", "Server 3 goes on, with another version")


def test_a_naive_twin_stops() -> None:
    """For ever, where its first crash found it."""
    twin = Track.of("the naive order", 3, is_stopped=True)
    assert (twin.is_stopped, twin.is_whole) == (True, False)
    assert Track.of("order 1", 10).is_whole
