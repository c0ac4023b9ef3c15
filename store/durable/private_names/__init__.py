"""Private names of DBOS and of Python that the store reaches for, each with its reason, and nowhere else.

Each is here because there is no public way. `tests/test_private_names.py` fails when one of them is gone,
or has come to mean something else: look here first when a version moves. `step_statements` has what a
step's checkpoint is written with, `waiters` who is woken when, and this module the rest.
"""

from __future__ import annotations

import concurrent.futures.thread
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import sqlalchemy as sa
from dbos import DBOS, DBOSPortableJSONSerializer, _sys_db
from dbos._serialization import DefaultSerializer

from store.log_masking import mask
from store.statement_text import text

_log = logging.getLogger("store")


class PickleRefused(Exception):
    """A checkpoint is labelled as a pickle, and was not read."""


def refuse_pickles() -> None:
    """Have DBOS raise PickleRefused where it would unpickle, which runs whatever code the pickle names.

    DBOS believes the label of each row, whatever serializer it is given, so anyone who can write to the
    checkpoints could run code here.
    """

    def refuse(cls: DefaultSerializer, serialized_data: str) -> NoReturn:  # noqa: ARG001 - DBOS's names
        # Of the inputs of a workflow, DBOS itself names the workflow in its log.
        _log.error(mask(f"a checkpoint read by workflow {DBOS.workflow_id} is labelled py_pickle: refused"))
        raise PickleRefused(
            "A checkpoint is labelled py_pickle and was not read, because this shop writes none: "
            "find out who wrote it."
        )

    DefaultSerializer.deserialize = refuse  # type: ignore[method-assign]


class _ImpatientClock:
    """The module `time`, except that `sleep` ends after so many seconds."""

    def __init__(self, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, self._longest_seconds))


def retry_lost_databases_within(seconds: float) -> None:
    """Have DBOS try a lost database again within so many seconds, where it would wait 1, 2, 4 … 60.

    The pause is a default of a decorator, and no setting. What can be reached is the clock that the module
    sleeps by; everything else that sleeps there does so for less.
    """
    vars(_sys_db)["time"] = _ImpatientClock(seconds)


def unread_messages(checkpoints: sa.Engine, workflow_id: str) -> list[Any]:
    """What was sent to a workflow and not received by it, oldest first.

    DBOS deletes these messages with the workflow, and has no call that reads them.
    """
    schema = "" if checkpoints.dialect.name == "sqlite" else "dbos."
    unread = text(
        f"SELECT message FROM {schema}notifications"  # noqa: S608 - ours
        " WHERE destination_uuid = :id AND NOT consumed ORDER BY created_at_epoch_ms"
    )
    with checkpoints.connect() as connection:
        messages = connection.execute(unread, {"id": workflow_id}).scalars().all()
    return [DBOSPortableJSONSerializer().deserialize(message) for message in messages]


def before_threads_are_joined(call: Callable[[], None]) -> None:
    """Have `call` called as the process ends, before Python waits for its threads.

    The public `atexit` comes after that. Where a later Python has no such list, nothing is called.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(call)  # last in, first out: so before the executor's own, which joins


def do_not_join_workflow_threads() -> None:
    """Let the process end while workflows wait in it; the next process goes on with them.

    A shopper who is about to pay is a thread waiting in `recv`, and Python joins the threads of a
    ThreadPoolExecutor before it ends, daemons or not: Ctrl+C, or a reload by `flask run --debug`, would wait
    out the payment window. The executor is DBOS's own, so its threads are known by their name. Where a later
    Python has no such list, the process ends later, and nothing worse happens.
    """
    joined = getattr(concurrent.futures.thread, "_threads_queues", {})
    for thread in list(joined):
        if thread.name.startswith("dbos-executor-"):
            joined.pop(thread, None)
