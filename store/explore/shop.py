"""The explored shop: its states, what may happen next in each, and what comes of it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from store import commands, workflows
from store.explore import deadlines
from store.explore.database import MemoryStore, Saved
from store.explore.installed import installed
from store.explore.runtime import Blocked, Diverged, Runtime
from store.explore.scenarios import Action, Scenario
from store.explore.world import Request, Run, Workflow, World
from store.vocabulary import CHECKOUT, DISPATCH, GREETING, RESTOCK, Outcome, dispatch_id

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
        self._functions: dict[str, Callable[..., Any]] = {
            CHECKOUT: workflows.checkout,
            DISPATCH: workflows.dispatch,
            RESTOCK: workflows.restock_shelf,
            GREETING: workflows.greet,
        }

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
        for index, run in enumerate(world.runs):
            yield "run", index, ""
            if world.guestbook_deaths and run.unrecorded is None and _is_of_greeting(run):
                yield from (("run", index, fate) for fate in _GUESTBOOK_DIES)
        yield from (("request", index) for index in range(len(world.requests)))
        if not world.has_adopted:
            yield ("adopt",)
        elif self._left_without_workflow(state, world):
            yield ("reconcile",)
        if deadlines.next_after_now(state.store.rows, world) is not None:
            yield ("time",)
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
            who = _MOVES[candidate[0]](self, state, world, *candidate[1:])
        except Blocked:
            return None
        except (Diverged, Exception) as error:  # noqa: BLE001 - whatever it is, no step may raise it
            who, trouble = _name_of(world, candidate), f"{type(error).__name__}: {error}"
            runtime.said.append(f"raises {type(error).__name__}")
        return Move(who, "; ".join(runtime.said), self.store.save(), world, trouble)

    # --- the moves ----------------------------------------------------------------------------------

    def _run(self, _state: State, world: World, index: int, fate: str) -> str:
        run, book = world.runs[index], self.runtime.book
        who = _name_of_run(world, run)
        asked_before, book.fate = book.asked, fate
        workflow = world.workflows.get(run.workflow_id)
        name = workflow.name if workflow is not None else CHECKOUT
        try:
            self.runtime.advance(run, self._functions[name].__wrapped__)  # type: ignore[attr-defined]
        except Diverged:
            if workflow is not None and workflow.owner == run.owner:
                raise
            world.runs.remove(run)  # it meets the steps of another run, and its end is not recorded
            self.runtime.said.append("meets the steps of another run, and stops")
        if fate:
            if book.asked == asked_before:
                raise Blocked
            world.guestbook_deaths -= 1
        return who

    def _act(self, _state: State, world: World, number: int) -> str:
        action = self.scenario.actions[number]
        world.todo = tuple(each for each in world.todo if each != number)
        if action.kind == "mend":
            self._run_again(world, action.key)
            return action.words
        request = Request(world.executor, number)
        world.requests.append(request)
        self._go_on(world, request, action)
        return action.words

    def _request(self, _state: State, world: World, index: int) -> str:
        request = world.requests[index]
        action = self.scenario.actions[request.action]
        self._go_on(world, request, action)
        return f"The request of: {action.words}"

    def _go_on(self, world: World, request: Request, action: Action) -> None:
        self.runtime.starter, self.runtime.key_of_restock = request.executor, action.key
        try:
            is_answered, answer = self.runtime.answer(request, _call_of(action))
        except (commands.UnknownPayment, commands.TooManyUnpaid) as refusal:
            is_answered, answer = True, type(refusal).__name__
        if is_answered:
            world.requests.remove(request)
            if answer is not None:
                self.runtime.said.append(f"the answer is {answer}")

    def _run_again(self, world: World, key: str) -> None:
        workflow = world.workflows.get(key)
        if workflow is None:
            raise Blocked
        world.mendings = 0
        for forgotten in (key, dispatch_id(key)):
            world.workflows.pop(forgotten, None)
            world.messages.pop(forgotten, None)
            world.events = {name: value for name, value in world.events.items() if name[0] != forgotten}
        self._begin(
            world, key, Workflow(workflow.name, workflow.arguments, world.executor, world.new_owner())
        )

    def _adopt(self, _state: State, world: World) -> str:
        world.has_adopted = True
        left = [
            workflow_id
            for workflow_id, each in world.workflows.items()
            if each.status == "PENDING" and each.executor != world.executor
        ]
        for workflow_id in left:
            workflow = world.workflows[workflow_id]
            workflow.executor, workflow.owner = world.executor, world.new_owner()
            self._begin(world, workflow_id, workflow)
        self.runtime.said.append(f"takes up {', '.join(left) or 'nothing'}")
        return f"Server {world.executor}"

    def _begin(self, world: World, workflow_id: str, workflow: Workflow) -> None:
        world.workflows[workflow_id] = workflow
        world.runs.append(Run(workflow.executor, workflow_id, workflow.owner))

    def _left_without_workflow(self, state: State, world: World) -> list[tuple[str, Workflow]]:
        """What a request has written down and died before it started the workflow; whoever asks is counted."""
        if world.requests:
            return []
        rows = state.store.rows
        made = {row[0] for row in (*rows["orders"], *rows["refusals"])} | world.workflows.keys()
        executor = world.executor
        return [
            (row[0], Workflow(GREETING, (row[0], row[1]), executor, 0))
            for row in rows["greeting_requests"]
            if row[deadlines.OUTCOME] is None and row[0] not in world.workflows
        ] + [
            (row[0], Workflow(CHECKOUT, (row[0], None), executor, 0))
            for row in rows["payment_notices"]
            if row[1] == Outcome.PAID and row[0] not in made
        ]

    def _reconcile(self, state: State, world: World) -> str:
        for workflow_id, workflow in self._left_without_workflow(state, world):
            workflow.owner = world.new_owner()
            self._begin(world, workflow_id, workflow)
            self.runtime.said.append(
                f"finds that nothing moves {workflow_id}, and starts its {workflow.name}"
            )
        return "The reconciler"

    def _time(self, state: State, world: World) -> str:
        next_ms = deadlines.next_after_now(state.store.rows, world)
        if next_ms is None:
            raise Blocked
        self.runtime.said.append(f"{(next_ms - world.now_ms) // 1000} s later, a time is up")
        world.now_ms = next_ms
        return "Time passes"

    def _crash(self, _state: State, world: World) -> str:
        dead = world.executor
        world.crashes -= 1
        world.runs = [run for run in world.runs if run.executor != dead]
        # Whoever was not answered asks again, or does not.
        lost = [request.action for request in world.requests if request.executor == dead]
        world.todo = tuple(sorted({*world.todo, *lost}))
        world.requests = [request for request in world.requests if request.executor != dead]
        self._start_next(world)
        return f"Server {dead} dies"

    def _takeover(self, _state: State, world: World) -> str:
        world.takeovers -= 1
        self._start_next(world)
        return f"Server {world.executor - 1} is taken for dead, and goes on"

    def _start_next(self, world: World) -> None:
        world.executor += 1
        world.has_adopted = False
        self.runtime.said.append(f"server {world.executor} starts")


_MOVES: dict[str, Callable[..., str]] = {
    "run": ExploredShop._run,  # noqa: SLF001 - the class's own
    "act": ExploredShop._act,  # noqa: SLF001
    "request": ExploredShop._request,  # noqa: SLF001
    "adopt": ExploredShop._adopt,  # noqa: SLF001
    "reconcile": ExploredShop._reconcile,  # noqa: SLF001
    "time": ExploredShop._time,  # noqa: SLF001
    "crash": ExploredShop._crash,  # noqa: SLF001
    "takeover": ExploredShop._takeover,  # noqa: SLF001
}


def _call_of(action: Action) -> Callable[[], Any]:
    """What the request asks of the workflows: the real commands."""
    calls: dict[str, Callable[[], Any]] = {
        "buy": lambda: commands.buy(action.key, action.client),
        "notice": lambda: commands.settle(action.key, action.outcome or Outcome.PAID),
        "extend": lambda: commands.extend(action.key),
        "restock": commands.restock,
        "greet": lambda: commands.greet(action.key, f"Visitor {action.key}", "", wait=False),
    }
    return calls[action.kind]


def _is_of_greeting(run: Run) -> bool:
    return run.workflow_id.endswith(f".{GREETING}")


def _name_of_run(world: World, run: Run) -> str:
    workflow = world.workflows.get(run.workflow_id)
    key, _, _ = run.workflow_id.partition(".")
    name = workflow.name if workflow is not None else "workflow"
    where = f"server {run.executor}" if world.executor > 1 else ""
    return f"{key}'s {name}" + (f" on {where}" if where else "")


def _name_of(world: World, candidate: Candidate) -> str:
    if candidate[0] == "run" and candidate[1] < len(world.runs):
        return _name_of_run(world, world.runs[candidate[1]])
    return str(candidate[0])
