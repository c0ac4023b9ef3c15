"""Points at which a server can be made to die: before or after the commit of one transaction.

A transaction is known by the statement that only it makes. Nothing of the shop or of DBOS is replaced:
listeners look at what goes to the database, and while no crash is arranged there are none. The tests kill the
shop at every one of these points. The presenter arms those of `CRASH_POINTS`: the next workflow that
passes takes its server down there, once; or every one that passes. What is armed is a row, so it outlives
restarts.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from store.database import for_a_last_word
from store.durable import adoption
from store.durable.runtime import APPLICATION_VERSION
from store.durable.statements import execute, fetch_one
from store.durable.step_decorators import now_ms, plain_transaction
from store.process_value import ProcessValue
from store.settings import Settings

_log = logging.getLogger("store")


@dataclass(frozen=True)
class CrashPoint:
    """One that the presenter may arm."""

    moment: str
    """As `Appointment` takes it."""
    words: str
    """Where that is, as an audience is told."""


CRASH_POINTS: Mapping[str, CrashPoint] = {
    "reserve": CrashPoint("after commit of reserve", "After the unit is reserved"),
    "click": CrashPoint(
        "after commit of the notice of the payment", "After the click on Confirm, before its answer"
    ),
    "charge": CrashPoint("after commit of charge", "Between the charge and its checkpoint"),
    "tick": CrashPoint("after commit of tick 5", "At tick 5"),
    "cancel": CrashPoint("after commit of cancel", "In the middle of a cancellation"),
    # The first wait begins once the signature is checkpointed.
    "greeting": CrashPoint(
        "after commit of the checkpoint of wait 1", "After the signature, before our own book has it"
    ),
    "recovery": CrashPoint("after commit of the recovery", "During the recovery from a crash"),
}
"""By the name that stands in a row and in an address."""


# --- where a point is ---------------------------------------------------------------------

Recognise = Callable[[str, set[Any]], bool]


def _inserts_into(table: str) -> Recognise:
    return lambda statement, _: statement.split(maxsplit=3)[:3] == ["INSERT", "INTO", table]


_TRANSACTIONS: Mapping[str, Recognise] = {
    "reserve": _inserts_into("orders"),
    "charge": lambda statement, _: "SET status = 'paid'" in statement,
    "cancel": lambda statement, _: "SET status = 'cancelled'" in statement,
    "the notice of the payment": _inserts_into("payment_notices"),
    "the payment message": lambda statement, _: (
        re.match(r"INSERT INTO \S*notifications", statement) is not None
    ),
    "the news that it is settled": lambda statement, values: (
        re.match(r"\s*INSERT INTO \S*workflow_events ", statement) is not None and "settled" in values
    ),
    # What a start after a crash does, in this order: it is noted, it claims what others have left, puts each
    # of those workflows on a queue, notes that it has, and DBOS takes them off again to run them.
    "the record of the start": _inserts_into("executors"),
    "the recovery": lambda statement, values: (
        "workflow_status" in statement and {"ENQUEUED", adoption.QUEUE} <= values
    ),
    "the claim": lambda statement, _: "SET adopted_by" in statement,
    "the record of the adoption": lambda statement, _: "SET adopted_at_ms" in statement,
    "the taking up": lambda statement, values: (
        "workflow_status" in statement and {"PENDING", "ENQUEUED", APPLICATION_VERSION} <= values
    ),
}


def recognise(name: str) -> Recognise:
    """How the transaction of this name is known by one of its statements and the values in it.

    Raises:
        KeyError: there is none of that name.
    """
    if tick := re.fullmatch(r"tick (\d+)", name):
        number = int(tick[1])
        return lambda statement, values: "SET progress" in statement and number in values
    if checkpoint := re.fullmatch(r"the checkpoint of (.+)", name):
        return lambda statement, values: "operation_outputs" in statement and checkpoint[1] in values
    if start := re.fullmatch(r"the start of (.+)", name):
        return lambda statement, values: (
            re.match(r"\s*INSERT INTO \S*workflow_status", statement) is not None and start[1] in values
        )
    if end := re.fullmatch(r"the end of (.+)", name):
        ends_in_dispatch = end[1] == "dispatch"
        return lambda statement, values: (
            re.search(r"UPDATE \S*workflow_status", statement) is not None
            and "SUCCESS" in values
            and any(str(value).endswith(".dispatch") for value in values) == ends_in_dispatch
        )
    return _TRANSACTIONS[name]


class Appointment:
    """Calls `die` whenever this process comes to a point, in the thread that does, until it is cancelled.

    The point is `before commit of` or `after commit of` a transaction, by its name.
    """

    def __init__(self, point: str, die: Callable[[], None]) -> None:
        words = re.fullmatch(r"(before|after) commit of (.+)", point)
        if words is None:
            raise ValueError(f"not a point: {point}")
        self._moment, self._is_the_one, self._die = words[1], recognise(words[2]), die
        self._seen, self._committed = f"{point}: seen", f"{point}: committed"
        """What is noted on a connection between these events."""
        self._listeners: list[tuple[Any, str, Callable[..., None]]] = [
            (sa.Engine, "before_cursor_execute", self._notice),
            (sa.Engine, "after_cursor_execute", self._notice_end),
            (sa.Engine, "commit", self._notice_commit),
            (sa.Engine, "rollback", self._notice_rollback),
            (sa.Pool, "checkin", self._notice_return),
        ]

    def begin(self) -> None:
        """Look out from now on, on every engine of this process."""
        for target, name, listener in self._listeners:
            event.listen(target, name, listener)

    def cancel(self) -> None:
        """Look out no longer."""
        for target, name, listener in self._listeners:
            event.remove(target, name, listener)

    def _notice(
        self, connection: sa.Connection, _cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        # WITH: on Postgres, DBOS ends a workflow in one statement of several parts.
        if not statement.lstrip().startswith(("INSERT", "UPDATE", "WITH")):
            return
        values = parameters.values() if isinstance(parameters, Mapping) else parameters
        if self._is_the_one(statement, set(values)):
            connection.info[self._seen] = True
            if self._moment == "before" and _commits_by_itself(connection):
                self._die()

    def _notice_end(self, connection: sa.Connection, *_: Any) -> None:
        if connection.info.get(self._seen) and _commits_by_itself(connection):
            del connection.info[self._seen]
            self._die()

    def _notice_commit(self, connection: sa.Connection) -> None:
        # It is called just before. After it, the connection goes back to its pool, and holds no lock.
        if connection.info.pop(self._seen, False):
            if self._moment == "before":
                self._die()
            connection.info[self._committed] = True

    def _notice_rollback(self, connection: sa.Connection) -> None:
        for note in (self._seen, self._committed):
            connection.info.pop(note, None)

    def _notice_return(self, _connection: Any, record: Any) -> None:
        if record.info.pop(self._committed, False):
            self._die()


def _commits_by_itself(connection: sa.Connection) -> bool:
    """Whether each statement is a transaction of its own: DBOS ends a workflow so on Postgres."""
    return getattr(connection.connection.driver_connection, "autocommit", False) is True


# --- what is armed ------------------------------------------------------------------------


class Armed:
    """What the presenter has armed, as far as this process looks out for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._appointments: dict[str, Appointment] = {}

    def look_out(self, names: set[str]) -> None:
        """Look out for these points, and for no other."""
        with self._lock:
            for name in names - self._appointments.keys():
                appointment = Appointment(CRASH_POINTS[name].moment, partial(self._crash, name))
                self._appointments[name] = appointment
                appointment.begin()
            for name in self._appointments.keys() - names:
                self._appointments.pop(name).cancel()

    def _crash(self, name: str) -> None:
        """Kill this process, if the point is armed still: another one may have died of it."""
        engine = for_a_last_word(self._settings)
        try:
            with Session(engine) as session, session.begin():
                is_ours = _is_for_every(session, name) or bool(_take(session, name))
        except DBAPIError as error:
            _log.warning("not crashed at an armed point: %s", str(error.orig).splitlines()[0])
            return
        finally:
            engine.dispose()
        if is_ours:
            _log.warning("crashing, as armed: %s", CRASH_POINTS[name].words)
            os.kill(os.getpid(), signal.SIGKILL)


