"""The timeline as it is shown: a row for each step in plain words, on an axis without its long waits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby, pairwise, zip_longest

from store.reads.crashes import Crash
from store.reads.timeline import Deploy, Fate, Mending, Step, Timeline
from store.vocabulary import DISPATCH_TICKS, StepName
from store.web.step_words import words_of

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
    """One line: a step, a crash, a deploy, or a mending."""

    kind: str
    """`step`, `crash`, `deploy` or `mending`."""
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
            *(_row_of_deploy(axis, deploy) for deploy in story.deploys),
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

    def in_short(self) -> Waterfall:
        """For a projector: ticks that had the same fate are one row, and what only DBOS needs is left out."""
        told = [row for row in self.rows if row.technical not in _OF_DBOS_ALONE]
        groups = groupby(told, key=lambda row: row.fate if _is_tick(row) else id(row))
        return replace(self, rows=tuple(_in_one(list(rows)) for _, rows in groups))

    @property
    def explains(self) -> str:
        """What must be said of a step that was run again; nothing where none was."""
        if not any(row.fate_name == _name_of(Fate.RUN_AGAIN) for row in self.rows):
            return ""
        return (
            "Run again safely: it was done, and the server died before that was written down. "
            "Done again, it found its own work and changed nothing."
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
    yield from (deploy.at for deploy in story.deploys)
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
        words=words_of(step),
        technical=step.name,
        at=step.began_at,
        lasted=duration(step.ended_at - step.began_at),
        bar=axis.bar(step.began_at, step.ended_at, step.server),
        fate=fate,
        fate_name=_name_of(step.fate),
    )


def _name_of(fate: Fate) -> str:
    return fate.value.replace("_", "-")


def _is_tick(row: Row) -> bool:
    return row.technical.startswith(f"{StepName.TICK} ")


def _in_one(rows: list[Row]) -> Row:
    """The ticks of one fate as one row."""
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return first
    numbers = first.technical.rpartition(" ")[2], last.technical.rpartition(" ")[2]
    width = last.bar.x + last.bar.width - first.bar.x
    return replace(
        first,
        words=f"Ticks {numbers[0]} to {numbers[1]} of {DISPATCH_TICKS}",
        technical=f"{first.technical} … {numbers[1]}",
        lasted="",
        bar=replace(first.bar, width=round(width, 1)),
    )


def _row_of_crash(axis: _Axis, crash: Crash) -> tuple[datetime, Row]:
    back = crash.back_at or crash.came_at
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


def _row_of_deploy(axis: _Axis, deploy: Deploy) -> tuple[datetime, Row]:
    return deploy.at, Row(
        kind="deploy",
        words="New code",
        technical="",
        at=deploy.at,
        lasted="",
        bar=axis.bar(deploy.at, deploy.at),
        fate=f"Server {deploy.server} goes on, with another version",
        fate_name="deploy",
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


_OF_DBOS_ALONE = frozenset({"DBOS.setEvent", "DBOS.sleep"})
