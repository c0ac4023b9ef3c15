"""The timeline as it is shown: a row for each step in plain words, on an axis without its long waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise, zip_longest
from typing import Any

from store.money import price
from store.reads.crashes import Crash
from store.reads.timeline import Fate, Mending, Step, Timeline
from store.step_results import REFUSED
from store.vocabulary import (
    DISPATCH,
    DISPATCH_TICKS,
    GREETING_TICKS,
    Outcome,
    Reason,
    Status,
    StepName,
)

WIDTH = 1000
"""Of the axis, in the units of the picture."""
_NARROWEST = 4.0
"""The least that a step is wide, so that it is seen."""
_LONG_MS = 2500
"""A longer time in which nothing begins or ends is cut short, and the cut is drawn."""
_CUT_MS = 900
"""What is left of it."""


@dataclass(frozen=True)
class Bar:
    """A piece of the axis."""

    x: float
    width: float
    number: int = 0
    """Of the server that was there; 0 where none was."""


@dataclass(frozen=True)
class Row:
    """One line: a step, a crash, or a mending."""

    kind: str
    """`step`, `crash` or `mending`."""
    words: str
    technical: str
    """What DBOS calls it; nothing for what is no step."""
    at: datetime
    lasted: str
    """How long it took, or was dark."""
    bar: Bar
    fate: str
    """What became of it, in words."""
    fate_name: str
    """The same for a stylesheet."""


@dataclass(frozen=True)
class Waterfall:
    """The whole picture."""

    rows: tuple[Row, ...]
    servers: tuple[Bar, ...]
    """When which server was there."""
    dark: tuple[Bar, ...]
    """When none was."""
    cuts: tuple[float, ...]
    """Where a long wait was cut short."""

    @classmethod
    def of(cls, story: Timeline) -> Waterfall:
        """The picture of a story."""
        if not story.steps:
            return cls((), (), (), ())
        axis = _Axis(_instants(story))
        lines = [
            *(_row_of_step(axis, step) for step in story.steps),
            *(_row_of_crash(axis, crash) for crash in story.crashes),
            *(_row_of_mending(axis, mending) for mending in story.mendings),
        ]
        return cls(
            rows=tuple(row for _, row in sorted(lines, key=lambda line: line[0])),
            servers=tuple(_servers(axis, story)),
            dark=tuple(
                axis.bar(crash.died_at, crash.back_at)
                for crash in story.crashes
                if crash.died_at and crash.back_at
            ),
            cuts=axis.cuts,
        )


class _Axis:
    """Places instants on the picture; where nothing happens for long, time is cut short."""

    def __init__(self, instants: Iterable[datetime]) -> None:
        self._instants = sorted(set(instants))
        shown, self._shown = 0.0, [0.0]
        cuts: list[float] = []
        for before, after in pairwise(self._instants):
            ms = (after - before) / timedelta(milliseconds=1)
            shown_ms = _CUT_MS if ms > _LONG_MS else ms
            if ms > _LONG_MS:
                cuts.append(shown + shown_ms / 2)
            shown += shown_ms
            self._shown.append(shown)
        self._scale = WIDTH / shown if shown else 0.0
        self.cuts = tuple(round(cut * self._scale, 1) for cut in cuts)

    def x(self, at: datetime) -> float:
        """Where an instant is."""
        first, last = self._instants[0], self._instants[-1]
        at = min(max(at, first), last)
        index = max(i for i, instant in enumerate(self._instants) if instant <= at)
        if index == len(self._instants) - 1:
            return round(self._shown[index] * self._scale, 1)
        share = (at - self._instants[index]) / (self._instants[index + 1] - self._instants[index])
        shown = self._shown[index] + share * (self._shown[index + 1] - self._shown[index])
        return round(shown * self._scale, 1)

    def bar(self, begin: datetime, end: datetime, number: int = 0) -> Bar:
        """What is between two instants."""
        x = self.x(begin)
        width = max(self.x(end) - x, _NARROWEST)
        return Bar(min(x, WIDTH - width), round(width, 1), number)


def _instants(story: Timeline) -> Iterable[datetime]:
    for step in story.steps:
        yield from (step.began_at, step.ended_at)
    for crash in story.crashes:
        yield from (at for at in (crash.died_at, crash.back_at) if at is not None)
    for mending in story.mendings:
        yield mending.at


def _servers(axis: _Axis, story: Timeline) -> Iterable[Bar]:
    end_of_all = max(_instants(story))
    died = {crash.dead: crash.died_at for crash in story.crashes if crash.died_at}
    for start, after in zip_longest(story.starts, story.starts[1:]):
        end = died.get(start.number) or (after.at if after is not None else end_of_all)
        if start.at < end_of_all:
            yield axis.bar(start.at, min(end, end_of_all), start.number)


def _row_of_step(axis: _Axis, step: Step) -> tuple[datetime, Row]:
    fate = {
        Fate.RAN: f"Ran, server {step.server}",
        Fate.REMEMBERED: "Remembered, not run again",
        Fate.RUN_AGAIN: f"Was done before; run again safely by server {step.server}",
    }[step.fate]
    return step.ended_at, Row(
        kind="step",
        words=_words(step),
        technical=step.name,
        at=step.began_at,
        lasted=duration(step.ended_at - step.began_at),
        bar=axis.bar(step.began_at, step.ended_at, step.server),
        fate=fate,
        fate_name=step.fate.value.replace("_", "-"),
    )


def _row_of_crash(axis: _Axis, crash: Crash) -> tuple[datetime, Row]:
    back = crash.back_at or crash.successor_started_at
    return crash.came_at, Row(
        kind="crash",
        words=f"Server {crash.dead} died",
        technical="",
        at=crash.came_at,
        lasted="" if crash.dark_ms is None else f"{crash.dark_ms} ms",  # as the track says it
        bar=axis.bar(crash.came_at, back),
        fate=f"Server {crash.adopter} (process {crash.adopter_pid}) took over"
        if crash.back_at
        else f"Server {crash.adopter} is taking over",
        fate_name="crash",
    )


def _row_of_mending(axis: _Axis, mending: Mending) -> tuple[datetime, Row]:
    return mending.at, Row(
        kind="mending",
        words="Found stuck, and run again" if mending.reason else "Run again by the presenter",
        technical="",
        at=mending.at,
        lasted="",
        bar=axis.bar(mending.at, mending.at),
        fate=mending.reason or "From its first line, under the same id",
        fate_name="mending",
    )


def duration(length: timedelta) -> str:
    """A length of time as people read it."""
    ms = max(0, round(length / timedelta(milliseconds=1)))  # a clock may have been set back meanwhile
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


# --- words ------------------------------------------------------------------------------


def _words(step: Step) -> str:
    """What a step did, as its shopper would say it; by its name where that is of an earlier shop."""
    kind, _, number = step.name.rpartition(" ")
    if kind == StepName.TICK:
        return f"Tick {number} of {DISPATCH_TICKS}"
    if kind == StepName.WAIT:
        return f"Waited, {number} of {GREETING_TICKS}"
    if step.name == "DBOS.recv":
        return _words_of_message(step.output)
    say, keys = _SAYS.get(step.name, (step.name, frozenset()))
    if isinstance(say, str):
        return say
    # Earlier shops returned less; and what cannot be read is a text.
    return say(step.output) if isinstance(step.output, dict) and keys <= step.output.keys() else step.name


def _words_of_reserve(output: Any) -> str:
    if output["status"] == REFUSED:
        return "Refused: too many unpaid units"
    return "Found the shelf empty" if output["reason"] == Reason.SOLD_OUT else "Took a unit off the shelf"


def _words_of_settle(output: Any) -> str:
    if output["status"] == Status.PENDING:
        return "Looked whether it is decided: not yet"
    if output["status"] not in {Status.PAID, Status.DISPATCHED, Status.CANCELLED}:
        return "Found no order to settle"
    if output["status"] == Status.CANCELLED:
        refunded = f"; refunded {price(output['price_cents'])}" if output["has_been_paid"] else ""
        return f"Cancelled it; the unit went back on the shelf{refunded}"
    return f"Charged {price(output['price_cents'])}"


def _words_of_message(output: Any) -> str:
    if output is None:
        return "Waited for the payment: no word came"
    heard = {str(Outcome.PAID): ": paid", str(Outcome.FAILED): ": cancelled"}.get(str(output), "")
    return f"Waited for the payment{heard}"


def _words_of_signing(output: Any) -> str:
    signature = output["signature"]
    return (
        f"Signed the online guestbook as No. {signature}"
        if signature
        else "Asked the online guestbook in vain"
    )


_OF_AN_ORDER = frozenset({"status", "reason", "price_cents", "has_been_paid"})
_SAYS: dict[str, tuple[str | Callable[[Any], str], frozenset[str]]] = {
    StepName.RESERVE: (_words_of_reserve, _OF_AN_ORDER),
    StepName.SETTLE: (_words_of_settle, _OF_AN_ORDER),
    DISPATCH: ("Started the dispatch", frozenset()),
    StepName.BEGIN: ("Began the greeting", frozenset()),
    StepName.SIGN: (_words_of_signing, frozenset({"signature"})),
    StepName.RECORD: ("Wrote it into our own book", frozenset()),
    StepName.END: ("Gave the greeting up", frozenset()),
    "DBOS.setEvent": ("Told the page", frozenset()),
    "DBOS.sleep": ("Set the time at which to go on", frozenset()),
}
"""By the name of the step: what it did, or how that is said, and what its output must have for that."""
