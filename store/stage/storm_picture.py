"""The verdict of a storm as one picture: time across, a dot for each request, the deaths as lines.

Computed in the units of the picture, so that the template only places what is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from store.money import price
from store.stage.storm_state import Plan, Request, RequestOutcome

_LEFT, _RIGHT, _TOP, _BOTTOM = 96.0, 1568.0, 150.0, 610.0
_FASTEST_MS, _SLOWEST_MS = 4.0, 20_000.0
_CELL = 3
"""Requests that would lie closer than this are one dot: more could not be told apart."""
_GRID = {10: "10 ms", 100: "0.1 s", 1000: "1 s", 10_000: "10 s"}
_STEPS = (5, 10, 20, 30, 60, 120)
"""Seconds between two marks below."""
_MOST_MARKS = 10

WORDS = {
    RequestOutcome.ANSWERED: "answered",
    RequestOutcome.SENT_AGAIN: "sent again, and answered",
    RequestOutcome.REFUSED: "refused",
    RequestOutcome.UNANSWERED: "unanswered",
}
"""What the legend calls each outcome."""
LIGHT = {
    "paper": "#fffdf8", "ink": "#1c2523", "muted": "#5a625d", "line": "#ddd4c0", "dark": "#e4d3cc",
    "good": "#0d5c4b", "again": "#b9822b", "bad": "#9a2f1f",
}  # fmt: skip
DARK = {
    "paper": "#1a2220", "ink": "#f2ecdd", "muted": "#a9b2ab", "line": "#33403b", "dark": "#4a2f2a",
    "good": "#6fd3b4", "again": "#e6bd6e", "bad": "#ff9d8a",
}  # fmt: skip


@dataclass(frozen=True)
class Death:
    """One death of the server, in ms since the storm began."""

    at_ms: int
    back_ms: int | None
    """When the next one had taken up its work; None if none has."""


@dataclass(frozen=True)
class Naive:
    """What became of the same sales in the ordinary shop."""

    sales: int
    cheated: int
    """Customers who have paid, and get nothing."""
    cents: int


@dataclass(frozen=True)
class Result:
    """What a storm came to, as far as the picture says it."""

    plan: Plan
    orders: int
    lost: int
    doubled: int
    is_ok: bool
    requests: Sequence[Request]
    deaths: Sequence[Death]
    naive: Naive | None = None
    paid: int = 0
    """Of the orders, where that is known."""
    sentence: str = ""
    """The verdict in words; made up here where it is empty."""


@dataclass(frozen=True)
class Band:
    """One death: its line, and the time in which nobody was there."""

    x: float
    width: float


@dataclass(frozen=True)
class Dots:
    """All requests of one outcome."""

    outcome: str
    words: str
    count: int
    path: str


@dataclass(frozen=True)
class Picture:
    """What the template draws."""

    title: str
    summary: str
    verdict: str
    is_ok: bool
    naive: str
    dots: tuple[Dots, ...]
    bands: tuple[Band, ...]
    marks: tuple[tuple[float, str], ...]
    grid: tuple[tuple[float, str], ...]
    end_x: float
    """Where the last shopper came in."""
    left: float = _LEFT
    right: float = _RIGHT
    top: float = _TOP
    bottom: float = _BOTTOM
    colours: dict[str, str] = field(default_factory=lambda: LIGHT)

    @classmethod
    def of(cls, result: Result, colours: dict[str, str]) -> Picture:
        """The picture of a storm."""
        plan, deaths = result.plan, result.deaths
        last_ms = max([1000 * plan.seconds, *(each.at_ms + each.took_ms for each in result.requests)])
        scale = _Scale(last_ms)
        paid = f", {result.paid:,} of them paid" if result.paid else ""
        return cls(
            title="Requests to the Widget Store in a storm of SIGKILLs",
            summary=(
                f"{_count(plan.shoppers, 'shopper')}, {plan.seconds} s, seed {plan.seed}: "
                f"{_count(len(deaths), 'death')} of the server, {_count(result.orders, 'order')}{paid}, "
                f"{_count(len(result.requests), 'request')}."
            ),
            verdict=result.sentence or sentence_of(result),
            is_ok=result.is_ok,
            naive="" if result.naive is None else _of_naive(result.naive),
            dots=tuple(_dots(outcome, result.requests, scale) for outcome in RequestOutcome),
            bands=tuple(_band(death, scale) for death in deaths),
            marks=tuple(_marks(last_ms, scale)),
            grid=tuple((scale.y(ms), words) for ms, words in _GRID.items()),
            end_x=scale.x(1000 * plan.seconds),
            colours=colours,
        )


def sentence_of(result: Result) -> str:
    """The verdict in words."""
    facts = f"{result.lost} lost, {result.doubled} doubled."
    if result.is_ok:
        return f"{facts} The books balance, and each order is as it was shown."
    return f"{facts} Something is wrong: the storm's page and the books say what."


class _Scale:
    def __init__(self, last_ms: int) -> None:
        self._last_ms = max(last_ms, 1)

    def x(self, at_ms: float) -> float:
        share = min(max(at_ms / self._last_ms, 0.0), 1.0)
        return round(_LEFT + (_RIGHT - _LEFT) * share, 1)

    def y(self, took_ms: float) -> float:
        """Logarithmic: from what is answered at once to what waited for several servers."""
        within = min(max(took_ms, _FASTEST_MS), _SLOWEST_MS)
        share = math.log(within / _FASTEST_MS) / math.log(_SLOWEST_MS / _FASTEST_MS)
        return round(_BOTTOM - (_BOTTOM - _TOP) * share, 1)


def _dots(outcome: RequestOutcome, requests: Sequence[Request], scale: _Scale) -> Dots:
    ours = [each for each in requests if each.outcome is outcome]
    cells = {
        (round(scale.x(each.at_ms) / _CELL), round(scale.y(each.took_ms) / _CELL)): None for each in ours
    }
    # A line of no length with round ends is a dot, and takes a third of the letters of a circle.
    shape = "h0" if outcome is RequestOutcome.ANSWERED else "m-6-6l12 12m0-12l-12 12"
    if outcome is RequestOutcome.SENT_AGAIN:
        shape = "m0-6l6 6-6 6-6-6z"
    path = "".join(f"M{x * _CELL} {y * _CELL}{shape}" for x, y in cells)
    return Dots(outcome.value, WORDS[outcome], len(ours), path)


def _band(death: Death, scale: _Scale) -> Band:
    x = scale.x(death.at_ms)
    return Band(x, max(2.0, scale.x(death.back_ms) - x) if death.back_ms is not None else 2.0)


def _marks(last_ms: int, scale: _Scale) -> Iterable[tuple[float, str]]:
    seconds = last_ms / 1000
    step = next((each for each in _STEPS if seconds / each <= _MOST_MARKS), _STEPS[-1])
    for mark in range(0, int(seconds) + 1, step):
        yield scale.x(1000 * mark), f"{mark} s"


def _of_naive(naive: Naive) -> str:
    return (
        f"The ordinary shop, with the same {_count(naive.sales, 'sale')} and the same kills: "
        f"{_count(naive.cheated, 'customer')} charged {price(naive.cents)} for nothing."
    )


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}{'' if number == 1 else 's'}"