armed: ProcessValue[Armed] = ProcessValue("what is armed")


def look_out() -> None:
    """Look out for what is armed, as a server starts, or once that has changed."""
    armed().look_out(set(_read_armed()) & CRASH_POINTS.keys())


@plain_transaction
def _read_armed(session: Session) -> list[str]:
    return list(session.execute(sa.text("SELECT point FROM armed_crashes")).scalars())


@plain_transaction
def arm(session: Session, name: str) -> None:
    """Arm a point; it stays armed until a server has died of it, or it is disarmed."""
    _arm(session, name, is_for_every=0)


@plain_transaction
def arm_for_every(session: Session, name: str) -> None:
    """Arm a point for every order that passes it, until it is disarmed."""
    _arm(session, name, is_for_every=1)


def _arm(session: Session, name: str, *, is_for_every: int) -> None:
    execute(
        session,
        "INSERT INTO armed_crashes (point, armed_at_ms, is_for_every) VALUES (:point, :at_ms, :is_for_every)"
        " ON CONFLICT (point) DO UPDATE SET is_for_every = excluded.is_for_every",
        point=name,
        at_ms=now_ms(),
        is_for_every=is_for_every,
    )


@plain_transaction
def disarm(session: Session, name: str) -> int:
    """Disarm a point; 0 if it was not armed, or a server has died of it meanwhile."""
    return _take(session, name)


def _is_for_every(session: Session, name: str) -> bool:
    every = "SELECT 1 FROM armed_crashes WHERE point = :point AND is_for_every = 1"
    return fetch_one(session, every, point=name) is not None


def _take(session: Session, name: str) -> int:
    return execute(session, "DELETE FROM armed_crashes WHERE point = :point", point=name)
