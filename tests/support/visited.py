"""What the explorer has visited of one order: the states in which a killed server may leave it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from store.explore.canonical import key_of
from store.explore.database import Rows
from store.explore.deadlines import PAYMENT_ID, PROGRESS, REASON, STATUS
from store.explore.scenarios import Scenario
from store.explore.shop import Candidate, ExploredShop, State
from store.explore.turns import TICKS_IN_ONE_GO
from store.explore.world import World
from store.vocabulary import DISPATCH_TICKS, dispatch_id

_STEPS = {"the deadline of the wait": "DBOS.sleep", "receive": "DBOS.recv", "start dispatch": "dispatch"}
"""What DBOS calls them."""
_MANY_TICKS = "some of tick 3 to tick 9"


OrderLeft = tuple[str, str | None, str] | None


@dataclass(frozen=True)
class Left:
    """What both databases have of one order, without its numbers, amounts and times."""

    order: OrderLeft
    """Status, reason, and progress, in which the ticks from the third to the last but one are one."""
    movements: tuple[str, ...]
    payments: tuple[str, ...]
    notices: tuple[str, ...]
    workflows: tuple[tuple[str, tuple[str, ...]], ...]
    """Of the checkout and the dispatch, as far as there are any: status, and what is checkpointed."""
    events: tuple[str, ...]
    is_message_received: tuple[bool, ...]


def order_as_left(orders: Iterable[Any]) -> OrderLeft:
    """Of the row of an order, if there is one: its status, its reason, its progress."""
    for status, reason, progress in orders:
        return status, reason, _MANY_TICKS if 2 < progress < DISPATCH_TICKS else str(progress)
    return None


def workflow_as_left(
    status: str, steps: Iterable[str], order: OrderLeft = None
) -> tuple[str, tuple[str, ...]]:
    """Of a workflow: whether it is under way, and what is checkpointed.

    Of a dispatch with its order: the explorer has the ticks that are one checkpointed where they commit.
    """
    is_open, steps = status in {"ENQUEUED", "PENDING"}, list(steps)
    names = [step for step in steps if step not in TICKS_IN_ONE_GO]
    if len(names) < len(steps) or (order is not None and order[2] == _MANY_TICKS):
        names.append(_MANY_TICKS)
    return "PENDING" if is_open else status, tuple(sorted(names))


@dataclass(frozen=True)
class _Move:
    start: int
    end: int
    kind: str
    mover: str | int
    """The workflow, or the action that is asked for."""
    says: str
    started: frozenset[str]
    """The workflows that it starts: they do nothing before it is over."""
    may_die: bool
    """Whether a server may die before or after it. Where none may, a commit and its checkpoint are one."""


class Visited:
    """Every state of a scenario in which A buys."""

    def __init__(self, scenario: Scenario) -> None:
        self._moves: list[_Move] = []
        self._left: list[Left] = []
        self._ends: set[int] = set()
        self._after: dict[int, list[_Move]] = {}
        shop = ExploredShop(scenario)
        with shop.open():
            self._visit(shop)
        for move in self._moves:
            self._after.setdefault(move.start, []).append(move)

    def _visit(self, shop: ExploredShop) -> None:
        first = shop.first_state()
        numbers, waiting = {key_of(first.store, first.open()): 0}, [first]
        self._left.append(_left_in(first.store.rows, first.open()))
        for number, state in enumerate(waiting):  # it grows meanwhile
            before = state.open()
            for candidate, says, following, world in _moves_from(shop, state):
                key = key_of(following.store, world)
                if key not in numbers:
                    numbers[key] = len(waiting)
                    waiting.append(following)
                    self._left.append(_left_in(following.store.rows, world))
                self._moves.append(
                    _Move(
                        number,
                        numbers[key],
                        candidate[0],
                        _mover(before, candidate),
                        says,
                        started=frozenset(world.workflows.keys() - before.workflows.keys()),
                        may_die=before.crashes > 0,
                    )
                )
        self._ends = set(range(len(waiting))) - {
            move.start for move in self._moves if move.kind not in {"act", "crash"}
        }

    def around(self, moment: str, words: str) -> set[Left]:
        """What may be there `before` or `after` a move that says so, while others go on with theirs."""
        found: set[Left] = set()
        for move in self._moves:
            if move.may_die and re.search(words, move.says):
                number = move.start if moment == "before" else move.end
                others = self._while_others_move(number, {move.mover, *move.started})
                found |= {self._left[each] for each in others}
        return found

    def _while_others_move(self, number: int, still: set[str | int]) -> Iterator[int]:
        seen, waiting = {number}, [number]
        for state in waiting:  # it grows meanwhile
            yield state
            for move in self._after.get(state, ()):
                is_other = move.kind in {"run", "request"} and move.mover not in still
                if is_other and move.end not in seen:
                    seen.add(move.end)
                    waiting.append(move.end)

    def at_rest(self) -> set[Left]:
        """How it may end."""
        return {self._left[each] for each in self._ends}


def _moves_from(shop: ExploredShop, state: State) -> Iterator[tuple[Candidate, str, State, World]]:
    """All moves; time passes where nothing else moves, as it does for a server that is fast."""
    candidates = list(shop.candidates(state, state.open()))
    has_moved = False
    for candidate in sorted(candidates, key=lambda each: each[0] == "time"):
        if candidate[0] == "time" and has_moved:
            return
        move = shop.make(state, candidate)
        if move is None:
            continue
        has_moved = has_moved or candidate[0] != "crash"
        yield candidate, f"{move.who}: {move.says}", move.state, move.world


def _mover(world: World, candidate: Candidate) -> str | int:
    kind, *which = candidate
    if kind == "run":
        return world.runs[which[0]].workflow_id
    if kind == "request":
        return world.requests[which[0]].action
    return int(which[0]) if kind == "act" else kind


def _left_in(rows: Rows, world: World) -> Left:
    orders = [row for row in rows["orders"] if row[PAYMENT_ID] == "A"]
    workflows = [world.workflows.get(each) for each in ("A", dispatch_id("A"))]
    return Left(
        order_as_left((row[STATUS], row[REASON], row[PROGRESS]) for row in orders),
        tuple(sorted(row[0] for row in rows["stock_movements"] if row[1] == "A")),
        tuple(sorted(row[0] for row in rows["payments"])),
        tuple(row[1] for row in sorted(rows["payment_notices"], key=lambda row: row[2])),
        tuple(workflow_as_left(each.status, _named_as_by_dbos(each.steps)) for each in workflows if each),
        tuple(sorted(name for _, name in world.events)),
        tuple(was_received for key, (_, was_received) in world.messages.items() if key == "A"),
    )


def _named_as_by_dbos(steps: Iterable[tuple[str, Any]]) -> list[str]:
    """Several events are one name there, too."""
    return ["DBOS.setEvent" if name.startswith("event ") else _STEPS.get(name, name) for name, _ in steps]
