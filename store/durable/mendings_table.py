"""The record of the workflows that were run again, or whose checkpoints are gone.

It writes tables of its own, outside of any workflow: it is about what went wrong with some.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from store.durable.statements import execute, fetch_one, now_ms_of_database
from store.durable.step_decorators import commit, now_ms

_BATCH = 500


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
        at_ms=now_ms_of_database(session),
    )
    return int(mending.attempt)


def record_lost_checkpoints(workflow_ids: Sequence[str]) -> None:
    """Record that the checkpoints of these workflows are gone, though what they have made is here."""
    for first in range(0, len(workflow_ids), _BATCH):
        commit(_record_lost_checkpoints, workflow_ids[first : first + _BATCH])


def record_removed_checkpoints(closing: int) -> None:
    """Record that the checkpoints of what this closing has sealed are gone, before the first of them is."""
    commit(_record_removed_checkpoints, closing)


def _record_removed_checkpoints(session: Session, closing: int) -> None:
    # No row changes where another process has recorded it.
    execute(
        session,
        "INSERT INTO removed_checkpoints (closing, removed_at_ms) VALUES (:closing, :at_ms)"
        " ON CONFLICT DO NOTHING",
        closing=closing,
        at_ms=now_ms(),
    )


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
