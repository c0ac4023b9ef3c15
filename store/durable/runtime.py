"""DBOS in this process: how it is configured, launched, and left."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer
from flask import Flask, abort
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from store import sqlite_files
from store.database import Databases, for_a_last_word, for_signs_of_life, why_too_many
from store.database_errors import DatabaseRefused
from store.durable import executors_table, private_names, step_decorators
from store.durable.adoption import Adopter
from store.durable.deadlines import call_with_deadline
from store.durable.lease import Lease
from store.durable.private_names import step_statements, waiters
from store.durable.statements import now_ms_of_database
from store.durable.step_decorators import now_ms
from store.log_masking import MaskWorkflowIds
from store.process_wide import ProcessWide
from store.settings import Settings, is_sqlite

APPLICATION_VERSION = "widget-store-2"
"""Recovery takes up only workflows of its own version. It stays the same while running orders
must be able to go on: a change to a workflow that an order may be in the middle of is made
behind `DBOS.patch`, not by a new version, which would leave that order waiting for ever."""

APPLICATION_NAME = "widget-store"

# How long a DBOS on Postgres gathers events whose part `waiters` does not take: 1 ms halves Buy Now.
_POSTGRES_GATHER_SECONDS = 0.001
# DBOS lets half as many waiters look at once as there are connections: on SQLite, one. After a crash a click
# would look after all those who wait to pay. Without that limit they queue for a connection, as everybody.
_LOOKS_ARE_NOT_LIMITED = 0
# Between two looks at whether a message has woken nobody.
_LOOK_SECONDS = 5.0

# DBOS tries a lost database again after 1, 2, 4 … 60 s. A minute is too long once it is back.
_LONGEST_RETRY_PAUSE_SECONDS = 5.0

GREETINGS = "greetings"
"""The queue of those greetings that find others under way, and wait for their turn without a thread."""
GREETINGS_AT_ONCE = 16
MENDINGS = "mendings"
"""The queue of workflows that are run again because they were stuck; see `reconciler`."""
_QUEUE_POLL_SECONDS = 1.0

_LAUNCH_SECONDS = 60.0
_MOST_AHEAD_SECONDS = 60.0
_log = logging.getLogger("store")


@dataclass(frozen=True)
class Calls:
    """What a launch calls on its way."""

    before: Callable[[], None] = lambda: None
    """When changes can be written and nothing runs yet."""
    once_recorded: Callable[[], None] = lambda: None
    """Once this process has a row among the executors: it can say which server it is."""
    after: Sequence[Callable[[], None]] = ()
    """Once workflows may run and before any is taken up."""


@dataclass(frozen=True)
class _Launched:
    """What this process has launched."""

    settings: Settings
    executor: executors_table.Executor
    lease: Lease | None
    """None where the process has the SQLite file to itself."""


_launched: ProcessWide[_Launched] = ProcessWide("the launch of DBOS")
_is_complete = threading.Event()
_has_said_goodbye = threading.Event()


def client_of(settings: Settings, engine: sa.Engine | None = None) -> DBOSClient:
    """A client of the checkpoints, beside the server that runs them; with an `engine`, one that waits."""
    return DBOSClient(
        system_database_url=settings.system_database_url,
        system_database_engine=engine,
        serializer=DBOSPortableJSONSerializer(),
        application_name=APPLICATION_NAME,
        lazy=True,
        retry_connection_errors=engine is not None,
    )


def launch(
    settings: Settings,
    databases: Databases,
    *,
    told: executors_table.Told,
    calls: Calls,
) -> None:
    """Start DBOS in this process; it takes up every workflow that others have left.

    Raises:
        DatabaseRefused: another server has the SQLite file.
    """
    _take_sqlite_files(settings)
    # All that DBOS says goes through it, also of what pages read before the launch.
    logging.getLogger("dbos").addFilter(MaskWorkflowIds())
    private_names.refuse_pickles()
    step_decorators.bind_to(settings.database_url, databases.store)
    _check_sharing(settings, databases)
    calls.before()
    executor = executors_table.record_start(_identity(settings, told.token), told.deaths)
    client = client_of(settings, databases.system)
    adopter = Adopter(executor, client, databases, APPLICATION_VERSION, may_begin)
    lease = None
    if not is_sqlite(settings.database_url):
        lease = Lease(executor, for_signs_of_life(settings), settings.lease_seconds, adopter.want)
        lease.begin()
    _launched.set(_Launched(settings, executor, lease))
    calls.once_recorded()
    adopter.before_launch()
    config: DBOSConfig = {
        "name": APPLICATION_NAME,
        "application_version": APPLICATION_VERSION,
        "executor_id": executor.executor_id,
        "system_database_url": settings.system_database_url,
        "system_database_engine": databases.system,
        "notification_coalesce_sec": _POSTGRES_GATHER_SECONDS,
        "sys_db_polling_concurrency": _LOOKS_ARE_NOT_LIMITED,
        # Checkpoints are data. JSON cannot run code when it is read back; a pickle can.
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "WARNING",
    }
    DBOS(config=config)
    step_statements.prepare_hot_statements()
    waiters.wake_waiters_in_this_process()
    waiters.look_for_all_waiters_every(_LOOK_SECONDS)
    private_names.retry_lost_databases_within(_LONGEST_RETRY_PAUSE_SECONDS)
    # In a daemon thread, because the threads that run workflows inherit that from it.
    call_with_deadline(DBOS.launch, _LAUNCH_SECONDS)
    DBOS.register_queue(
        GREETINGS, worker_concurrency=GREETINGS_AT_ONCE, polling_interval_sec=_QUEUE_POLL_SECONDS
    )
    DBOS.register_queue(MENDINGS, polling_interval_sec=_QUEUE_POLL_SECONDS)
    _is_complete.set()
    for call in calls.after:
        call()
    adopter.begin()


def _check_sharing(settings: Settings, databases: Databases) -> None:
    """Refuse what several processes or machines could not share."""
    if is_sqlite(settings.database_url):
        return
    if why_not := why_too_many(settings, databases.store):
        raise DatabaseRefused(why_not)
    ahead_ms: int = step_decorators.commit(lambda session: now_ms() - now_ms_of_database(session))
    ahead_seconds = ahead_ms / 1000
    if abs(ahead_seconds) > _MOST_AHEAD_SECONDS:
        way = "ahead of" if ahead_seconds > 0 else "behind"
        raise DatabaseRefused(
            f"The clock of this machine is {abs(ahead_seconds):.0f} s {way} that of the database, and "
            "machines that share orders must agree on when one expires: set it right."
        )


def _identity(settings: Settings, token: str) -> executors_table.Identity:
    lease_ms = None if is_sqlite(settings.database_url) else round(settings.lease_seconds * 1000)
    return executors_table.Identity(
        settings.machine_name, os.getpid(), token or secrets.token_hex(8), lease_ms
    )


def _take_sqlite_files(settings: Settings) -> None:
    """Keep other servers from these files: each would take up the orders of the other as those of a crash."""
    for variable, url in (
        ("DBOS_DATABASE_URL", settings.database_url),
        ("DBOS_SYSTEM_DATABASE_URL", settings.system_database_url),
    ):
        if not is_sqlite(url):
            continue
        try:
            is_ours = sqlite_files.lock(Path(make_url(url).database or ""))
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


def is_launched() -> bool:
    """Whether this process runs workflows."""
    return _is_complete.is_set()


def executor_number() -> int:
    """Which of the shop's server processes this one is, from 1 up; 0 if it runs no workflows."""
    return _launched().executor.number if _launched.is_set else 0


