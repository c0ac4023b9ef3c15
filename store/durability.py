"""Owns DBOS itself: how it is configured, launched, and left.

Imports `config`, `database`, `executors`, `files`, `masking`, `patience`, `steps`, `unwitnessed`, `witnesses`
and `workflows`.
"""

from __future__ import annotations

import concurrent.futures.thread
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SQLAlchemyDatasource, _sys_db
from dbos._serialization import DefaultSerializer
from dbos._sys_db import SystemDatabase
from flask import Flask, abort
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from store import executors, files, steps, workflows
from store.config import Settings, is_sqlite
from store.database import DatabaseRefused, Databases, for_a_last_word
from store.masking import MaskWorkflowIds, mask
from store.patience import promptly
from store.unwitnessed import record_lost_checkpoints
from store.witnesses import Witnesses

APPLICATION_VERSION = "widget-store-2"
"""Recovery takes up only workflows of its own version. It stays the same while running orders
must be able to go on: a change to a workflow that an order may be in the middle of is made
behind `DBOS.patch`, not by a new version, which would leave that order waiting for ever."""

APPLICATION_NAME = "widget-store"
EXECUTOR_ID = "local"
"""At its launch, DBOS takes up what was left by whoever had the same executor id."""

# On SQLite, DBOS looks for messages this often. Each look costs a read for every shopper who
# is about to pay; 20 ms keeps Buy Now near-instant and a hundred of them affordable.
_SQLITE_POLL_SECONDS = 0.02
# On Postgres it is told, and gathers what it is told for this long: 1 ms halves Buy Now.
_POSTGRES_GATHER_SECONDS = 0.001

# Whoever waits for a message on Postgres looks for it themselves this often, too: what was sent while DBOS's
# listener was without a connection, as in the second after Postgres came back, wakes nobody. DBOS has 60.
_POSTGRES_LOOK_SECONDS = 5.0

# DBOS tries a lost database again after 1, 2, 4 … 60 s. A minute is too long once it is back.
_LONGEST_RETRY_PAUSE_SECONDS = 5.0

GREETINGS = "greetings"
"""The queue of those greetings that find others under way, and wait for their turn without a thread."""
GREETINGS_AT_ONCE = 16
MENDINGS = "mendings"
"""The queue of workflows that are run again because they were stuck; see `reconciler`."""
_QUEUE_POLL_SECONDS = 1.0

_LAUNCH_SECONDS = 60.0
_RECOVERY_POLL_SECONDS = 0.05
_RECOVERY_SECONDS = 10.0
_log = logging.getLogger("store")


class _Launched:
    """What this process has launched; nothing at first."""

    generation = 0
    settings: Settings
    is_complete = False
    has_said_goodbye = False


class PickleRefused(Exception):
    """A checkpoint is labelled as a pickle, and was not read."""


def refuse_pickles() -> None:
    """Have DBOS raise PickleRefused where it would unpickle, which runs whatever code the pickle names.

    DBOS believes the label of each row, whatever serializer it is given, so whoever can write to the
    checkpoints could run code here. A private name: DBOS has no setting for it.
    """

    def refuse(cls: DefaultSerializer, serialized_data: str) -> NoReturn:  # noqa: ARG001 - DBOS's names
        # Of the inputs of a workflow, DBOS itself names the workflow in its log.
        _log.error(mask(f"a checkpoint read by workflow {DBOS.workflow_id} is labelled py_pickle: refused"))
        raise PickleRefused(
            "A checkpoint is labelled py_pickle and was not read, because this shop writes none: "
            "find out who wrote it."
        )

    DefaultSerializer.deserialize = refuse  # type: ignore[method-assign]


def launch(
    settings: Settings, databases: Databases, witnesses: Witnesses, once_launched: Callable[[], None]
) -> None:
    """Start DBOS in this process; it takes up every order that the last one left.

    Raises:
        DatabaseRefused: another server has the SQLite file.
    """
    _take_sqlite_files(settings)
    refuse_pickles()
    config: DBOSConfig = {
        "name": APPLICATION_NAME,
        "application_version": APPLICATION_VERSION,
        "executor_id": EXECUTOR_ID,
        "system_database_url": settings.system_database_url,
        "system_database_engine": databases.system,
        "notification_listener_polling_interval_sec": _SQLITE_POLL_SECONDS,
        "notification_coalesce_sec": _POSTGRES_GATHER_SECONDS,
        # Checkpoints are data. JSON cannot run code when it is read back; a pickle can.
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "WARNING",
    }
    dbos = DBOS(config=config)
    steps.bind(
        SQLAlchemyDatasource.create(
            settings.database_url, engine=databases.store, serializer=DBOSPortableJSONSerializer()
        )
    )
    workflows.Terms.payment_window_ms = round(settings.payment_window_seconds * 1000)
    workflows.Terms.tick_ms = round(settings.dispatch_tick_seconds * 1000)
    workflows.Terms.unpaid_per_client = settings.unpaid_per_client
    workflows.Terms.greetings_per_client = settings.greetings_per_client
    workflows.Terms.greeting_window_ms = round(settings.greeting_window_seconds * 1000)
    workflows.Terms.guestbook_url = settings.guestbook_url
    _Launched.settings = settings
    _note_lost_checkpoints(databases, witnesses)
    _Launched.generation = executors.record_start(EXECUTOR_ID, os.getpid())
    # A private name: DBOS has no setting for it.
    SystemDatabase._notification_fallback_polling_interval = _POSTGRES_LOOK_SECONDS  # noqa: SLF001
    _hurry_recovery(dbos)
    retry_soon()
    for handler in logging.getLogger("dbos").handlers:
        handler.addFilter(MaskWorkflowIds())
    # In a daemon thread, because the threads that run workflows inherit that from it.
    promptly(DBOS.launch, _LAUNCH_SECONDS)
    DBOS.register_queue(
        GREETINGS, worker_concurrency=GREETINGS_AT_ONCE, polling_interval_sec=_QUEUE_POLL_SECONDS
    )
    DBOS.register_queue(MENDINGS, polling_interval_sec=_QUEUE_POLL_SECONDS)
    _Launched.is_complete = True
    once_launched()


