"""A small runtime that stands in for DBOS: it runs a workflow's real function up to its next operation.

A workflow is a deterministic function over its checkpoints. So one transition is: call the function from its
first line, hand it what its run remembers, let it do one operation more, and stop it there. What DBOS does in
one transaction is one transition; a step is two, as its commit and its checkpoint are.

What it does not cover: what happens inside one transaction (on Postgres, two of them interleave statement by
statement; here each is alone, as on SQLite); databases that fail, and the retries after that; queues and
their order; other versions of the workflows; and DBOS itself, whose rules are written down here as they were
read in its source: a checkpoint is taken from the owner alone, a recorded one is handed to anybody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from dbos import error

from store.explore.database import MemoryStore, Saved
from store.explore.guestbook import Book
from store.explore.world import Request, Run, Workflow, World
from store.vocabulary import CHECKOUT, DISPATCH, DISPATCH_TICKS, GREETING, RESTOCK, StepName

T = TypeVar("T")
_TICKS_IN_ONE_GO = {f"{StepName.TICK} {tick}" for tick in range(3, DISPATCH_TICKS)}
"""Nothing tells them from the first two: no crash comes between them. The last is looked at by itself."""
_FOLLOWING_TICKS = _TICKS_IN_ONE_GO - {f"{StepName.TICK} 3"}


class Paused(BaseException):
    """The function has come to its next operation. No handler of the shop's may catch this."""


class Blocked(BaseException):
    """It waits for a message or for a time."""


class Disowned(BaseException):
    """Its checkpoint was refused: another run owns the workflow."""


class Diverged(Exception):
    """A replay came to another operation than the one that is recorded."""


@dataclass
class _Turn:
    """One transition's run of a function."""

    run: Run | None
    """Of a workflow; None in a request."""
    memory: list[str]
    is_calm: bool
    request: int = 0
    """The action that is asked for."""
    position: int = 0
    has_acted: bool = False


class _Handle:
    """Of a workflow that was started; nobody waits for it."""

    def get_result(self, *, polling_interval_sec: float) -> None:
        """Stands for a wait that took too long."""


