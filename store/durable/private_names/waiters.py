"""Who waits for a message or an event of a workflow, and when they are woken."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from dbos import _sys_db
from dbos._sys_db import SendMessage, SystemDatabase
from dbos._sys_db_postgres import PostgresSystemDatabase
from dbos._sys_db_sqlite import SQLiteSystemDatabase

from store.durable.private_names.step_statements import is_the_dbos_we_know
from store.log_masking import mask

_NO_TOPIC = _sys_db._dbos_null_topic  # noqa: SLF001
_EVENTS = _sys_db._dbos_workflow_events_channel  # noqa: SLF001
_NEVER_SECONDS = 24 * 3600.0
_GATHER_SECONDS = 0.1
"""So long others are not told of an event for which somebody here has waited."""
_BATCH = 500
"""So many workflows are named in one statement."""
_log = logging.getLogger("store")


def wake_waiters_in_this_process() -> None:
    """Have DBOS wake those in this process who wait for an event as soon as that is committed.

    On SQLite for a message, too: all who write to its file are in this process. DBOS looks for each waiter by
    itself there, one read each every few milliseconds: 200 shoppers about to pay kept its one connection from
    everybody else. On Postgres it looks every millisecond whether there is something to tell, and tells all
    processes in a transaction. Nearly always the one who waits is here.
    """
    send_bulk = SQLiteSystemDatabase.send_bulk

    def signal(self: SQLiteSystemDatabase, channel: str, payload: str) -> None:
        # DBOS calls it for an event; on Postgres, a trigger of the database tells of a message.
        _wake_here(self, channel, payload)

    def send_and_wake(self: SQLiteSystemDatabase, messages: list[SendMessage], **more: Any) -> None:
        send_bulk(self, messages, **more)
        for message in messages:
            payload, _ = self._waiter(message.destination_id, message.topic or _NO_TOPIC)
            _wake(self.notifications_map.get(payload))

    SQLiteSystemDatabase._signal_notification = signal  # type: ignore[assignment,method-assign]  # noqa: SLF001
    SQLiteSystemDatabase.send_bulk = send_and_wake  # type: ignore[assignment,method-assign]
    if is_the_dbos_we_know():
        _tell_others_when_there_is_something()


def _tell_others_when_there_is_something() -> None:
    gather = PostgresSystemDatabase._signal_notification  # noqa: SLF001
    is_urgent = threading.Event()

    def signal(self: PostgresSystemDatabase, channel: str, payload: str) -> None:
        was_here = _wake_here(self, channel, payload)
        gather(self, channel, payload)
        if not was_here:
            is_urgent.set()

    def tell(self: PostgresSystemDatabase) -> None:
        is_open = True
        while is_open:
            is_open = self._run_background_processes  # asked first: what came before the end is told
            is_urgent.wait(_GATHER_SECONDS)
            is_urgent.clear()
            try:
                self._flush_notifications()
            except Exception as trouble:  # noqa: BLE001 - nobody else tells: as DBOS has it
                _log.warning("an event was not told of: %s", mask(f"{type(trouble).__name__}: {trouble}"))

    PostgresSystemDatabase._signal_notification = signal  # type: ignore[method-assign]  # noqa: SLF001
    PostgresSystemDatabase.run_notifier = tell  # type: ignore[method-assign]


def _wake_here(system: SystemDatabase, channel: str, payload: str) -> bool:
    """Whether somebody in this process has waited for it."""
    return channel == _EVENTS and _wake(system.workflow_events_map.get(payload))


def _wake(waiter: _sys_db.KeySignal | None) -> bool:
    if waiter is not None:
        waiter.set()
    return waiter is not None


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
