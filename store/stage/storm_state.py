"""The storms on the open shop: asked for by the presenter, and written down by the process that each is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from store.durable.statements import change_one, execute, fetch_one
from store.durable.step_decorators import now_ms, plain_transaction

SILENT_MS = 20_000
"""A storm whose process has not written for so long is lost."""
Rows = Callable[..., list[Any]]
"""Runs one SELECT, as `Queries.rows` does."""


class Phase(StrEnum):
    """How far a storm is. The last three are ends."""

    STARTING = "starting"
    BLOWING = "blowing"
    RESTING = "resting"
    """Nobody comes any more; what is under way goes on."""
    ENDED = "ended"
    STOPPED = "stopped"
    """By the presenter."""
    LOST = "lost"
    """The shop was closed, or the process of the storm died."""


class RequestOutcome(StrEnum):
    """What became of one request of a shopper."""

    ANSWERED = "answered"
    SENT_AGAIN = "sent_again"
    """It met a dying server, was sent again, and answered."""
    REFUSED = "refused"
    """A connection was refused for it; answered in the end or not."""
    UNANSWERED = "unanswered"


class Request(NamedTuple):
    """One request of a shopper."""

    at_ms: int
    """Since the storm began."""
    took_ms: int
    outcome: RequestOutcome


@dataclass(frozen=True)
class Plan:
    """What is to happen in a storm."""

    shoppers: int
    seconds: int
    kills: int
    seed: int


@dataclass(frozen=True)
class Storm:
    """One storm, as its row has it. Times are ms since 1970."""

    number: int
    secret: str
    shoppers: int
    seconds: int
    kills: int
    seed: int
    phase: Phase
    is_on: bool
    began_at_ms: int | None
    heard_at_ms: int
    killed: int
    answered: int
    sent_again: int
    refused: int
    unanswered: int
    verdict: dict[str, Any] | None

    @classmethod
    def of(cls, row: Any) -> Storm:
        """From a row, of which one that was silent for too long is lost, though nobody has written that."""
        values = {each.name: getattr(row, each.name) for each in fields(cls)}
        is_lost = row.is_on == 1 and now_ms() - row.heard_at_ms > SILENT_MS
        values["phase"] = Phase.LOST if is_lost else Phase(row.phase)
        values["is_on"] = row.is_on == 1 and not is_lost
        values["verdict"] = None if row.verdict is None else json.loads(row.verdict)
        return cls(**values)

    @property
    def plan(self) -> Plan:
        """What was asked for."""
        return Plan(self.shoppers, self.seconds, self.kills, self.seed)

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.answered + self.sent_again + self.refused + self.unanswered


def newest(rows: Rows) -> Storm | None:
    """The last one that was asked for."""
    found = rows("SELECT * FROM storms ORDER BY number DESC LIMIT 1")
    return Storm.of(found[0]) if found else None


def find(rows: Rows, number: int) -> Storm | None:
    """The storm of this number."""
    found = rows("SELECT * FROM storms WHERE number = :number", number=number)
    return Storm.of(found[0]) if found else None


def requests_of(rows: Rows, number: int) -> list[Request]:
    """All its requests, in the order in which they were answered."""
    batches = rows("SELECT requests FROM storm_requests WHERE storm = :number ORDER BY batch", number=number)
    return [
        Request(at_ms, took_ms, RequestOutcome(outcome))
        for batch in batches
        for at_ms, took_ms, outcome in json.loads(batch.requests)
    ]


# --- what the presenter does --------------------------------------------------------------------


@plain_transaction
def ask(session: Session, number: int, secret: str, plan: Plan) -> Storm | None:
    """Ask for the storm of that number, unless another one is on; None if there is none of it then.

    One that has been asked for before is returned as it is, with whatever plan it has.
    """
    execute(
        session,
        "UPDATE storms SET is_on = NULL, phase = 'lost' WHERE is_on = 1 AND heard_at_ms < :silent_ms",
        silent_ms=now_ms() - SILENT_MS,
    )
    execute(
        session,
        "INSERT INTO storms (number, secret, shoppers, seconds, kills, seed, phase, is_on, asked_at_ms,"
        " heard_at_ms, killed, answered, sent_again, refused, unanswered)"
        " SELECT :number, :secret, :shoppers, :seconds, :kills, :seed, 'starting', 1, :at_ms, :at_ms,"
        " 0, 0, 0, 0, 0"
        " WHERE :number = (SELECT coalesce(max(number), 0) + 1 FROM storms) ON CONFLICT DO NOTHING",
        number=number,
        secret=secret,
        shoppers=plan.shoppers,
        seconds=plan.seconds,
        kills=plan.kills,
        seed=plan.seed,
        at_ms=now_ms(),
    )
    row = fetch_one(session, "SELECT * FROM storms WHERE number = :number", number=number)
    return None if row is None else Storm.of(row)


@plain_transaction
def stop(session: Session) -> int:
    """Stop the storm that is on; 0 if there is none."""
    return execute(session, "UPDATE storms SET is_on = NULL, phase = 'stopped' WHERE is_on = 1")


# --- what the process of the storm writes -------------------------------------------------------


class Sale(NamedTuple):
    """One click on Buy Now."""

    shopper: int
    sale: int
    payment_id: str


@dataclass(frozen=True)
class Batch:
    """What there is to be written down since the last time."""

    number: int
    """From 1 up."""
    phase: Phase
    killed: int
    """All of them so far."""
    sales: Sequence[Sale]
    requests: Sequence[Request]


def begin(session: Session, number: int) -> Storm | None:
    """Begin the storm; None if another process has, or nobody wants it any more."""
    begun = execute(
        session,
        "UPDATE storms SET phase = 'blowing', began_at_ms = :at_ms, heard_at_ms = :at_ms"
        " WHERE number = :number AND is_on = 1 AND began_at_ms IS NULL",
        number=number,
        at_ms=now_ms(),
    )
    if not begun:
        return None
    return Storm.of(fetch_one(session, "SELECT * FROM storms WHERE number = :number", number=number))


def newest_server(session: Session, secret: str) -> int:
    """The number of the newest server that lives, as far as is known; 0 if it is not wanted any more."""
    row = fetch_one(
        session,
        "SELECT (SELECT max(number) FROM executors) AS server FROM storms"
        " WHERE secret = :secret AND is_on = 1",
        secret=secret,
    )
    return 0 if row is None else int(row.server or 0)


def on_their_way(session: Session, secret: str) -> int:
    """How many orders of the storm are paid and not shipped, of those whose sales are written down."""
    row = fetch_one(
        session,
        "SELECT count(*) AS orders FROM storms n JOIN storm_sales s ON s.storm = n.number"
        " JOIN orders o ON o.payment_id = s.payment_id AND o.status = 'paid' WHERE n.secret = :secret",
        secret=secret,
    )
    return int(row.orders) if row else 0


def record(session: Session, secret: str, batch: Batch) -> bool:
    """Write one batch down, once; False if the storm is over, and nothing is written."""
    row = fetch_one(
        session,
        "UPDATE storms SET phase = :phase, heard_at_ms = :at_ms, killed = :killed"
        " WHERE secret = :secret AND is_on = 1 RETURNING number",
        secret=secret,
        phase=batch.phase.value,
        at_ms=now_ms(),
        killed=batch.killed,
    )
    if row is None:
        return False
    is_new = execute(
        session,
        "INSERT INTO storm_requests (storm, batch, requests) VALUES (:storm, :batch, :requests)"
        " ON CONFLICT DO NOTHING",
        storm=row.number,
        batch=batch.number,
        requests=json.dumps(batch.requests, separators=(",", ":")),
    )
    if is_new:  # or it was written, and its writer was not told so
        _count(session, row.number, batch)
    return True


def _count(session: Session, number: int, batch: Batch) -> None:
    change_one(
        session,
        "UPDATE storms SET answered = answered + :answered, sent_again = sent_again + :sent_again,"
        " refused = refused + :refused, unanswered = unanswered + :unanswered WHERE number = :number",
        number=number,
        **{each.value: sum(one.outcome is each for one in batch.requests) for each in RequestOutcome},
    )
    for sale in batch.sales:
        change_one(
            session,
            "INSERT INTO storm_sales (storm, shopper, sale, payment_id)"
            " VALUES (:storm, :shopper, :sale, :payment_id)",
            storm=number,
            **sale._asdict(),
        )


def finish(session: Session, secret: str, phase: Phase, verdict: dict[str, Any] | None = None) -> bool:
    """End the storm; False if it was over before."""
    return bool(
        execute(
            session,
            "UPDATE storms SET is_on = NULL, phase = :phase, heard_at_ms = :at_ms, verdict = :verdict"
            " WHERE secret = :secret AND is_on = 1",
            secret=secret,
            phase=phase.value,
            at_ms=now_ms(),
            verdict=None if verdict is None else json.dumps(verdict),
        )
    )
