"""The record of the server processes that run the workflows: who lives, who has ended, and who took up whose.

It writes tables of its own, outside of any workflow: it is about what runs them. An executor is known to live
by a sign of life every `SIGN_OF_LIFE_SECONDS`, by the clock of the database, which all of them share. It has
ended once its row says so, whatever it believes itself: one that finds its row ended stops at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from store.durable.statements import change_one, execute, fetch_one, now_ms_of_database
from store.durable.step_decorators import commit, now_ms
from store.statement_text import text

SIGN_OF_LIFE_SECONDS = 0.5
"""Between two signs of life."""
_TO_ADOPT = """
adopted_at_ms IS NULL AND ended_at_ms IS NOT NULL AND number <> :number AND (adopted_by IS NULL
    OR adopted_by = :number OR adopted_by IN (SELECT number FROM executors WHERE ended_at_ms IS NOT NULL))
"""


@dataclass(frozen=True)
class Identity:
    """What a server process says of itself as it starts."""

    machine: str
    pid: int
    token: str
    """What its parent calls it, and no other process is called."""
    lease_ms: int | None
    """How long it may be silent before it counts as lost; None where it has the SQLite file to itself."""


@dataclass(frozen=True)
class Executor:
    """One server process, from its start to its end."""

    number: int
    """1 for the first of the shop; people say "server 7"."""
    executor_id: str
    """What DBOS calls it."""
    token: str


@dataclass(frozen=True)
class Death:
    """A server process that its parent has seen die."""

    token: str
    at_ms: int

    @classmethod
    def read(cls, line: str) -> Death:
        """From `<token>@<ms since 1970>`, as a parent tells it."""
        token, _, at_ms = line.partition("@")
        return cls(token, int(at_ms))


@dataclass(frozen=True)
class Claim:
    """An executor that has ended, whose workflows are ours to take up."""

    number: int
    executor_id: str
    had_claimed: tuple[int, ...]
    """The numbers of those that it had claimed itself, and not taken up."""


@dataclass(frozen=True)
class Told:
    """What the parent of a server process tells it; nothing where it has none."""

    token: str = ""
    """What it is called."""
    deaths: Sequence[Death] = ()
    """Of those before it."""


def record_start(who: Identity, deaths: Sequence[Death] = ()) -> Executor:
    """Record that a server process begins, before it takes up any workflow, and the `deaths` before it."""
    return commit(_record_start, who, now_ms(), deaths)


def _record_start(session: Session, who: Identity, at_ms: int, deaths: Sequence[Death] = ()) -> Executor:
    take_turns(session)
    # What comes again after a commit whose answer was lost finds what that has written.
    found = fetch_one(session, "SELECT number, executor_id FROM executors WHERE token = :t", t=who.token)
    if found is not None:
        return Executor(found.number, found.executor_id, who.token)
    counter = fetch_one(
        session, "UPDATE counters SET value = value + 1 WHERE counter = 'executors' RETURNING value"
    )
    executor = Executor(int(counter.value), f"{who.machine}-{counter.value}", who.token)
    for death in deaths:
        record_death(session, death)
    # Without a lease it lived by having the file, which is ours now, or was of a version before leases.
    execute(
        session,
        "UPDATE executors SET ended_at_ms = :at_ms, how_ended = 'lost'"
        " WHERE ended_at_ms IS NULL AND (lease_ms IS NULL OR :is_only_one = 1)",
        at_ms=at_ms,
        is_only_one=int(who.lease_ms is None),
    )
    change_one(
        session,
        "INSERT INTO executors (number, executor_id, machine, pid, started_at_ms, token, seen_at_ms,"
        " lease_ms) VALUES (:number, :executor_id, :machine, :pid, :at_ms, :token, :seen_at_ms, :lease_ms)",
        number=executor.number,
        executor_id=executor.executor_id,
        machine=who.machine,
        pid=who.pid,
        at_ms=at_ms,
        token=who.token,
        seen_at_ms=None if who.lease_ms is None else now_ms_of_database(session),
        lease_ms=who.lease_ms,
    )
    return executor


def record_death(session: Session, death: Death) -> None:
    """Record that a server process has died, as its parent has seen."""
    # No row where it died before it was recorded, or was stopped as it died.
    execute(
        session,
        "UPDATE executors SET ended_at_ms = :at_ms, how_ended = 'died'"
        " WHERE token = :token AND ended_at_ms IS NULL",
        token=death.token,
        at_ms=death.at_ms,
    )


def take_turns(session: Session) -> None:
    """Have starts and claims follow one another: each holds this row until its commit."""
    change_one(session, "UPDATE counters SET value = value WHERE counter = 'executors'")


def record_stop(session: Session, token: str) -> None:
    """Record that a server process ends in good order, unless it counts as lost already."""
    execute(
        session,
        "UPDATE executors SET ended_at_ms = :at_ms, how_ended = 'stopped'"
        " WHERE token = :token AND ended_at_ms IS NULL",
        at_ms=now_ms(),
        token=token,
    )


def give_sign_of_life(session: Session, token: str) -> int | None:
    """Record that it lives; what time it is, or None if it counts as ended or its row is gone."""
    at_ms = now_ms_of_database(session)
    is_living = execute(
        session,
        "UPDATE executors SET seen_at_ms = :at_ms WHERE token = :token AND ended_at_ms IS NULL",
        at_ms=at_ms,
        token=token,
    )
    return at_ms if is_living else None


def record_lost(session: Session, numbers: Sequence[int] = ()) -> int:
    """Count as lost each executor that was silent for longer than its lease, and these; how many.

    By its guard, of two that find one silent at the same time one changes its row.
    """
    statement = text(
        "UPDATE executors SET ended_at_ms = :now_ms, how_ended = 'lost' WHERE ended_at_ms IS NULL"
        " AND (seen_at_ms + lease_ms < :now_ms OR number IN :numbers)",
        "numbers",
    )
    values = {"now_ms": now_ms_of_database(session), "numbers": list(numbers)}
    result: Any = session.execute(statement, values)
    return int(result.rowcount)


def is_anything_left(session: Session, number: int) -> bool:
    """Whether another executor has ended and nobody has taken up its work."""
    statement = text(f"SELECT EXISTS (SELECT 1 FROM executors WHERE {_TO_ADOPT})")  # noqa: S608 - ours
    return bool(session.execute(statement, {"number": number}).scalar_one())


def in_hand(session: Session) -> set[str]:
    """The ids of the executors that live, or whose work is about to be taken up."""
    rows = session.execute(
        text("SELECT executor_id FROM executors WHERE ended_at_ms IS NULL OR adopted_at_ms IS NULL")
    )
    return {row.executor_id for row in rows}


def claim(number: int) -> list[Claim]:
    """Claim for this executor the workflows of all that have ended and that nobody has taken up.

    Of two that claim at the same time one gets each of them. What one had claimed that has ended itself
    before `record_adoption` is claimed again, with its own.
    """
    return commit(_claim, number)


def _claim(session: Session, number: int) -> list[Claim]:
    take_turns(session)
    select = f"SELECT number, executor_id, adopted_by FROM executors WHERE {_TO_ADOPT}"  # noqa: S608 - ours
    rows = session.execute(text(select), {"number": number}).all()
    # These alone: another one may end meanwhile, and is claimed next time.
    update = f"UPDATE executors SET adopted_by = :number WHERE {_TO_ADOPT} AND number IN :these"  # noqa: S608 - ours
    result: Any = session.execute(
        text(update, "these"),
        {"number": number, "these": [row.number for row in rows]},
    )
    claimed = result.rowcount
    if claimed != len(rows):
        raise RuntimeError(f"{claimed} executors were claimed, and {len(rows)} were there to be.")
    return [
        Claim(row.number, row.executor_id, tuple(r.number for r in rows if r.adopted_by == row.number))
        for row in rows
    ]


@dataclass(frozen=True)
class Left:
    """What one executor has left, by ids."""

    number: int
    had_claimed: tuple[int, ...]
    payment_ids: frozenset[str]
    greeting_ids: frozenset[str]


@dataclass(frozen=True)
class Waiting:
    """What waits on the queue to be taken up, by ids; the executor that put it there may have ended since."""

    payment_ids: frozenset[str]
    greeting_ids: frozenset[str]


def record_takeovers(all_left: Sequence[Left], waiting: Waiting) -> None:
    """Record what was left, as it stands: nothing of it moves before it is taken up."""
    commit(_record_takeovers, all_left, waiting)


_OF_AN_ORDER = """
INSERT INTO takeovers (left_by, payment_id, status, progress) VALUES (:number, :id,
    (SELECT status FROM orders WHERE payment_id = :id), (SELECT progress FROM orders WHERE payment_id = :id))
