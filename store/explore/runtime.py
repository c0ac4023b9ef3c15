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
from typing import Any

from dbos import error

from store.explore.turns import TICKS_IN_ONE_GO, Blocked, Paused, Turns
from store.explore.world import Run, Workflow
from store.vocabulary import CHECKOUT, DISPATCH, GREETING, RESTOCK, StepName


class _Handle:
    """Of a workflow that was started; nobody waits for it."""

    def get_result(self, *, polling_interval_sec: float) -> None:
        """Stands for a wait that took too long."""


class Runtime(Turns):
    """Has the names of DBOS that the workflows and the commands use, and those of a datasource."""

    def run_step(self, options: Any, work: Callable[[], Any]) -> Any:
        """A step: it commits, and is checkpointed by the next transition; by this one where all is calm."""
        name = str(options["name"])
        turn = self.now_turn()
        run = turn.run
        if run is None:
            raise RuntimeError("a request runs no step")

        def commit() -> Any:
            result = self.transact(name, work)
            self.said.append(f"“{name}” commits{_sketch(result)}")
            if turn.is_calm or name in TICKS_IN_ONE_GO:
                self.record(run, name, json.dumps(result))
            else:
                run.unrecorded = (name, json.dumps(result))
            return result

        return self.operate(name, commit, is_quiet=name.startswith(StepName.TICK))

    def run_tx_step(self, options: Any, work: Callable[[], Any]) -> Any:
        """A transaction: within a step part of it, and in a request an operation of its own."""
        if self._in_step or self._turn is None:
            return self._store.run_tx_step(options, work)

        def commit() -> Any:
            return self.transact("", lambda: self._store.run_tx_step(options, work))

        return self.operate("a transaction", commit, is_quiet=False)

    def sql_session(self) -> Any:
        """The session of the transaction that runs."""
        return self._store.sql_session()

    @property
    def engine(self) -> Any:
        """That of the store."""
        return self._store.engine

    def set_event(self, key: str, value: Any) -> None:
        """Publish a value, and checkpoint that, in one transaction."""
        run = self.now_turn().run
        if run is None:
            raise RuntimeError("a request sets no event")

        def publish() -> None:
            self.record(run, f"event {key}", "null")
            self.world.events[run.workflow_id, str(key)] = json.dumps(value)
            self.said.append(f"announces “{key}”")

        self.operate(f"event {key}", publish, is_quiet=True)

    def get_event(self, workflow_id: str, key: str, timeout_seconds: float) -> Any:  # noqa: ARG002
        """What was published by now; None stands for a wait that took too long."""
        return json.loads(self.world.events.get((workflow_id, str(key)), "null"))

    def recv(self, _topic: str, timeout_seconds: float) -> Any:
        """Wait for the message: its deadline is one checkpoint, and what came is another."""
        deadline_ms = self.sleep_until("the deadline of the wait", timeout_seconds)
        run = self.now_turn().run
        if run is None:
            raise RuntimeError("a request receives nothing")

        def receive() -> Any:
            message, was_received = self.world.messages.get(run.workflow_id, ("null", True))
            if was_received and self.world.now_ms < deadline_ms:
                raise Blocked
            result = "null" if was_received else message
            self.record(run, "receive", result)
            if not was_received:
                self.world.messages[run.workflow_id] = (message, True)
            self.said.append("waits no longer: " + ("its time is up" if was_received else "a message came"))
            return json.loads(result)

        return self.operate("receive", receive, is_quiet=False)

    def sleep(self, seconds: float) -> None:
        """Wait, by a checkpoint that says until when."""
        wake_ms = self.sleep_until("sleep", seconds)
        if self.world.now_ms < wake_ms:
            if self.now_turn().has_acted:
                raise Paused
            raise Blocked

    def sleep_until(self, name: str, seconds: float) -> int:
        """Checkpoint the end of a wait that begins now; ms since 1970."""
        run = self.now_turn().run
        wake_ms = self.world.now_ms + round(seconds * 1000)

        def note() -> int:
            if run is not None:
                self.record(run, name, json.dumps({"wake_ms": wake_ms}))
            self.said.append("notes its deadline")
            return {"wake_ms": wake_ms}  # type: ignore[return-value]

        return int(self.operate(name, note, is_quiet=True)["wake_ms"])

    def send(self, destination: str, message: Any, topic: str, idempotency_key: str) -> None:  # noqa: ARG002
        """Send the one message that a workflow may get."""

        def deliver() -> None:
            if destination not in self.world.workflows:
                raise error.DBOSNonExistentWorkflowError("`send` destination", destination)
            self.world.messages.setdefault(destination, (json.dumps(message), False))
            self.said.append("wakes the checkout")

        self.operate("send", deliver, is_quiet=False)

    @contextmanager
    def set_workflow_id(self, workflow_id: str) -> Iterator[None]:
        """Name the next workflow that is started."""
        self._wanted_id = workflow_id
        yield

    def start_workflow(self, function: Any, *arguments: Any) -> _Handle:
        """Start a workflow, or find it started; a child, and its parent's checkpoint, in one transaction."""
        turn, workflow_id = self.now_turn(), self._wanted_id
        name = NAMES[function.__name__]

        def start() -> None:
            if turn.run is not None:
                self.record(turn.run, f"start {name}", "null")
            if workflow_id not in self.world.workflows:
                executor = turn.run.executor if turn.run is not None else self.starter
                owner = self.world.new_owner()
                self.world.workflows[workflow_id] = Workflow(name, arguments, executor, owner)
                self.world.runs.append(Run(executor, workflow_id, owner))
                self.said.append(f"starts the {name}")

        self.operate(f"start {name}", start, is_quiet=turn.run is not None)
        return _Handle()


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
