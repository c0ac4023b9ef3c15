"""Private names of DBOS and of Python that the store reaches for, each with its reason, and nowhere else.

Each is here because there is no public way. `tests/test_private_names.py` fails when one of them is gone,
or has come to mean something else: look here first when a version moves.
"""

from __future__ import annotations

import concurrent.futures.thread
import importlib.metadata
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import sqlalchemy as sa
from dbos import DBOS, DBOSPortableJSONSerializer, _sys_db, error
from dbos._context import current_owner_xid
from dbos._schemas import SCHEMA_PLACEHOLDER
from dbos._serialization import DefaultSerializer
from dbos._sys_db import SendMessage, SystemDatabase
from dbos._sys_db_sqlite import SQLiteSystemDatabase
from sqlalchemy.dialects import sqlite

from store.log_masking import mask

_NO_TOPIC = _sys_db._dbos_null_topic  # noqa: SLF001
PREPARED_FOR = "3.4.0"
"""The DBOS whose methods `prepare_hot_statements` replaces."""
_NEVER_SECONDS = 24 * 3600.0
_BATCH = 500
"""So many workflows are named in one statement."""
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


def wake_waiters_in_this_process() -> None:
    """Have DBOS on SQLite wake those who wait for a message or an event as soon as that is committed.

    All who write to a SQLite file are in this process. DBOS looks for each waiter by itself, one read each
    every few milliseconds: 200 shoppers about to pay kept its one connection from everybody else.
    """
    send_bulk = SQLiteSystemDatabase.send_bulk

    def signal(self: SQLiteSystemDatabase, channel: str, payload: str) -> None:
        # DBOS calls it for an event; on Postgres, a trigger of the database tells of a message.
        if channel == _sys_db._dbos_workflow_events_channel:  # noqa: SLF001
            _wake(self.workflow_events_map.get(payload))

    def send_and_wake(self: SQLiteSystemDatabase, messages: list[SendMessage], **more: Any) -> None:
        send_bulk(self, messages, **more)
        for message in messages:
            payload, _ = self._waiter(message.destination_id, message.topic or _NO_TOPIC)
            _wake(self.notifications_map.get(payload))

    SQLiteSystemDatabase._signal_notification = signal  # type: ignore[assignment,method-assign]  # noqa: SLF001
    SQLiteSystemDatabase.send_bulk = send_and_wake  # type: ignore[assignment,method-assign]


def _wake(waiter: _sys_db.KeySignal | None) -> None:
    if waiter is not None:
        waiter.set()


def look_for_all_waiters_every(seconds: float) -> None:
    """Have DBOS look this often whether there is something for those who wait, in one statement for many.

    What was sent while DBOS's listener on Postgres had no connection, as in the second after Postgres came
    back, wakes nobody. DBOS has each waiter look by itself, and has no setting for how often.
    """
    SystemDatabase._notification_fallback_polling_interval = _NEVER_SECONDS  # noqa: SLF001
    listen = SystemDatabase.run_notification_listener

    def look(self: SystemDatabase) -> None:
        while self._run_background_processes:
            time.sleep(seconds)
            with suppress(sa.exc.DBAPIError, sa.exc.TimeoutError):  # it is away, and may be back by then
                _wake_all_with_news(self)

    def listen_and_look(self: SystemDatabase) -> None:
        if isinstance(self, SQLiteSystemDatabase):
            self._listener_running = True  # waiters are woken by the writer
            look(self)
        else:
            threading.Thread(target=look, args=[self], name="look for messages", daemon=True).start()
            listen(self)

    SystemDatabase.run_notification_listener = listen_and_look  # type: ignore[method-assign]


def _wake_all_with_news(system: SystemDatabase) -> None:
    messages, events = system.tables.notifications.c, system.tables.workflow_events.c
    unread = sa.select(messages.destination_uuid, messages.topic).where(messages.consumed.is_(False))
    known = sa.select(events.workflow_uuid, events.key)
    for waiters, found, workflow_id in (
        (system.notifications_map, unread, messages.destination_uuid),
        (system.workflow_events_map, known, events.workflow_uuid),
    ):
        waiting = {components[:2]: waiter for _, components, waiter in waiters.snapshot()}
        ids = sorted({workflow for workflow, _ in waiting})
        for first in range(0, len(ids), _BATCH):
            with system.engine.connect() as connection:
                rows = connection.execute(found.where(workflow_id.in_(ids[first : first + _BATCH]))).all()
            for row in rows:
                _wake(waiting.get((row[0], row[1])))


