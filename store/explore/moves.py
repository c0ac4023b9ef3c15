"""What each move does to a world: a run goes on, a request comes, a server dies, time passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from store import commands, workflows
from store.explore import deadlines
from store.explore.database import Saved
from store.explore.runtime import Runtime
from store.explore.scenarios import Action, Scenario
from store.explore.turns import Blocked, Diverged
from store.explore.world import Request, Run, Workflow, World
from store.vocabulary import CHECKOUT, DISPATCH, GREETING, RESTOCK, Outcome, dispatch_id

BEGUN = "begun"
"""Fate of a run that lost its workflow within a step: it has found nothing recorded, and does it."""


class Moves:
    """The moves of one scenario. Each changes the world that it is given, and returns who moved."""

    def __init__(self, scenario: Scenario, runtime: Runtime) -> None:
        self._scenario, self._runtime = scenario, runtime
        self._functions: dict[str, Callable[..., Any]] = {
            CHECKOUT: workflows.checkout,
            DISPATCH: workflows.dispatch,
            RESTOCK: workflows.restock_shelf,
            GREETING: workflows.greet,
        }

    def run(self, _saved: Saved, world: World, index: int, fate: str) -> str:
        """Let a run do its next operation; its fate may be that the guestbook dies before or after it."""
        run, book = world.runs[index], self._runtime.book
        who = name_of_run(world, run)
        asked_before, book.fate = book.asked, "" if fate == BEGUN else fate
        workflow = world.workflows.get(run.workflow_id)
        name = workflow.name if workflow is not None else CHECKOUT
        try:
            function = self._functions[name].__wrapped__  # type: ignore[attr-defined]
            self._runtime.advance(run, function, has_begun=fate == BEGUN)
        except Diverged:
            if workflow is not None and workflow.owner == run.owner:
                raise
            world.runs.remove(run)  # it meets the steps of another run, and its end is not recorded
            self._runtime.said.append("meets the steps of another run, and stops")
        if book.fate:
            if book.asked == asked_before:
                raise Blocked
            world.guestbook_deaths -= 1
        return who

    def act(self, _saved: Saved, world: World, number: int) -> str:
        """Let something come from outside."""
        action = self._scenario.actions[number]
        world.todo = tuple(each for each in world.todo if each != number)
        if action.kind == "mend":
            self._run_again(world, action.key)
            return action.words
        request = Request(world.executor, number)
        world.requests.append(request)
        self._go_on(world, request, action)
        return action.words

    def request(self, _saved: Saved, world: World, index: int) -> str:
        """Let a request go on."""
        request = world.requests[index]
        action = self._scenario.actions[request.action]
        self._go_on(world, request, action)
        return f"The request of: {action.words}"

    def _go_on(self, world: World, request: Request, action: Action) -> None:
        self._runtime.starter, self._runtime.key_of_restock = request.executor, action.key
        try:
            is_answered, answer = self._runtime.answer(request, _call_of(action))
        except (commands.UnknownPayment, commands.TooManyUnpaid) as refusal:
            is_answered, answer = True, type(refusal).__name__
        if is_answered:
            world.requests.remove(request)
            if answer is not None:
                self._runtime.said.append(f"the answer is {answer}")

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

    def adopt(self, _saved: Saved, world: World) -> str:
        """Let the newest server take up what the others have left."""
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
        self._runtime.said.append(f"takes up {', '.join(left) or 'nothing'}")
        return f"Server {world.executor}"

    def _begin(self, world: World, workflow_id: str, workflow: Workflow) -> None:
        world.workflows[workflow_id] = workflow
        memory = [result for _, result in workflow.steps]
        world.runs.append(Run(workflow.executor, workflow_id, workflow.owner, memory))

    def reconcile(self, saved: Saved, world: World) -> str:
        """Start what a request has written down and nobody has started."""
        for workflow_id, workflow in left_without_workflow(saved, world):
            workflow.owner = world.new_owner()
            self._begin(world, workflow_id, workflow)
            self._runtime.said.append(
                f"finds that nothing moves {workflow_id}, and starts its {workflow.name}"
            )
        return "The reconciler"

    def time(self, saved: Saved, world: World) -> str:
        """Let time pass until the next thing is due."""
        next_ms = deadlines.next_after_now(saved.rows, world)
        if next_ms is None:
            raise Blocked
        self._runtime.said.append(f"{(next_ms - world.now_ms) // 1000} s later, a time is up")
        world.now_ms = next_ms
        return "Time passes"

    def crash(self, _saved: Saved, world: World) -> str:
        """Let the newest server die, with all that it has not written down."""
        dead = world.executor
        world.crashes -= 1
        world.runs = [run for run in world.runs if run.executor != dead]
        # Whoever was not answered asks again, or does not.
        lost = [request.action for request in world.requests if request.executor == dead]
        world.todo = tuple(sorted({*world.todo, *lost}))
        world.requests = [request for request in world.requests if request.executor != dead]
        self._start_next(world)
        return f"Server {dead} dies"

    def takeover(self, _saved: Saved, world: World) -> str:
        """Start a server beside one that is taken for dead."""
        world.takeovers -= 1
        self._start_next(world)
        return f"Server {world.executor - 1} is taken for dead, and goes on"

    def _start_next(self, world: World) -> None:
        world.executor += 1
        world.has_adopted = False
        self._runtime.said.append(f"server {world.executor} starts")


def left_without_workflow(saved: Saved, world: World) -> list[tuple[str, Workflow]]:
    """What a request has written down, and died before it started the workflow."""
    if world.requests:
        return []
    rows = saved.rows
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


def name_of_run(world: World, run: Run) -> str:
    """Who it is, for people."""
    workflow = world.workflows.get(run.workflow_id)
    key, _, _ = run.workflow_id.partition(".")
    name = workflow.name if workflow is not None else "workflow"
    where = f"server {run.executor}" if world.executor > 1 else ""
    return f"{key}'s {name}" + (f" on {where}" if where else "")
