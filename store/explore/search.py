"""Breadth first through all states of a scenario, so that the first violation is a shortest one."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from store.explore import invariants
from store.explore.canonical import key_of
from store.explore.invariants import Invariants
from store.explore.scenarios import Scenario
from store.explore.shop import OPTIONAL, Candidate, ExploredShop, Move, State

Report = Callable[[int, int], None]
"""Told now and then how many states are known, and how many of them were looked at."""
_BETWEEN_REPORTS = 200


@dataclass(frozen=True)
class Violation:
    """A state that must not be, and how one comes there."""

    scenario: str
    path: tuple[Candidate, ...]
    wrong: tuple[str, ...]


@dataclass
class Found:
    """What a search has seen."""

    scenario: str
    states: int = 0
    moves: int = 0
    schedules: int = 0
    """Ways from the first state to one at rest, each a different order of moves."""
    at_rest: int = 0
    violations: list[Violation] = field(default_factory=list)


def search(
    scenario: Scenario,
    report: Report = lambda _known, _done: None,
    *,
    most_violations: int = 1,
    most_states: int = 10_000_000,
) -> Found:
    """Look at every state of a scenario; ends early once so many violations are found."""
    return _Search(scenario, report, most_violations, most_states).run()


class _Search:
    def __init__(self, scenario: Scenario, report: Report, most_violations: int, most_states: int) -> None:
        self._report, self._most_violations, self._most_states = report, most_violations, most_states
        self._shop = ExploredShop(scenario)
        self._invariants = Invariants(self._shop.store)
        self._found = Found(scenario.name)
        self._numbers: dict[bytes, int] = {}
        self._came_by: list[tuple[int, Candidate]] = []
        """Of each state but the first: from which, and by which move."""
        self._edges: tuple[array[int], array[int]] = (array("i"), array("i"))
        self._ends: list[int] = []
        self._waiting: deque[tuple[int, State]] = deque()

    def run(self) -> Found:
        """The search."""
        with self._shop.open():
            first = self._shop.first_state()
            self._numbers[key_of(first.store, first.open())] = 0
            self._came_by.append((-1, ()))
            self._waiting.append((0, first))
            done = 0
            while self._waiting and not self._is_enough():
                self._look_at(*self._waiting.popleft())
                done += 1
                if done % _BETWEEN_REPORTS == 0:
                    self._report(len(self._numbers), done)
        self._found.states = len(self._numbers)
        self._found.at_rest = len(self._ends)
        if not self._found.violations:
            self._found.schedules = self._count_schedules()
        self._report(len(self._numbers), len(self._numbers))
        return self._found

    def _is_enough(self) -> bool:
        return len(self._found.violations) >= self._most_violations or len(self._numbers) >= self._most_states

    def _look_at(self, number: int, state: State) -> None:
        world = state.open()
        moves_on = False
        for candidate in self._shop.candidates(state, world):
            move = self._shop.make(state, candidate)
            if move is not None:
                moves_on = moves_on or candidate[0] not in OPTIONAL
                self._go(number, state, candidate, move)
        if not moves_on:
            self._ends.append(number)
            wrong = invariants.wrong_at_rest(state.store.rows, world)
            if wrong:
                self._violated(number, (), wrong)

    def _go(self, number: int, state: State, candidate: Candidate, move: Move) -> None:
        self._found.moves += 1
        key = key_of(move.store, move.world)
        following = self._numbers.get(key)
        wrong = [move.trouble] if move.trouble else []
        wrong += self._invariants.broken_by(state.store, move)
        if following == number:
            wrong.append("Something moves, changes nothing, and will do so for ever.")
        if wrong:
            self._violated(number, candidate, wrong)
            return
        if following is None:
            following = self._numbers[key] = len(self._numbers)
            self._came_by.append((number, candidate))
            self._waiting.append((following, move.state))
        self._edges[0].append(number)
        self._edges[1].append(following)

    def _violated(self, number: int, candidate: Candidate, wrong: list[str]) -> None:
        path = [candidate] if candidate else []
        while number:
            number, earlier = self._came_by[number]
            path.append(earlier)
        self._found.violations.append(Violation(self._found.scenario, tuple(reversed(path)), tuple(wrong)))

    def _count_schedules(self) -> int:
        """How many ways lead from the first state to one at rest; as many as there are, without walking them.

        Raises:
            RuntimeError: some schedule never comes to rest.
        """
        following: list[list[int]] = [[] for _ in range(self._found.states)]
        coming = [0] * self._found.states
        for start, end in zip(*self._edges, strict=True):
            following[start].append(end)
            coming[end] += 1
        ways = [0] * self._found.states
        ways[0] = 1
        ready, done = [0], 0
        while ready:
            state = ready.pop()
            done += 1
            for each in following[state]:
                ways[each] += ways[state]
                coming[each] -= 1
                if not coming[each]:
                    ready.append(each)
        if done != self._found.states:
            raise RuntimeError("some schedule goes round in a circle, and never comes to rest")
        return sum(ways[each] for each in self._ends)