def prepare_hot_statements() -> None:
    """Have DBOS build and compile once what records a step, as it does with other statements on Postgres.

    That was most of what a step costs the processor beside its own work: SQLAlchemy keeps no compiled INSERT
    that has an ON CONFLICT. What is sent is the same. Any DBOS but the one that this was written for is left
    as it is.
    """
    if importlib.metadata.version("dbos") != PREPARED_FOR:
        return
    SystemDatabase._execute_prepared = _execute_prepared  # type: ignore[method-assign]  # noqa: SLF001
    SystemDatabase._check_owner_txn = _check_owner  # type: ignore[method-assign]  # noqa: SLF001
    SystemDatabase._record_operation_result_txn = _record  # type: ignore[method-assign]  # noqa: SLF001


def _execute_prepared(  # noqa: PLR0913 - as DBOS has it
    self: SystemDatabase,
    conn: Any,
    name: str,
    values: dict[str, Any],
    build: Callable[[], Any],
    *,
    insert_columns: bool = True,
) -> Any:
    """DBOS's own, on SQLite too: its driver takes named parameters as well."""
    if not isinstance(conn, sa.Connection) or conn.dialect is not self.engine.dialect:
        return conn.execute(build(), values)  # a caller's session, or their driver
    key = (name, tuple(values))
    if key not in self._prepared_statements:
        self._prepared_statements[key] = _compile(self, build(), list(values) if insert_columns else None)
    sql, processors, constants = self._prepared_statements[key]
    processed = {name: processors[name](value) for name, value in values.items() if name in processors}
    return conn.exec_driver_sql(sql, {**constants, **values, **processed})


def _compile(system: SystemDatabase, statement: Any, columns: list[str] | None) -> tuple[str, Any, Any]:
    """The text of a statement, what its values have to go through, and the values that are part of it."""
    dialect = system.engine.dialect
    if isinstance(system, SQLiteSystemDatabase):
        dialect = sqlite.dialect(paramstyle="named")
        dialect.default_schema_name = system.engine.dialect.default_schema_name
    compiled = statement.compile(
        dialect=dialect,
        column_keys=columns,
        schema_translate_map={SCHEMA_PLACEHOLDER: system.schema},
        render_schema_translate=True,
    )
    processors, constants = {}, {}
    for name, bind in compiled.binds.items():
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None:
            processors[name] = process
        if not bind.required:
            constants[name] = process(bind.value) if process is not None else bind.value
    return str(compiled), processors, constants


def _check_owner(self: SystemDatabase, conn: Any, workflow_id: str, owner_xid: str) -> None:
    """As DBOS has it: the row is locked until the commit, so that no hand-off comes in between."""

    def lock() -> Any:
        workflow = self.tables.workflow_status
        is_it = workflow.c.workflow_uuid == sa.bindparam("id")
        if not isinstance(self, SQLiteSystemDatabase):
            return sa.select(workflow.c.owner_xid).where(is_it).with_for_update(key_share=True)
        # A write, so that the driver begins a transaction here.
        same = sa.update(workflow).where(is_it).values(owner_xid=workflow.c.owner_xid)
        return same.returning(workflow.c.owner_xid)

    found = _execute_prepared(self, conn, "store: owner", {"id": workflow_id}, lock, insert_columns=False)
    if found.scalar() != owner_xid:
        raise error.DBOSWorkflowConflictIDError(workflow_id)


def _record(  # noqa: PLR0913 - likewise
    self: SystemDatabase,
    result: Any,
    completed_at_epoch_ms: int,
    conn: Any,
    *,
    owner_xid: str | None = None,
    child_values: dict[str, Any] | None = None,
) -> None:
    """As DBOS has it: what a step came to, written down once, by the run that owns its workflow."""
    workflow_id = result["workflow_uuid"]
    owner_xid = owner_xid or current_owner_xid(workflow_id)
    if owner_xid is not None:
        self._check_owner_txn(conn, workflow_id, owner_xid)
    row = {
        **{name: result[name] for name in _OF_A_STEP},
        **(self._child_values(result["child_workflow_id"]) if child_values is None else child_values),
        "completed_at_epoch_ms": completed_at_epoch_ms,
        "application_name": self.app_name,
    }

    def insert() -> Any:
        steps = self.tables.operation_outputs
        new = self.dialect.insert(steps).values(retention_timestamp=self._now_ms_sql())
        end, is_it = steps.c.completed_at_epoch_ms, self._key_conflict("workflow_uuid", "function_id")
        return new.on_conflict_do_update(index_elements=is_it, set_={end.name: end}).returning(end)

    found = _execute_prepared(self, conn, "store: step", row, insert).scalar()
    if found is None or int(found) != completed_at_epoch_ms:
        raise error.DBOSStepNondeterminismError(workflow_id, result["function_id"])


_OF_A_STEP = (
    "workflow_uuid", "function_id", "function_name", "started_at_epoch_ms", "output", "error",
    "child_workflow_id", "serialization",
)  # fmt: skip


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
    unread = sa.text(
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
