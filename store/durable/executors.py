"""The record of the server processes that run the workflows, and of the workflows that were run again.

It writes tables of its own, outside of any workflow: it is about what runs them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from store.durable.steps import change_one, commit, now_ms, row, run

_BATCH = 500


def record_start(executor_id: str, pid: int) -> int:
    """Record that a server process begins, before it takes up any order; its generation, 1 for the first.

    If the one before it was not stopped in good order, what that one left under way is
    recorded as recovered by this one.
    """
    return commit(_record_start, executor_id, pid)


def _record_start(session: Session, executor_id: str, pid: int) -> int:
    counter = row(
        session, "UPDATE counters SET value = value + 1 WHERE counter = 'generations' RETURNING value"
    )
    before = row(
        session,
        "SELECT stopped_at_ms FROM generations WHERE executor_id = :executor_id"
        " ORDER BY generation DESC LIMIT 1",
        executor_id=executor_id,
    )
    change_one(
        session,
        "INSERT INTO generations (generation, executor_id, pid, started_at_ms)"
        " VALUES (:generation, :executor_id, :pid, :at_ms)",
        generation=counter.value,
        executor_id=executor_id,
        pid=pid,
        at_ms=now_ms(),
    )
    if before is not None and before.stopped_at_ms is None:
        run(
            session,
            "INSERT INTO recoveries (payment_id, generation)"
            " SELECT payment_id, :generation FROM orders WHERE status IN ('pending', 'paid')",
            generation=counter.value,
        )
    return int(counter.value)


def record_stop(session: Session, generation: int) -> None:
    """Record that a server process ends in good order."""
    change_one(
        session,
        "UPDATE generations SET stopped_at_ms = :at_ms WHERE generation = :generation",
        at_ms=now_ms(),
        generation=generation,
    )


def record_mending(workflow_id: str, reason: str) -> int:
    """Record that a workflow was found stuck, and why, before it is run again; which try this is, from 1."""
    return commit(_record_mending, workflow_id, reason)


def _record_mending(session: Session, workflow_id: str, reason: str) -> int:
    mending = row(
        session,
        "INSERT INTO mendings (workflow_id, attempt, reason, mended_at_ms)"
        " SELECT :id, count(*) + 1, :reason, :at_ms FROM mendings WHERE workflow_id = :id"
        " RETURNING attempt",
        id=workflow_id,
        reason=reason,
        at_ms=now_ms(),
    )
    return int(mending.attempt)


def record_lost_checkpoints(workflow_ids: Sequence[str]) -> None:
    """Record that the checkpoints of these workflows are gone, though what they have made is here."""
    for first in range(0, len(workflow_ids), _BATCH):
        commit(_record_lost_checkpoints, workflow_ids[first : first + _BATCH])


def _record_lost_checkpoints(session: Session, workflow_ids: Sequence[str]) -> None:
    for workflow_id in workflow_ids:
        # No row changes where this was found at an earlier start.
        run(
            session,
            "INSERT INTO lost_checkpoints (workflow_id, found_at_ms) VALUES (:id, :at_ms)"
            " ON CONFLICT DO NOTHING",
            id=workflow_id,
            at_ms=now_ms(),
        )
