"""A schedule as a numbered story in plain words, and as a text by which it is walked again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from store.explore import invariants
from store.explore.invariants import Invariants
from store.explore.scenarios import Scenario
from store.explore.shop import OPTIONAL, Candidate, ExploredShop, Move


@dataclass(frozen=True)
class Story:
    """What happened, step by step, and what is wrong in the end."""

    steps: tuple[str, ...]
    wrong: tuple[str, ...]
    code: str
    """What `--replay` takes."""

    @property
    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield from (f"  {number}. {step}" for number, step in enumerate(self.steps, 1))
        yield from (f"  => {each}" for each in self.wrong)
        yield f"  Again: python app.py explore --replay {self.code!r}"


def walk(scenario: Scenario, path: Sequence[Candidate]) -> Story:
    """Walk a schedule again, and tell it."""
    return _walk(scenario, path, None)


def replay(scenario: Scenario, numbers: Sequence[int]) -> Story:
    """Walk the schedule that these numbers name: of each state's possible moves, which was made.

    Raises:
        IndexError: this scenario has no such schedule.
    """
    return _walk(scenario, None, numbers)


def _walk(scenario: Scenario, path: Sequence[Candidate] | None, numbers: Sequence[int] | None) -> Story:
    shop = ExploredShop(scenario)
    looks = Invariants(shop.store)
    moves: list[Move] = []
    chosen: list[str] = []
    wrong: list[str] = []
    with shop.open():
        state = shop.first_state()
        for step in range(len(path if path is not None else numbers or ())):
            candidates = list(shop.candidates(state, state.open()))
            candidate = path[step] if path is not None else candidates[(numbers or ())[step]]
            move = shop.make(state, candidate)
            if move is None:
                raise IndexError("what is to move next has to wait")
            wrong = ([move.trouble] if move.trouble else []) + looks.broken_by(state.store, move)
            chosen.append(str(candidates.index(candidate)))
            moves.append(move)
            state = move.state
        world = state.open()
        is_at_rest = not wrong and not any(
            shop.make(state, each) for each in shop.candidates(state, world) if each[0] not in OPTIONAL
        )
        if is_at_rest:
            wrong = invariants.wrong_at_rest(state.store.rows, world)
    return Story(tuple(_told(moves)), tuple(wrong), f"{scenario.name}:{'.'.join(chosen)}")


def _told(moves: list[Move]) -> Iterator[str]:
    """What one does without a break is one step."""
    who, says = "", ""
    for move in moves:
        if move.who == who:
            says = f"{says}; {move.says}" if move.says else says
            continue
        if who:
            yield _sentence(who, says)
        who, says = move.who, move.says
    if who:
        yield _sentence(who, says)


def _sentence(who: str, says: str) -> str:
    return f"{who}: {says}." if says else f"{who}."
