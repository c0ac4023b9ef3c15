"""Reads of what DBOS has recorded: which workflows there are, and what each has done.

A page reads it as it reads the store: over connections of its own, which only read, and with a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from dbos import DBOSClient, DBOSPortableJSONSerializer, error
from sqlalchemy.exc import DBAPIError

from store.durable.deadlines import DeadlineExceeded, call_with_deadline
from store.reads.time_limit import is_within_a_read
from store.vocabulary import CHECKOUT

T = TypeVar("T")
_BATCH = 500
_REMEMBERED = 10_000
AWAY = (DBAPIError, sa.exc.TimeoutError, error.DBOSQueryTimeoutError)
"""What a client that reads raises where the checkpoints cannot be read now."""


def reading_client(system_reader: sa.Engine) -> DBOSClient:
    """A client that only reads, and asks once: a page cannot wait as long as a workflow can."""
    return DBOSClient(
        system_database_engine=system_reader,
        serializer=DBOSPortableJSONSerializer(),
        lazy=True,
        retry_connection_errors=False,
        observability_query_timeout_sec=0,  # the reader has its own
    )


class Checkpoints:
    """What pages ask. Each call raises DeadlineExceeded where the checkpoints cannot be read now."""

    def __init__(self, system_reader: sa.Engine) -> None:
        self._client = reading_client(system_reader)
        # Whoever waits for an order asks often, and what was started once stays so.
        self._is_started = lru_cache(maxsize=_REMEMBERED)(self._look_whether_started)

    def is_known_checkout(self, payment_id: str) -> bool:
        """Whether a checkout of this id was started, though its order may not exist yet."""
        try:
            return self._is_started(payment_id)
        except _Unknown:
            return False

    def _look_whether_started(self, payment_id: str) -> bool:
        # An exception, because those are not cached.
        [workflow] = self.list_workflows(payment_id) or [None]
        if workflow is None or workflow.name != CHECKOUT:
            raise _Unknown(payment_id)
        return True

    def list_steps(self, *workflow_ids: str) -> list[Mapping[str, Any]]:
        """What DBOS has recorded of them, one after the other, as its `list_workflow_steps` has it.

        An output that cannot be read, because it is no JSON, is the text of it.
        """

        def read() -> list[Mapping[str, Any]]:
            return [step for each in workflow_ids for step in self._client.list_workflow_steps(each)]

        return _answer(read)

    def list_workflows(self, *workflow_ids: str) -> list[Any]:
        """Those of these workflows that there are, as DBOS's `list_workflows` has them."""

        def read() -> list[Any]:
            return self._client.list_workflows(
                workflow_ids=list(workflow_ids), load_input=False, load_output=False
            )

        return _answer(read)

    def runs_on(self, *workflow_ids: str) -> str:
        """Which executor runs the last of them that there is, or ran it at its end, as DBOS calls it."""
        by_id = {each.workflow_id: each.executor_id or "" for each in self.list_workflows(*workflow_ids)}
        return next((by_id[each] for each in reversed(workflow_ids) if by_id.get(each)), "")


class _Unknown(Exception):
    """Nothing has been started by this name, yet."""


def _answer(call: Callable[[], T]) -> T:
    try:
        return call() if is_within_a_read() else call_with_deadline(call)
    except AWAY as trouble:
        raise DeadlineExceeded("the checkpoints cannot be read") from trouble


def as_time(milliseconds: int) -> datetime:
    """A time as the databases keep it, aware and in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def as_filter(milliseconds: int) -> str:
    """A time as DBOS's filters take it: of what a float makes of it, they cut off all below a millisecond."""
    return datetime.fromtimestamp((milliseconds + 0.5) / 1000, UTC).isoformat()


@dataclass(frozen=True)
class Place:
    """How far workflows were gone through, newest first."""

    until_ms: int | None = None
    """Next come those that began at this time, in ms since 1970, or before; None for any time."""
    seen: frozenset[str] = frozenset()
    """Those of that very millisecond that were seen: the databases give them in any order."""


NEWEST = Place()


def newest_first(
    client: DBOSClient, names: Sequence[str], after: Place, size: int
) -> tuple[list[Any], Place]:
    """The next `size` workflows of these names after a place, and the place then: `NEWEST` after the oldest.

    A time and not an offset, because to leave out half a million rows, a database reads them.
    """
    limit = size + len(after.seen)
    found = client.list_workflows(
        name=list(names),
        end_time=None if after.until_ms is None else as_filter(after.until_ms),
        sort_desc=True,
        limit=limit,
        load_input=False,
        load_output=False,
    )
    unseen = [each for each in found if each.workflow_id not in after.seen]
    batch = unseen[:size]
    if len(found) < limit and len(unseen) <= size:
        return batch, NEWEST
    until_ms = batch[-1].created_at
    seen = frozenset(each.workflow_id for each in batch if each.created_at == until_ms)
    return batch, Place(until_ms, seen | after.seen if until_ms == after.until_ms else seen)


def workflows_of(client: DBOSClient, ids: Iterable[str], *, load_output: bool = False) -> dict[str, Any]:
    """The workflows of these ids that there are, with what they returned if that is wanted."""
    wanted = list(ids)
    found: dict[str, Any] = {}
    for first in range(0, len(wanted), _BATCH):
        batch = wanted[first : first + _BATCH]
        for each in client.list_workflows(workflow_ids=batch, load_input=False, load_output=load_output):
            found[each.workflow_id] = each
    return found
