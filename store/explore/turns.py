"""Turns: a workflow's real function is called from its first line, and stopped at its next operation.

An operation that its run remembers, or that is checkpointed, is not done again: its result is handed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from store.explore.database import MemoryStore, Saved
from store.explore.guestbook import Book
from store.explore.world import Request, Run, Workflow, World
from store.vocabulary import DISPATCH_TICKS, StepName

T = TypeVar("T")
TICKS_IN_ONE_GO = {f"{StepName.TICK} {tick}" for tick in range(3, DISPATCH_TICKS)}
"""Nothing tells them from the first two: no crash comes between them. The last is looked at by itself."""
_FOLLOWING_TICKS = TICKS_IN_ONE_GO - {f"{StepName.TICK} 3"}


class Paused(BaseException):
    """The function has come to its next operation. No handler of the shop's may catch this."""


class Blocked(BaseException):
    """It waits for a message or for a time."""


class Disowned(BaseException):
    """Its checkpoint was refused: another run owns the workflow."""


class Diverged(Exception):
    """A replay came to another operation than the one that is recorded."""


@dataclass
class Turn:
    """One transition's run of a function."""

    run: Run | None
    """Of a workflow; None in a request."""
    memory: list[str]
    is_calm: bool
    request: int = 0
    """The action that is asked for."""
    arguments: tuple[Any, ...] = ()
    """Of the workflow: who starts it for whom is not always the same."""
    has_begun: bool = False
    """Whether it has looked for a recorded result of its next step before somebody else recorded it."""
    position: int = 0
    has_acted: bool = False


class Turns:
    """Runs functions, operation by operation, in one world after another."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.world: World
        self.book = Book()
        self.said: list[str] = []
        """What the transition has done, in plain words."""
        self.starter = 0
        """The executor of the request that is answered."""
        self.key_of_restock = ""
        self._turn: Turn | None = None
        self._done_before: dict[Any, tuple[Any, Saved]] = {}
        """Results of transactions, and the tables after them, by all that they depend on."""
        self._in_step = False
        self._wanted_id = ""

    # --- what moves a function on ---------------------------------------------------------------

    def advance(self, run: Run, function: Callable[..., Any], *, has_begun: bool = False) -> None:
        """Let a workflow do its next operation; one that has begun does not look any more what is recorded.

        Raises:
            Blocked: it has to wait.
        """
        workflow = self.world.workflows.get(run.workflow_id)
        if run.unrecorded is not None:
            self._checkpoint(run)
            return
        if workflow is None:
            self._stop(run)
            return
        self._turn = Turn(
            run, run.memory, self.world.is_calm, arguments=workflow.arguments, has_begun=has_begun
        )
        try:
            output = function(*workflow.arguments)
            self._end(run, output)
        except Paused:
            pass
        except Disowned:
            self._stop(run)
        finally:
            self._turn = None

    def answer(self, request: Request, function: Callable[[], T]) -> tuple[bool, T | None]:
        """Let a request do its next operation; whether that was its last, and what it answers then."""
        self._turn = Turn(None, request.memory, self.world.is_calm, request.action)
        try:
            return True, function()
        except Paused:
            return False, None
        finally:
            self._turn = None

    def _end(self, run: Run, output: Any) -> None:
        if self._turn is not None and self._turn.has_acted and not self._turn.is_calm:
            return
        workflow = self.world.workflows.get(run.workflow_id)
        if workflow is not None and workflow.owner == run.owner and workflow.status == "PENDING":
            workflow.status, workflow.output = "SUCCESS", json.dumps(output)
            self.said.append("ends")
        self._stop(run, quietly=True)

    def _stop(self, run: Run, *, quietly: bool = False) -> None:
        if run in self.world.runs:
            self.world.runs.remove(run)
            if not quietly:
                self.said.append("finds that another server has the workflow, and stops")

    # --- operations -------------------------------------------------------------------------------

    def operate(self, name: str, do: Callable[[], Any], *, is_quiet: bool) -> Any:
        """One operation: remembered, or read from the checkpoints, or done; or the end of this turn."""
        turn = self.now_turn()
        turn.position += 1
        if turn.position <= len(turn.memory):
            return json.loads(turn.memory[turn.position - 1])
        recorded = None if turn.has_begun else self._recorded(turn, name)
        if recorded is None:
            if turn.has_acted and not (is_quiet and turn.is_calm) and name not in _FOLLOWING_TICKS:
                raise Paused
            turn.has_acted = True
            recorded = json.dumps(do())
            if turn.run is not None and turn.run.unrecorded is not None:
                raise Paused
        turn.memory.append(recorded)
        return json.loads(recorded)

    def _recorded(self, turn: Turn, name: str) -> str | None:
        workflow = self.world.workflows.get(turn.run.workflow_id) if turn.run is not None else None
        if workflow is None or len(workflow.steps) < turn.position:
            return None
        recorded_name, recorded = workflow.steps[turn.position - 1]
        if recorded_name != name:
            raise Diverged(f"the replay comes to {name!r}, and {recorded_name!r} is recorded")
        return recorded

    def record(self, run: Run, name: str, result: str) -> None:
        """Write a checkpoint, as the owner alone may."""
        workflow = self._owned(run)
        workflow.steps.append((name, result))

    def _owned(self, run: Run) -> Workflow:
        workflow = self.world.workflows.get(run.workflow_id)
        if workflow is None or workflow.owner != run.owner:
            raise Disowned
        return workflow

    def _checkpoint(self, run: Run) -> None:
        if run.unrecorded is None:
            return
        name, result = run.unrecorded
        try:
            self.record(run, name, result)
        except Disowned:
            self._stop(run)
            return
        run.unrecorded = None
        run.memory.append(result)
        self.said.append(f"“{name}” is checkpointed")

    def transact(self, step: str, work: Callable[[], Any]) -> Any:
        """Do what commits; or take what came of it, where the same was done to the same tables before."""
        turn = self.now_turn()
        subject = (turn.run.workflow_id, turn.arguments) if turn.run is not None else turn.request
        key = (self._store.save().number, self.world.now_ms, subject, step, tuple(turn.memory))
        is_pure = step != StepName.SIGN  # the guestbook is another system
        if is_pure and key in self._done_before:
            result, saved = self._done_before[key]
            self._store.load(saved)
            return result
        self._in_step = True
        try:
            result = work()
        finally:
            self._in_step = False
        if is_pure:
            self._done_before[key] = (result, self._store.save())
        return result

    def now_turn(self) -> Turn:
        """The one that is made."""
        if self._turn is None:
            raise RuntimeError("nothing runs")
        return self._turn
