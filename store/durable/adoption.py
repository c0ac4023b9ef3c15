"""Adoption: a server process takes up the workflows that the ones before it have left.

DBOS itself takes up, at its launch, what an executor of the same id has left. Here each process is an
executor of its own: whose work is taken up, and by whom, is a row that can be looked at, and needs no private
name. `executors.claim_predecessors` comes first, and `executors.record_adoption` last. In between, everything
is taken up that another executor has under way: one server at a time sells from a shop, so all others are
dead. (`DBOS.resume_workflows` asks nobody: with several servers, it must leave the living ones alone.) A
workflow of another application version waits on the queue until a process of that version comes.
"""

from __future__ import annotations

import logging
import threading
import time

import sqlalchemy as sa
from dbos import DBOS, DBOSClient

from store.durable import executors
from store.durable.executors import Executor
from store.log_masking import mask

QUEUE = "adopted"
"""On which workflows wait, for a moment, to be taken up."""
_POLL_SECONDS = 0.05
"""Between two looks at the queue while there is something to take up."""
_IDLE_POLL_SECONDS = 1.0
_LOOK_SECONDS = 0.25
"""Between two looks at whether all are taken up."""
_SECOND_LOOK_SECONDS = 10.0
_AGAIN_SECONDS = 1.0
_log = logging.getLogger("store")


def hurry(client: DBOSClient, checkpoints: sa.Engine) -> None:
    """Have DBOS, which is launched next, look at the queue at once and often, if anything is to be taken up.

    It reads how often from the database as it is launched. Before the very first launch there is no such
    table, and nothing to take up.
    """
    try:
        schema = None if checkpoints.dialect.name == "sqlite" else "dbos"
        with checkpoints.connect() as connection:
            has_queues = sa.inspect(connection).has_table("queues", schema=schema)
        if has_queues:  # with that connection given back: on SQLite there is one
            left = client.list_workflows(status="PENDING", limit=1, load_input=False, load_output=False)
            client.register_queue(QUEUE, polling_interval_sec=_POLL_SECONDS if left else _IDLE_POLL_SECONDS)
    except Exception as trouble:  # noqa: BLE001 - without it, workflows are taken up a second later
        _log.info("cannot hurry: %s", mask(f"{type(trouble).__name__}: {trouble}"))


def begin(executor: Executor) -> None:
    """Take up, in a thread, whatever another executor has left; once DBOS is launched and that is claimed."""

    def run() -> None:
        while True:
            try:
                _adopt(executor)
            except Exception as trouble:  # noqa: BLE001 - whatever it was, they must not be left
                _log.warning("not taken up yet: %s", mask(f"{type(trouble).__name__}: {trouble}"))
                time.sleep(_AGAIN_SECONDS)
            else:
                return

    threading.Thread(target=run, name="adoption", daemon=True).start()


def _adopt(executor: Executor) -> None:
    if _left_by_others(executor):
        DBOS.register_queue(QUEUE, polling_interval_sec=_POLL_SECONDS)
    # Not by the ids of those that were claimed: a restored older copy of the store may not know an executor
    # whose workflows the checkpoints have, and one of the checkpoints brings back what was taken up before.
    _take_up(executor)
    executors.record_adoption(executor.number)
    # Those of another version stay on the queue.
    deadline = time.monotonic() + _SECOND_LOOK_SECONDS
    while _is_waiting() and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    # To look costs the same where nothing is to be found: an idle shop does it seldom.
    DBOS.register_queue(QUEUE, polling_interval_sec=_IDLE_POLL_SECONDS)
    time.sleep(max(0.0, deadline - time.monotonic()))
    _take_up(executor)  # what a predecessor that was still ending has begun meanwhile


def _take_up(executor: Executor) -> None:
    if left := _left_by_others(executor):
        DBOS.resume_workflows(left, queue_name=QUEUE)


def _is_waiting() -> bool:
    """Whether anything on the queue is not taken up yet."""
    return bool(
        DBOS.list_workflows(status="ENQUEUED", queue_name=QUEUE, limit=1, load_input=False, load_output=False)
    )


def _left_by_others(executor: Executor) -> list[str]:
    """The ids of the workflows that are under way, and none of this executor's."""
    under_way = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
    return [each.workflow_id for each in under_way if each.executor_id != executor.executor_id]
