"""The record of the server processes that run the workflows, and of the workflows that were run again.

It writes tables of its own, outside of any workflow: it is about what runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from store.durable.statements import change_one, execute, fetch_one
from store.durable.step_decorators import commit, now_ms

_BATCH = 500


@dataclass(frozen=True)
class Executor:
    """One server process, from its start to its end."""

    number: int
    """1 for the first of the shop; people say "server 7"."""
    executor_id: str
    """What DBOS calls it."""


@dataclass(frozen=True)
class Death:
    """A server process of this machine that its parent has seen die."""

    pid: int
    started_at_ms: int
    """Not later than it wrote down its own start: another process may have had its pid long ago."""
    at_ms: int


def record_start(machine: str, pid: int, deaths: Sequence[Death] = ()) -> Executor:
    """Record that a server process begins, before it takes up any workflow, and the `deaths` before it.

    If the one before it was not stopped in good order, the orders and greetings that it left under way are
    recorded as recovered by this one.
    """
    return commit(_record_start, machine, pid, now_ms(), deaths)


def _record_start(
    session: Session, machine: str, pid: int, at_ms: int, deaths: Sequence[Death] = ()
) -> Executor:
    # Row lock. What comes again after a commit whose answer was lost finds what that has written.
    change_one(session, "UPDATE counters SET value = value WHERE counter = 'executors'")
    found = fetch_one(
        session,
        "SELECT number, executor_id FROM executors"
        " WHERE machine = :machine AND pid = :pid AND started_at_ms = :at_ms",
        machine=machine,
        pid=pid,
        at_ms=at_ms,
    )
    if found is not None:
        return Executor(found.number, found.executor_id)
    counter = fetch_one(
        session, "UPDATE counters SET value = value + 1 WHERE counter = 'executors' RETURNING value"
    )
    executor = Executor(int(counter.value), f"{machine}-{counter.value}")
    before = fetch_one(session, "SELECT stopped_at_ms FROM executors ORDER BY number DESC LIMIT 1")
    change_one(
        session,
        "INSERT INTO executors (number, executor_id, machine, pid, started_at_ms)"
        " VALUES (:number, :executor_id, :machine, :pid, :at_ms)",
        number=executor.number,
        executor_id=executor.executor_id,
        machine=machine,
        pid=pid,
        at_ms=at_ms,
    )
    for death in deaths:
        # No row where it died before it was recorded.
        execute(
            session,
            "UPDATE executors SET died_at_ms = :at_ms WHERE stopped_at_ms IS NULL AND died_at_ms IS NULL"
            " AND started_at_ms BETWEEN :started_at_ms AND :at_ms AND number ="
            " (SELECT max(number) FROM executors WHERE machine = :machine AND pid = :pid)",
            machine=machine,
            pid=death.pid,
            started_at_ms=death.started_at_ms,
            at_ms=death.at_ms,
        )
    if before is not None and before.stopped_at_ms is None:
        _record_recoveries(session, executor.number)
    return executor


def _record_recoveries(session: Session, number: int) -> None:
    """What a crash has left under way, as it stands: nothing moves before this one takes it up."""
    execute(
        session,
        "INSERT INTO recoveries (payment_id, executor, status, progress)"
        " SELECT payment_id, :number, status, progress FROM orders WHERE status IN ('pending', 'paid')",
        number=number,
    )
    execute(
        session,
        "INSERT INTO greeting_recoveries (greeting_id, executor)"
        " SELECT greeting_id, :number FROM greeting_requests WHERE outcome IS NULL",
        number=number,
    )


def record_stop(session: Session, number: int) -> None:
    """Record that a server process ends in good order."""
    change_one(
        session,
        "UPDATE executors SET stopped_at_ms = :at_ms WHERE number = :number",
        at_ms=now_ms(),
        number=number,
    )


def claim_predecessors(number: int) -> int:
    """Claim the workflows of every executor before this one that nobody has taken up; how many executors.

    The claim is one UPDATE, so of two that claim at the same time one gets each of them. A claimant that dies
    before `record_adoption` has not taken them up: the next one claims them with its own.
    """
    return commit(_claim_predecessors, number)


def _claim_predecessors(session: Session, number: int) -> int:
    return execute(
        session,
        "UPDATE executors SET adopted_by = :number WHERE number < :number AND adopted_at_ms IS NULL",
        number=number,
    )


def record_adoption(number: int) -> None:
    """Record that this executor has taken up all that it has claimed."""
    commit(_record_adoption, number)


def _record_adoption(session: Session, number: int) -> None:
    execute(
        session,
        "UPDATE executors SET adopted_at_ms = :at_ms WHERE adopted_by = :number AND adopted_at_ms IS NULL",
        at_ms=now_ms(),
        number=number,
    )


def record_mending(workflow_id: str, reason: str) -> int:
    """Record that a workflow was found stuck, and why, before it is run again; which try this is, from 1."""
    return commit(_record_mending, workflow_id, reason)


def _record_mending(session: Session, workflow_id: str, reason: str) -> int:
    mending = fetch_one(
        session,
        "INSERT INTO mendings (workflow_id, attempt, reason, mended_at_ms)"
        " SELECT :id, count(*) + 1, :reason, :at_ms FROM mendings WHERE workflow_id = :id"
        " RETURNING attempt",
        id=workflow_id,
        reason=reason,
        at_ms=_now_ms_of_database(session),
    )
    return int(mending.attempt)


def _now_ms_of_database(session: Session) -> int:
    """By the clock that DBOS dates workflows by, which on Postgres may be that of another machine."""
    if session.get_bind().dialect.name == "sqlite":
        return now_ms()
    return int(fetch_one(session, "SELECT extract(epoch FROM clock_timestamp()) * 1000 AS at_ms").at_ms)


def record_lost_checkpoints(workflow_ids: Sequence[str]) -> None:
    """Record that the checkpoints of these workflows are gone, though what they have made is here."""
    for first in range(0, len(workflow_ids), _BATCH):
        commit(_record_lost_checkpoints, workflow_ids[first : first + _BATCH])


def _record_lost_checkpoints(session: Session, workflow_ids: Sequence[str]) -> None:
    for workflow_id in workflow_ids:
        # No row changes where this was found at an earlier start.
        execute(
            session,
            "INSERT INTO lost_checkpoints (workflow_id, found_at_ms) VALUES (:id, :at_ms)"
            " ON CONFLICT DO NOTHING",
            id=workflow_id,
            at_ms=now_ms(),
        )