ON CONFLICT DO NOTHING
"""
_OF_A_GREETING = """
INSERT INTO greeting_takeovers (left_by, greeting_id) VALUES (:number, :id) ON CONFLICT DO NOTHING
"""
_HAD_IN_HAND = """
SELECT t.{key} AS id FROM {takeovers} t JOIN executors d ON d.number = t.left_by
WHERE t.{key} IN :waiting AND (d.adopted_by = :number OR d.number IN :had_claimed)
"""


def _record_takeovers(session: Session, all_left: Sequence[Left], waiting: Waiting) -> None:
    for left in all_left:
        for insert, table, key, ids, waiting_ids in (
            (_OF_AN_ORDER, "takeovers", "payment_id", left.payment_ids, waiting.payment_ids),
            (_OF_A_GREETING, "greeting_takeovers", "greeting_id", left.greeting_ids, waiting.greeting_ids),
        ):
            met = set(ids)
            if waiting_ids:
                # What it had put on the queue for the first executor that looks is left by it, too.
                select = text(_HAD_IN_HAND.format(takeovers=table, key=key), "waiting", "had_claimed")
                values = {
                    "waiting": list(waiting_ids),
                    "number": left.number,
                    "had_claimed": list(left.had_claimed),
                }
                met |= {row.id for row in session.execute(select, values)}
            if met:
                # Nothing changes where a claimant that died over it has recorded it already.
                session.execute(text(insert), [{"number": left.number, "id": each} for each in sorted(met)])


def record_adoption(number: int) -> None:
    """Record that this executor has taken up all that it has claimed."""
    commit(_record_adoption, number)


def _record_adoption(session: Session, number: int) -> None:
    take_turns(session)
    execute(
        session,
        "UPDATE executors SET adopted_at_ms = :at_ms WHERE adopted_by = :number AND adopted_at_ms IS NULL",
        at_ms=now_ms(),
        number=number,
    )
