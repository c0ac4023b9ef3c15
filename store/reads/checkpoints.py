"""Reads of what DBOS has recorded: which workflows there are, and what each has done.

Each may wait for the checkpoints' database, and gives up with DeadlineExceeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from dbos import DBOS, DBOSClient

from store.durable.deadlines import call_with_deadline
from store.vocabulary import CHECKOUT, dispatch_id

_BATCH = 500


@dataclass(frozen=True)
class Checkpoint:
    """One thing that DBOS remembers of an order, and will not do again."""

    name: str
    at: datetime
    """When it was done."""


def is_known_checkout(payment_id: str) -> bool:
    """Whether a checkout of this id was started, though its order may not exist yet.

    Whoever waits for an order asks often, and what was started once stays so: it is remembered.

    Raises:
        DeadlineExceeded: the checkpoints cannot be read.
    """
    try:
        return _is_started(payment_id)
    except _Unknown:
        return False


class _Unknown(Exception):
    """Nothing has been started by this name, yet."""


@lru_cache(maxsize=10_000)
def _is_started(payment_id: str) -> bool:
    # An exception, because those are not cached.
    workflow = call_with_deadline(lambda: DBOS.get_workflow_status(payment_id))
    if workflow is None or workflow.name != CHECKOUT:
        raise _Unknown(payment_id)
    return True


def list_checkpoints(payment_id: str) -> list[Checkpoint]:
    """What DBOS has recorded of an order's checkout, and then of its dispatch."""

    def read() -> list[Checkpoint]:
        steps = [
            step
            for workflow_id in (payment_id, dispatch_id(payment_id))
            for step in DBOS.list_workflow_steps(workflow_id, load_output=False)
        ]
        return checkpoints_of(steps)

    return call_with_deadline(read)


def checkpoints_of(steps: Iterable[Mapping[str, Any]]) -> list[Checkpoint]:
    """The steps that DBOS has recorded, as a page shows them."""
    return [
        Checkpoint(step["function_name"], as_time(step["completed_at_epoch_ms"]))
        for step in steps
        if step["completed_at_epoch_ms"] is not None
    ]


def as_time(milliseconds: int) -> datetime:
    """A time as the databases keep it, aware and in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def workflows_of(client: DBOSClient, ids: Iterable[str], *, load_output: bool = False) -> dict[str, Any]:
    """The workflows of these ids that there are, with what they returned if that is wanted."""
    wanted = list(ids)
    found: dict[str, Any] = {}
    for first in range(0, len(wanted), _BATCH):
        batch = wanted[first : first + _BATCH]
        for each in client.list_workflows(workflow_ids=batch, load_input=False, load_output=load_output):
            found[each.workflow_id] = each
    return found
