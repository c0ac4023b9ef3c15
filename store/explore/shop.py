"""The explored shop: its states, what may happen next in each, and what comes of it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from store.explore import deadlines
from store.explore.database import MemoryStore, Saved
from store.explore.installed import installed
from store.explore.moves import BEGUN, Moves, left_without_workflow, name_of_run
from store.explore.runtime import Runtime
from store.explore.scenarios import Scenario
from store.explore.turns import Blocked
from store.explore.world import Run, World
from store.vocabulary import GREETING

TABLES = (
    "products", "counters", "orders", "stock_movements", "payments", "payment_notices", "holds", "refusals",
    "greeting_requests", "greetings",
)  # fmt: skip
_START_MS = 1_800_000_000_000
_GUESTBOOK_DIES = ("before", "after")
Candidate = tuple[Any, ...]
OPTIONAL = {"crash", "takeover", "act"}
"""What need not happen: without any of it, the shop comes to rest."""


@dataclass(frozen=True)
class State:
    """The two databases, and all else."""

    store: Saved
    world: bytes
    """A pickled `World`: it is read far oftener than it is changed, and copied each time."""

    def open(self) -> World:
        """A copy of its world."""
        world: World = pickle.loads(self.world)  # noqa: S301 - ours
        return world


@dataclass(frozen=True)
class Move:
    """One transition that has been made."""

    who: str
    says: str
    store: Saved
    world: World
    trouble: str = ""
    """What it raised, which no transition may."""

    @property
    def state(self) -> State:
        """Where it has come to."""
        return State(self.store, pickle.dumps(self.world))


class ExploredShop:
    """One shop, which can be put into any of its states."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.store = MemoryStore(scenario.units, TABLES)
        self.runtime = Runtime(self.store)
        self._moves = Moves(scenario, self.runtime)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have the real functions run in this shop, until the end of this block."""
        try:
            with installed(self.runtime, self.scenario):
                yield
        finally:
            self.store.close()

    def first_state(self) -> State:
        """A new shop, in which nobody has clicked."""
        scenario = self.scenario
        world = World(
            now_ms=_START_MS,
            todo=tuple(range(len(scenario.actions))),
            crashes=scenario.crashes,
            takeovers=scenario.takeovers,
            guestbook_deaths=scenario.guestbook_deaths,
            mendings=scenario.mendings,
            may_forget=scenario.mendings > 0,
        )
        return State(self.store.save(), pickle.dumps(world))

    def candidates(self, state: State, world: World) -> Iterator[Candidate]:
        """What may happen next; some of it turns out to have to wait."""
        yield from _of_the_shop(state, world)
        for number in world.todo:
            after = self.scenario.actions[number].after
            if after is None or after not in world.todo:
                yield "act", number
        if world.crashes:
            yield ("crash",)
        if world.takeovers:
            yield ("takeover",)

    def make(self, state: State, candidate: Candidate) -> Move | None:
        """Make a move; None if what would move has to wait."""
        world = state.open()
        self.store.load(state.store)
        runtime = self.runtime
        runtime.world, runtime.book.world, runtime.book.fate, runtime.said = world, world, "", []
        trouble = ""
        try:
            who = getattr(self._moves, candidate[0])(state.store, world, *candidate[1:])
        except Blocked:
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, no step may raise it
            who, trouble = _name_of(world, candidate), f"{type(error).__name__}: {error}"
            runtime.said.append(f"raises {type(error).__name__}")
        return Move(who, "; ".join(runtime.said), self.store.save(), world, trouble)


def _of_the_shop(state: State, world: World) -> Iterator[Candidate]:
    """What the shop does by itself."""
    for index, run in enumerate(world.runs):
        yield "run", index, ""
        if run.unrecorded is None and _is_behind(world, run):
            yield "run", index, BEGUN
        if world.guestbook_deaths and run.unrecorded is None and _is_of_greeting(run):
            yield from (("run", index, fate) for fate in _GUESTBOOK_DIES)
    yield from (("request", index) for index in range(len(world.requests)))
    if not world.has_adopted:
        yield ("adopt",)
    elif left_without_workflow(state.store, world):
        yield ("reconcile",)
    if deadlines.next_after_now(state.store.rows, world) is not None:
        yield ("time",)


def _is_behind(world: World, run: Run) -> bool:
    """Whether others have recorded steps of its workflow that it has not seen."""
    workflow = world.workflows.get(run.workflow_id)
    return workflow is not None and workflow.owner != run.owner and len(workflow.steps) > len(run.memory)


def _is_of_greeting(run: Run) -> bool:
    return run.workflow_id.endswith(f".{GREETING}")


def _name_of(world: World, candidate: Candidate) -> str:
    if candidate[0] == "run" and candidate[1] < len(world.runs):
        return name_of_run(world, world.runs[candidate[1]])
    return str(candidate[0])
