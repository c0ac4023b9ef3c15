"""Adoption: a server process takes up the workflows that the ones before it have left.

DBOS itself takes up, at its launch, what an executor of the same id has left. Here each process is an
executor of its own: whose work is taken up, and by whom, is a row that can be looked at, and needs no private
name. `DBOS.resume_workflows` takes whatever it is given, also from a living executor: nothing is resumed
without the claim of `executors.claim_predecessors`. A workflow of another application version waits on the
queue until a process of that version comes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import sqlalchemy as sa
from dbos import DBOS, DBOSClient
from sqlalchemy.exc import SQLAlchemyError

from store.durable import executors
from store.log_masking import mask

QUEUE = "adopted"
"""On which workflows wait, for a moment, to be taken up."""
_POLL_SECONDS = 0.05
"""Between two looks at the queue while there is something to take up."""
_IDLE_POLL_SECONDS = 1.0
_HURRY_SECONDS = 10.0
_AGAIN_SECONDS = 1.0
_SHARED_ID = "local"
"""The executor id of all processes of a shop before schema version 3."""
_log = logging.getLogger("store")


def hurry(client: DBOSClient, checkpoints: sa.Engine) -> None:
    """Have DBOS, which is launched next, look at the queue at once and often.

    It reads how often from the database as it is launched. Before the very first launch there is no such
    table, and nothing to take up.
    """
    with checkpoints.connect() as connection:
        schema = None if connection.dialect.name == "sqlite" else "dbos"
        if not sa.inspect(connection).has_table("queues", schema=schema):
            return
    client.register_queue(QUEUE, polling_interval_sec=_POLL_SECONDS)


def begin(number: int, claimed: Sequence[str]) -> None:
    """Take up the workflows of these executors, in a thread; once DBOS is launched."""

    def run() -> None:
        while True:
            try:
                _adopt(number, claimed)
            except (
                SQLAlchemyError
            ) as trouble:  # a database that is away again; nothing is lost by trying again
                _log.warning("workflows are not taken up yet: %s", mask(str(trouble).splitlines()[0]))
                time.sleep(_AGAIN_SECONDS)
            else:
                return

    threading.Thread(target=run, name="adoption", daemon=True).start()


def _adopt(number: int, claimed: Sequence[str]) -> None:
    DBOS.register_queue(QUEUE, polling_interval_sec=_POLL_SECONDS if claimed else _IDLE_POLL_SECONDS)
    if not claimed:
        return
    left = DBOS.list_workflows(
        status="PENDING",
        executor_id=[*claimed, _SHARED_ID],
        load_input=False,
        load_output=False,
    )
    if left:
        DBOS.resume_workflows([workflow.workflow_id for workflow in left], queue_name=QUEUE)
    executors.record_adoption(number)
    time.sleep(_HURRY_SECONDS)
    DBOS.register_queue(QUEUE, polling_interval_sec=_IDLE_POLL_SECONDS)