def note_death(death: executors_table.Death) -> None:
    """Have what another process of this parent has left taken up, once it was seen to die."""
    lease = _launched().lease if _launched.is_set else None
    if lease is not None:
        lease.note(death)


def may_begin() -> bool:
    """Whether this process may begin something: not once others may have counted it as lost."""
    lease = _launched().lease if _launched.is_set else None
    return lease is None or lease.is_good


def launch_at_first_request(app: Flask, launch: Callable[[], None]) -> None:
    """Launch in a process that may never serve only once it does."""
    lock = threading.Lock()

    @app.before_request
    def launch_once() -> None:
        with lock:
            if not is_launched():
                try:
                    launch()
                except DatabaseRefused as refusal:
                    abort(503, str(refusal))


def say_goodbye() -> None:
    """Record that this process was stopped in good order, if the database answers soon. Once."""
    if not _launched.is_set or _has_said_goodbye.is_set():
        return
    _has_said_goodbye.set()
    engine = for_a_last_word(_launched().settings)
    try:
        with Session(engine) as session, session.begin():
            executors_table.record_stop(session, _launched().executor.token)
    except DBAPIError as error:
        # Then the next start takes it for a crash, which to the orders is the same.
        _log.warning("could not record the stop: %s", str(error.orig).splitlines()[0])
    finally:
        engine.dispose()


def _leave() -> None:
    say_goodbye()
    private_names.do_not_join_workflow_threads()


private_names.before_threads_are_joined(_leave)