def _note_lost_checkpoints(databases: Databases, witnesses: Witnesses) -> None:
    try:
        lost = record_lost_checkpoints(databases, witnesses)
    except DBAPIError as error:
        # The first start of all, when DBOS has no tables yet, or one after it has learnt new columns. To open
        # is worth more than to know.
        _log.info("did not look for lost checkpoints: %s", str(error.orig).splitlines()[0])
    else:
        if lost:
            _log.warning("%d orders, greetings or restocks have lost their checkpoints: see the books", lost)


def _take_sqlite_files(settings: Settings) -> None:
    """Keep other servers from these files: each would take up the orders of the other as those of a crash."""
    for variable, url in (
        ("DBOS_DATABASE_URL", settings.database_url),
        ("DBOS_SYSTEM_DATABASE_URL", settings.system_database_url),
    ):
        if not is_sqlite(url):
            continue
        try:
            is_ours = files.lock(Path(make_url(url).database or ""))
        except OSError as error:
            raise DatabaseRefused(
                f"The SQLite file that {variable} names cannot be locked ({error.strerror}): "
                "its folder must be on a disk of this machine that we may write to."
            ) from error
        if not is_ours:
            raise DatabaseRefused(
                f"Another server has the SQLite file that {variable} names: "
                "stop it, name another file, or use Postgres for several servers."
            )


class _Clock:
    """The module `time`, whose `sleep` is over after `_LONGEST_RETRY_PAUSE_SECONDS`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, _LONGEST_RETRY_PAUSE_SECONDS))


def retry_soon() -> None:
    """Have DBOS try a lost database again within five seconds, and not after a minute.

    The pause is a default of a decorator, and no setting; what can be reached is the clock that the module
    sleeps by. Everything else that sleeps there does so for less.
    """
    vars(_sys_db)["time"] = _Clock()


def _hurry_recovery(dbos: DBOS) -> None:
    """Have what a crash interrupted taken up at once, instead of a second after the start.

    DBOS puts it on a queue of its own, at which it looks every second, the first time after
    one; DBOS has no setting for that. For the first seconds of a process it looks more often.
    """
    queue = dbos._registry.get_internal_queue()  # noqa: SLF001 - see above
    usual = queue._polling_interval_sec  # noqa: SLF001

    def look_every(seconds: float) -> None:
        queue._polling_interval_sec = seconds  # noqa: SLF001

    look_every(_RECOVERY_POLL_SECONDS)
    back_to_usual = threading.Timer(_RECOVERY_SECONDS, look_every, [usual])
    back_to_usual.daemon = True
    back_to_usual.start()


def is_launched() -> bool:
    """Whether this process runs workflows."""
    return _Launched.is_complete


def generation() -> int:
    """Which of the shop's server processes this one is, from 1 up; 0 if it runs no workflows."""
    return _Launched.generation


def launch_at_first_request(
    app: Flask,
    settings: Settings,
    databases: Databases,
    witnesses: Witnesses,
    once_launched: Callable[[], None],
) -> None:
    """Launch in a process that may never serve only once it does."""
    lock = threading.Lock()

    @app.before_request
    def launch_once() -> None:
        with lock:
            if not is_launched():
                try:
                    launch(settings, databases, witnesses, once_launched)
                except DatabaseRefused as refusal:
                    abort(503, str(refusal))


def _leave_workflows_where_they_are() -> None:
    """Let the process end while workflows wait; the next one goes on with them.

    A shopper who is about to pay is a thread waiting in `recv`, and Python joins the threads
    of a ThreadPoolExecutor before it ends, daemons or not: Ctrl+C, or a reload by
    `flask run --debug`, would wait out the payment window. The executor is DBOS's own, so
    the only way to take its threads off Python's list is by name. Where a future Python has
    no such list, the process ends later, and nothing worse happens.
    """
    say_goodbye()
    joined = getattr(concurrent.futures.thread, "_threads_queues", {})
    for thread in list(joined):
        if thread.name.startswith("dbos-executor-"):
            joined.pop(thread, None)


def say_goodbye() -> None:
    """Record that this process was stopped in good order, if the database answers soon. Once."""
    if not generation() or _Launched.has_said_goodbye:
        return
    _Launched.has_said_goodbye = True
    engine = for_a_last_word(_Launched.settings)
    try:
        with Session(engine) as session, session.begin():
            executors.record_stop(session, generation())
    except DBAPIError as error:
        # Then the next start takes it for a crash, which to the orders is the same.
        _log.warning("could not record the stop: %s", str(error.orig).splitlines()[0])
    finally:
        engine.dispose()


# Called last in, first out, so before the executor's own, which joins.
if hasattr(threading, "_register_atexit"):
    # The public atexit comes after Python has joined the threads, which is too late.
    threading._register_atexit(_leave_workflows_where_they_are)  # noqa: SLF001
