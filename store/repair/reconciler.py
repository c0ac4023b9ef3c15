"""Runs stuck workflows again.

A round compares orders, payments and greetings with their workflows, every `STORE_RECONCILE_SECONDS`. What
is stuck is mended by the rule of `workflows.py`: its workflow is run again from its first line, under the
same id. DBOS forgets the old run, whose ownership token is gone with it, so that a thread of it that still
lives is stopped at its next checkpoint; then the workflow is enqueued anew. Both are steps of a workflow,
`run_again`, which has all that is needed among its arguments: a crash between the two loses nothing, even if
an older copy of the store is restored meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from dbos import DBOSClient, EnqueueOptions
from sqlalchemy import event

from store import workflows
from store.database import Databases
from store.database_errors import passes
from store.durable import mendings_table, private_names, runtime
from store.log_masking import mask
from store.repair import stuck_finder
from store.repair.stuck_rules import Lateness, Stuck, known_outcome
from store.repair.sweep import Sweep
from store.settings import Settings, is_sqlite
from store.statement_text import text
from store.vocabulary import CHECKOUT, GREETING, MENDING, Outcome

_FIRST_ROUND_SECONDS = 1.0
_SWEEP_AFTER_SECONDS = 5.0
"""Until then, workflows that a crash has interrupted come back by themselves, and read their messages."""
_SWEEP_SECONDS = 0.2
"""So long it goes on, and then pauses: to sweep a million orders, a core needs a minute."""
_SWEEP_PAUSE_SECONDS = 1.0
_TRIES = 3
"""Of one workflow since this process began; then a person has to look."""
_PAUSE_SECONDS = 30.0
"""After the first try; doubled with each."""
_LOCK = 0x4D454E44
"""Any number, the same in every process: one of them mends at a time."""
_log = logging.getLogger("store")


@dataclass
class _Tries:
    count: int = 0
    next_at: float = 0.0
    """On the monotonic clock."""


class Reconciler:
    """Looks for stuck work in one shop, and mends it."""

    def __init__(self, settings: Settings, databases: Databases) -> None:
        self._settings, self._databases = settings, databases
        self._stuck: tuple[Stuck, ...] = ()
        self._look_at = 0.0
        self._tries: dict[str, _Tries] = {}
        self._calm_since = time.monotonic()
        self._sweep, self._is_swept = Sweep(), False
        self._sweep_pause_seconds = _SWEEP_AFTER_SECONDS
        self._lost: tuple[Stuck, ...] = ()
        for engine in (databases.store, databases.system):
            event.listen(engine, "handle_error", self._note_trouble)

    def start(self) -> None:
        """Begin the rounds, in a thread that ends with the process. Once workflows run."""
        # It may have been made long ago, in the process that this one was forked from.
        self._calm_since = time.monotonic()
        if self._settings.reconcile_seconds:
            threading.Thread(target=self._go_round, name="reconciler", daemon=True).start()

    def found(self) -> tuple[Stuck, ...]:
        """What the last look and the last sweep have found and not yet seen mended."""
        found = (*self._stuck, *self._lost, *self._sweep.found)
        return tuple({each.workflow_id: each for each in found}.values())

    def count(self) -> int:
        """How much that is."""
        return len(self.found())

    def _note_trouble(self, context: sa.ExceptionContext) -> None:
        """A full disk and a read-only database let a round read, and keep workflows from moving."""
        if context.is_disconnect or passes(context.original_exception):
            self._calm_since = time.monotonic()

    def _go_round(self) -> None:
        client = runtime.client_of(self._settings, self._databases.system)
        pause_seconds = _FIRST_ROUND_SECONDS
        while True:
            asleep_at = time.monotonic()
            time.sleep(pause_seconds)
            if time.monotonic() - asleep_at > 2 * pause_seconds + 1:  # the machine slept, or we were stopped
                self._calm_since = time.monotonic()
            try:
                with self._turn_to_mend() as store:
                    if store is not None:
                        self._round(store, client)
            except Exception as trouble:  # noqa: BLE001 - whatever it was, this round is not the last
                # What is late now may be late because of that.
                self._calm_since, self._sweep_pause_seconds = time.monotonic(), _SWEEP_AFTER_SECONDS
                _log.warning("nothing was reconciled: %s", mask(f"{type(trouble).__name__}: {trouble}"))
            pause_seconds = self._settings.reconcile_seconds
            if not self._is_swept:
                pause_seconds = min(pause_seconds, self._sweep_pause_seconds)

    @contextmanager
    def _turn_to_mend(self) -> Iterator[sa.Connection | None]:
        """A connection to the store; None while another process mends."""
        with self._databases.reader.connect() as store:
            if is_sqlite(self._settings.database_url):
                yield store
                return
            # Of the session: a process that dies over it lets it go.
            if not store.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}).scalar():
                yield None
                return
            try:
                yield store
            finally:
                store.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})

    def _round(self, store: sa.Connection, client: DBOSClient) -> None:
        lateness = Lateness(
            int((time.monotonic() - self._calm_since) * 1000),
            round(self._settings.dispatch_tick_seconds * 1000),
            runtime.APPLICATION_VERSION,
        )
        if not self._sweep.has_begun or time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + self._settings.reconcile_seconds
            self._stuck = tuple(stuck_finder.find(store, client, lateness))
            for each in self._stuck:
                self._mend_in_turn(client, each)
        if not self._is_swept and lateness.calm_ms > _SWEEP_AFTER_SECONDS * 1000:
            self._sweep_pause_seconds = _SWEEP_AFTER_SECONDS
            try:
                self._sweep_on(store, client)
            except Exception as trouble:  # noqa: BLE001 - nothing that the rounds look for is late because of it
                _log.warning("the sweep stopped: %s", mask(f"{type(trouble).__name__}: {trouble}"))

    def _sweep_on(self, store: sa.Connection, client: DBOSClient) -> None:
        """Go on with the sweep for a moment."""
        until = time.monotonic() + _SWEEP_SECONDS
        while not self._sweep.is_over and time.monotonic() < until:
            for each in self._sweep.go_on(store, client):
                self._mend_in_turn(client, each)
        if self._sweep.is_over:
            self._is_swept, self._lost = not self._sweep.found, tuple(self._sweep.found)
            self._sweep = Sweep()
        else:
            self._sweep_pause_seconds = _SWEEP_PAUSE_SECONDS

    def _mend_in_turn(self, client: DBOSClient, each: Stuck) -> None:
        tries = self._tries.setdefault(each.workflow_id, _Tries())
        if tries.count >= _TRIES or time.monotonic() < tries.next_at:
            return
        tries.next_at = time.monotonic() + _PAUSE_SECONDS * 2**tries.count
        tries.count += 1
        attempt = mend(client, self._databases.system, each)
        _log.warning("found %s stuck and ran it again (%s): %s", each.subject, attempt, each.why)


def mend(client: DBOSClient, checkpoints: sa.Engine, each: Stuck) -> int:
    """Run a stuck workflow again from its first line; which try that is of all that were ever made."""
    attempt = mendings_table.record_mending(each.workflow_id, each.why)
    arguments = each.arguments
    if each.workflow_name == CHECKOUT:
        # A thread of it that still lives loses its claim: what it has not received, it never will.
        client.cancel_workflows([each.workflow_id])
        outcome = _known_of(client, checkpoints, each)
        if outcome is not None:
            # It decides again.
            workflows.record_notice(each.workflow_id, Outcome(outcome))
            arguments = (*arguments, outcome)
    if each.workflow_name == GREETING:
        workflows.request_greeting(*each.arguments)
    client.enqueue(
        _on_our_queue(MENDING, f"{each.workflow_id}.{MENDING}-{attempt}"),
        [each.workflow_id, *each.with_it],
        _on_our_queue(each.workflow_name, each.workflow_id),
        list(arguments),
    )
    return attempt


def _on_our_queue(name: str, workflow_id: str) -> EnqueueOptions:
    return {
        "workflow_name": name,
        "queue_name": runtime.MENDINGS,
        "workflow_id": workflow_id,
        "app_version": runtime.APPLICATION_VERSION,
    }


def _known_of(client: DBOSClient, checkpoints: sa.Engine, each: Stuck) -> str | None:
    """What the checkpoints of a checkout know of its payment, an `Outcome`, also if it was not received."""
    unread = private_names.unread_messages(checkpoints, each.workflow_id)
    known = each.outcome or known_outcome(client, each.workflow_id)
    return known or next((str(message) for message in unread if message in set(Outcome)), None)
