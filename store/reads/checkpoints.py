"""Reads of what DBOS has recorded: which workflows there are, and what each has done.

Each may wait for the checkpoints' database, and gives up with DeadlineExceeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from dbos import DBOS, DBOSClient

from store.durable.deadlines import call_with_deadline
from store.vocabulary import CHECKOUT

_BATCH = 500


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


def list_steps(*workflow_ids: str) -> list[Mapping[str, Any]]:
    """What DBOS has recorded of these workflows, one after the other, as its `list_workflow_steps` has it.

    An output that cannot be read, because it is no JSON, is the text of it.

    Raises:
        DeadlineExceeded: the checkpoints cannot be read.
    """

    def read() -> list[Mapping[str, Any]]:
        return [step for workflow_id in workflow_ids for step in DBOS.list_workflow_steps(workflow_id)]

    return call_with_deadline(read)


def runs_on(*workflow_ids: str) -> str:
    """Which executor runs the last of these workflows that there is, or ran it at its end, as DBOS calls it.

    Raises:
        DeadlineExceeded: the checkpoints cannot be read.
    """

    def read() -> str:
        found = DBOS.list_workflows(workflow_ids=list(workflow_ids), load_input=False, load_output=False)
        by_id = {each.workflow_id: each.executor_id or "" for each in found}
        return next((by_id[each] for each in reversed(workflow_ids) if by_id.get(each)), "")

    return call_with_deadline(read)


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
