"""The points at which the presenter may arm a crash, and what is armed.

The next workflow that passes an armed point takes its server down there, once; or every one that passes. The
tests kill the shop at these points and at all others that `commit_points.py` knows. What is armed is a row,
so it outlives restarts.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from store.database import for_a_last_word
from store.durable import runtime
from store.durable.statements import execute, fetch_one
from store.durable.step_decorators import now_ms, plain_transaction
from store.process_wide import ProcessWide
from store.reads.orders import Queries
from store.serving import requests
from store.settings import Settings
from store.stage.commit_points import Lookout
from store.statement_text import text

_DEADLY = getattr(signal, "SIGKILL", signal.SIGTERM)
"""On Windows, SIGTERM kills at once, too."""
_SERVER = "server {number}"
"""The point at which one server dies: as soon as it looks what is armed."""
_log = logging.getLogger("store")


@dataclass(frozen=True)
class CrashPoint:
    """One that the presenter may arm."""

    moment: str
    """As `Lookout` takes it."""
    words: str
    """Where that is, as an audience is told."""


CRASH_POINTS: Mapping[str, CrashPoint] = {
    "reserve": CrashPoint("after commit of reserve", "After the unit is reserved"),
    "click": CrashPoint("after commit of the notice of the payment", "After the click, before its answer"),
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


DEPLOY = CrashPoint("after commit of the checkpoint of tick 5", "A deploy at tick 5")
"""No crash: the server is replaced in good order there. A scene of the talk arms it, and nobody else can."""
_POINTS: Mapping[str, CrashPoint] = {**CRASH_POINTS, "deploy": DEPLOY}


class Armed:
    """What the presenter has armed, as far as this process looks out for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._lookout = Lookout(self._crash)

    def install(self) -> None:
        """Be able to look out, before any workflow runs."""
        self._lookout.install()

    def look_out(self) -> None:
        """Look out for what is armed now, and for nothing else; die at once where that is wanted of us."""
        with self._lock:  # or a reading that is older than another would come last
            rows = _read_armed()
            ours = _SERVER.format(number=runtime.executor_number())
            if any(name == ours for name, _ in rows) and disarm(ours):
                os.kill(os.getpid(), _DEADLY)
            self._lookout.want({_POINTS[name].moment: key for name, key in rows if name in _POINTS})

    def _crash(self, point: str) -> None:
        """Kill this process, if the point is armed still: another one may have died of it.

        Nothing is raised: the caller has done what it wanted, and must go on with it.
        """
        [(name, words)] = [(name, each.words) for name, each in _POINTS.items() if each.moment == point]
        try:
            is_ours = self._take(name)
        except Exception as trouble:  # noqa: BLE001 - whatever it was, the shop goes on
            _log.warning("not crashed at an armed point: %s", type(trouble).__name__)
            return
        if is_ours and name == "deploy":
            requests.ask_to_replace()
        elif is_ours:
            _log.warning("crashing, as armed: %s", words)
            os.kill(os.getpid(), _DEADLY)

    def _take(self, name: str) -> bool:
        engine = for_a_last_word(self._settings)
        try:
            with Session(engine) as session, session.begin():
                is_ours = _is_for_every(session, name) or bool(_take(session, name))
                if is_ours and name in CRASH_POINTS:
                    _note_death(session, name)
                return is_ours
        finally:
            engine.dispose()


armed: ProcessWide[Armed] = ProcessWide("what is armed")


@plain_transaction
def _read_armed(session: Session) -> list[tuple[str, str]]:
    rows = session.execute(text("SELECT point, only_key FROM armed_crashes"))
    return [(row.point, row.only_key) for row in rows]


@plain_transaction
def arm(session: Session, name: str, only_key: str = "") -> None:
    """Arm a point, for one payment alone or for any; until a server has died of it, or it is disarmed."""
    _arm(session, name, only_key, is_for_every=0)


@plain_transaction
def arm_for_every(session: Session, name: str) -> None:
    """Arm a point for every order that passes it, until it is disarmed."""
    _arm(session, name, "", is_for_every=1)


@plain_transaction
def arm_for_server(session: Session, number: int) -> None:
    """Have one server die as soon as it looks what is armed, on whatever machine it runs, if it lives."""
    living = "SELECT 1 FROM executors WHERE number = :number AND ended_at_ms IS NULL"
    if fetch_one(session, living, number=number) is not None:
        _arm(session, _SERVER.format(number=number), "", is_for_every=0)


@plain_transaction
def arm_for_other_machines(session: Session, machine: str) -> None:
    """The same for every server that lives on another machine."""
    others = "SELECT number FROM executors WHERE machine <> :machine AND ended_at_ms IS NULL ORDER BY number"
    for row in session.execute(text(others), {"machine": machine}).all():
        _arm(session, _SERVER.format(number=row.number), "", is_for_every=0)


def _arm(session: Session, name: str, only_key: str, *, is_for_every: int) -> None:
    execute(
        session,
        "INSERT INTO armed_crashes (point, only_key, armed_at_ms, is_for_every)"
        " VALUES (:point, :only_key, :at_ms, :is_for_every) ON CONFLICT (point) DO UPDATE"
        " SET only_key = excluded.only_key, is_for_every = excluded.is_for_every",
        point=name,
        only_key=only_key,
        at_ms=now_ms(),
        is_for_every=is_for_every,
    )


@plain_transaction
def disarm(session: Session, name: str) -> int:
    """Disarm a point; 0 if it was not armed, or a server has died of it meanwhile."""
    return _take(session, name)


@plain_transaction
def disarm_all(session: Session) -> list[str]:
    """Disarm every point; the names of those that were armed, of servers that were to die aside."""
    rows = session.execute(text("DELETE FROM armed_crashes RETURNING point")).all()
    return sorted(row.point for row in rows if row.point in _POINTS)


def _is_for_every(session: Session, name: str) -> bool:
    every = "SELECT 1 FROM armed_crashes WHERE point = :point AND is_for_every = 1"
    return fetch_one(session, every, point=name) is not None


def _note_death(session: Session, name: str) -> None:
    # No row changes where its commit was made and its answer lost.
    execute(
        session,
        "INSERT INTO fired_crashes (executor, point) VALUES (:executor, :point) ON CONFLICT DO NOTHING",
        executor=runtime.executor_number(),
        point=name,
    )


def died_at(queries: Queries) -> dict[int, str]:
    """At which point each server has died that died at an armed one; by their numbers.

    Raises:
        DeadlineExceeded: the database does not answer.
    """
    return {row.executor: row.point for row in queries.rows("SELECT executor, point FROM fired_crashes")}


def _take(session: Session, name: str) -> int:
    return execute(session, "DELETE FROM armed_crashes WHERE point = :point", point=name)