class Runtime:
    """Has the names of DBOS that the workflows and the commands use."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.world: World
        self.book = Book()
        self.said: list[str] = []
        """What the transition has done, in plain words."""
        self.starter = 0
        """The executor of the request that is answered."""
        self.key_of_restock = ""
        self._turn: _Turn | None = None
        self._done_before: dict[Any, tuple[Any, Saved]] = {}
        """Results of transactions, and the tables after them, by all that they depend on."""
        self._in_step = False
        self._wanted_id = ""

    # --- what moves a function on ---------------------------------------------------------------

    def advance(self, run: Run, function: Callable[..., Any]) -> None:
        """Let a workflow do its next operation.

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
        self._turn = _Turn(run, run.memory, self.world.is_calm)
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
        self._turn = _Turn(None, request.memory, self.world.is_calm, request.action)
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

    def _operate(self, name: str, do: Callable[[], Any], *, is_quiet: bool) -> Any:
        """One operation: remembered, or read from the checkpoints, or done; or the end of this turn."""
        turn = self._now_turn()
        turn.position += 1
        if turn.position <= len(turn.memory):
            return json.loads(turn.memory[turn.position - 1])
        recorded = self._recorded(turn, name)
        if recorded is None:
            if turn.has_acted and not (is_quiet and turn.is_calm) and name not in _FOLLOWING_TICKS:
                raise Paused
            turn.has_acted = True
            recorded = json.dumps(do())
            if turn.run is not None and turn.run.unrecorded is not None:
                raise Paused
        turn.memory.append(recorded)
        return json.loads(recorded)

    def _recorded(self, turn: _Turn, name: str) -> str | None:
        workflow = self.world.workflows.get(turn.run.workflow_id) if turn.run is not None else None
        if workflow is None or len(workflow.steps) < turn.position:
            return None
        recorded_name, recorded = workflow.steps[turn.position - 1]
        if recorded_name != name:
            raise Diverged(f"the replay comes to {name!r}, and {recorded_name!r} is recorded")
        return recorded

    def _record(self, run: Run, name: str, result: str) -> None:
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
            self._record(run, name, result)
        except Disowned:
            self._stop(run)
            return
        run.unrecorded = None
        run.memory.append(result)
        self.said.append(f"“{name}” is checkpointed")

    # --- the names of DBOS ------------------------------------------------------------------------

    def run_step(self, options: Any, work: Callable[[], Any]) -> Any:
        """A step: it commits, and is checkpointed by the next transition; by this one where all is calm."""
        name = str(options["name"])
        turn = self._now_turn()
        run = turn.run
        if run is None:
            raise RuntimeError("a request runs no step")

        def commit() -> Any:
            result = self._transact(name, work)
            self.said.append(f"“{name}” commits{_sketch(result)}")
            if turn.is_calm or name in _TICKS_IN_ONE_GO:
                self._record(run, name, json.dumps(result))
            else:
                run.unrecorded = (name, json.dumps(result))
            return result

        return self._operate(name, commit, is_quiet=name.startswith(StepName.TICK))

    def run_tx_step(self, options: Any, work: Callable[[], Any]) -> Any:
        """A transaction: within a step part of it, and in a request an operation of its own."""
        if self._in_step or self._turn is None:
            return self._store.run_tx_step(options, work)

        def commit() -> Any:
            return self._transact("", lambda: self._store.run_tx_step(options, work))

        return self._operate("a transaction", commit, is_quiet=False)

    def _transact(self, step: str, work: Callable[[], Any]) -> Any:
        """Do what commits; or take what came of it, where the same was done to the same tables before."""
        turn = self._now_turn()
        subject = turn.run.workflow_id if turn.run is not None else turn.request
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

    def sql_session(self) -> Any:
        """The session of the transaction that runs."""
        return self._store.sql_session()

    @property
    def engine(self) -> Any:
        """That of the store."""
        return self._store.engine

    def set_event(self, key: str, value: Any) -> None:
        """Publish a value, and checkpoint that, in one transaction."""
        run = self._now_turn().run
        if run is None:
            raise RuntimeError("a request sets no event")

        def publish() -> None:
            self._record(run, f"event {key}", "null")
            self.world.events[run.workflow_id, str(key)] = json.dumps(value)
            self.said.append(f"announces “{key}”")

        self._operate(f"event {key}", publish, is_quiet=True)

    def get_event(self, workflow_id: str, key: str, timeout_seconds: float) -> Any:  # noqa: ARG002
        """What was published by now; None stands for a wait that took too long."""
        return json.loads(self.world.events.get((workflow_id, str(key)), "null"))

    def recv(self, _topic: str, timeout_seconds: float) -> Any:
        """Wait for the message: its deadline is one checkpoint, and what came is another."""
        deadline_ms = self.sleep_until("the deadline of the wait", timeout_seconds)
        run = self._now_turn().run
        if run is None:
            raise RuntimeError("a request receives nothing")

        def receive() -> Any:
            message, was_received = self.world.messages.get(run.workflow_id, ("null", True))
            if was_received and self.world.now_ms < deadline_ms:
                raise Blocked
            result = "null" if was_received else message
            self._record(run, "receive", result)
            if not was_received:
                self.world.messages[run.workflow_id] = (message, True)
            self.said.append("waits no longer: " + ("its time is up" if was_received else "a message came"))
            return json.loads(result)

        return self._operate("receive", receive, is_quiet=False)

    def sleep(self, seconds: float) -> None:
        """Wait, by a checkpoint that says until when."""
        wake_ms = self.sleep_until("sleep", seconds)
        if self.world.now_ms < wake_ms:
            if self._now_turn().has_acted:
                raise Paused
            raise Blocked

    def sleep_until(self, name: str, seconds: float) -> int:
        """Checkpoint the end of a wait that begins now; ms since 1970."""
        run = self._now_turn().run
        wake_ms = self.world.now_ms + round(seconds * 1000)

        def note() -> int:
            if run is not None:
                self._record(run, name, json.dumps({"wake_ms": wake_ms}))
            self.said.append("writes down until when it waits")
            return {"wake_ms": wake_ms}  # type: ignore[return-value]

        return int(self._operate(name, note, is_quiet=True)["wake_ms"])

    def send(self, destination: str, message: Any, topic: str, idempotency_key: str) -> None:  # noqa: ARG002
        """Send the one message that a workflow may get."""

        def deliver() -> None:
            if destination not in self.world.workflows:
                raise error.DBOSNonExistentWorkflowError("`send` destination", destination)
            self.world.messages.setdefault(destination, (json.dumps(message), False))
            self.said.append("wakes the checkout")

        self._operate("send", deliver, is_quiet=False)

    @contextmanager
    def set_workflow_id(self, workflow_id: str) -> Iterator[None]:
        """Name the next workflow that is started."""
        self._wanted_id = workflow_id
        yield

    def start_workflow(self, function: Any, *arguments: Any) -> _Handle:
        """Start a workflow, or find it started; a child, and its parent's checkpoint, in one transaction."""
        turn, workflow_id = self._now_turn(), self._wanted_id
        name = NAMES[function.__name__]

        def start() -> None:
            if turn.run is not None:
                self._record(turn.run, f"start {name}", "null")
            if workflow_id not in self.world.workflows:
                executor = turn.run.executor if turn.run is not None else self.starter
                owner = self.world.new_owner()
                self.world.workflows[workflow_id] = Workflow(name, arguments, executor, owner)
                self.world.runs.append(Run(executor, workflow_id, owner))
                self.said.append(f"starts the {name}")

        self._operate(f"start {name}", start, is_quiet=turn.run is not None)
        return _Handle()

    def _now_turn(self) -> _Turn:
        if self._turn is None:
            raise RuntimeError("nothing runs")
        return self._turn


NAMES = {"checkout": CHECKOUT, "dispatch": DISPATCH, "restock_shelf": RESTOCK, "greet": GREETING}
"""What DBOS calls each workflow, by the name of its function."""


def _sketch(result: Any) -> str:
    """What a step returned, in a word or two."""
    if not isinstance(result, dict):
        return ""
    words = [str(result[name]) for name in ("status", "reason", "outcome") if result.get(name)]
    if result.get("progress"):
        words.append(f"{result['progress']} of 10")
    if result.get("signature"):
        words.append(f"signature {result['signature']}")
    if result.get("trouble"):
        words.append("not signed")
    return f" ({', '.join(words)})" if words else ""
