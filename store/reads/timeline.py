"""The story of one order or one greeting: every step that DBOS has recorded, beside what the shop has of it.

A step's checkpoint says when the run that was recorded began and ended, and what it returned. What it
returned has the time at which the change was made. Where that is older than the run itself, an earlier run
had made the change and died before its checkpoint, and this one found it made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from store.reads import crashes
from store.reads.checkpoints import as_time
from store.reads.crashes import Crash
from store.vocabulary import Status, StepName

_SLEEP = "DBOS.sleep"


class Fate(StrEnum):
    """What became of a step over the crashes that its order or greeting met."""

    RAN = "ran"
    REMEMBERED = "remembered"
    """It was recorded before a crash, and not run again after it."""
    RUN_AGAIN = "run_again"
    """A crash came between its commit and its checkpoint; run again, it found its change made."""


@dataclass(frozen=True)
class Step:
    """One step, as it was recorded. Times are aware, in UTC."""

    name: str
    """What DBOS calls it."""
    output: Any
    """What it returned."""
    began_at: datetime
    ended_at: datetime
    server: int
    """The number of the server process that recorded it; 0 where that is not known."""
    fate: Fate


@dataclass(frozen=True)
class Mending:
    """That it was run again from its first line: found stuck, or finished and asked for by the presenter."""

    reason: str
    """Why it was stuck; nothing where the presenter asked."""
    at: datetime


@dataclass(frozen=True)
class Start:
    """A server process, by its number and its start."""

    number: int
    at: datetime
    code: str = ""
    """A digest of the code that it runs; empty where that was not written down."""


@dataclass(frozen=True)
class Deploy:
    """That a server with other code than the one before it went on."""

    server: int
    """Its number."""
    at: datetime
    progress: int
    """Ticks of the dispatch that were recorded by then."""


@dataclass(frozen=True)
class Timeline:
    """All of it, oldest first. The steps of a checkout and of its dispatch are one story."""

    steps: tuple[Step, ...]
    crashes: tuple[Crash, ...]
    mendings: tuple[Mending, ...]
    starts: tuple[Start, ...]
    """Of the servers that have been there meanwhile, the one that was there at the beginning included."""

    @property
    def deploys(self) -> tuple[Deploy, ...]:
        """Where other code went on, oldest first."""
        ticks = [step.ended_at for step in self.steps if step.name.startswith(f"{StepName.TICK} ")]
        return tuple(
            Deploy(start.number, start.at, sum(tick <= start.at for tick in ticks))
            for before, start in pairwise(self.starts)
            if before.code and start.code and before.code != start.code
        )


def read(
    connection: sa.Connection,
    recorded: Sequence[Mapping[str, Any]],
    met: Sequence[Crash],
    workflow_ids: Sequence[str],
    made_at: Mapping[str, datetime],
) -> Timeline:
    """The story of these steps, as DBOS lists them, which belong to these workflows.

    They were read before: what is recorded by then has its server among those that are read here. `met`
    are the crashes that are known to have met it. Those between its first step and its last have, too: a step
    was under way, or a workflow about to end. `made_at` says when changes were made whose steps do not.
    """
    times = [
        each[when]
        for each in recorded
        for when in ("started_at_epoch_ms", "completed_at_epoch_ms")
        if each[when]
    ]
    came = crashes.between(connection, min(times), max(times)) if times else ()
    by_dead = {crash.dead: crash for crash in (*came, *met)}
    return of(
        recorded,
        [by_dead[number] for number in sorted(by_dead)],
        mendings_of(connection, workflow_ids),
        starts_in(connection, min(times), max(times)) if times else [],
        made_at,
    )


def mendings_of(connection: sa.Connection, workflow_ids: Sequence[str]) -> list[Mending]:
    """When one of these workflows was run again, oldest first."""
    statement = (
        "SELECT reason, mended_at_ms FROM mendings WHERE workflow_id IN :ids"
        " UNION ALL SELECT '', began_at_ms FROM reruns WHERE payment_id IN :ids ORDER BY mended_at_ms"
    )
    select = sa.text(statement).bindparams(sa.bindparam("ids", expanding=True))
    rows = connection.execute(select, {"ids": workflow_ids})
    return [Mending(row.reason, as_time(row.mended_at_ms)) for row in rows]


_STARTS = """
SELECT e.number, e.started_at_ms, coalesce(c.digest, '') AS code FROM executors e
LEFT JOIN server_code c ON c.executor = e.number WHERE e.started_at_ms <= :last_ms AND e.number >=
    coalesce((SELECT max(number) FROM executors WHERE started_at_ms <= :first_ms), 0) ORDER BY e.number
"""


def starts_in(connection: sa.Connection, first_ms: int, last_ms: int) -> list[Start]:
    """The server processes that were there in this time, by their start, oldest first."""
    rows = connection.execute(sa.text(_STARTS), {"first_ms": first_ms, "last_ms": last_ms})
    return [Start(row.number, as_time(row.started_at_ms), row.code) for row in rows]


def of(
    recorded: Iterable[Mapping[str, Any]],
    met: Sequence[Crash],
    mendings: Sequence[Mending],
    starts: Sequence[Start],
    made_at: Mapping[str, datetime],
) -> Timeline:
    """The story of steps as DBOS lists them; see `read`."""
    steps = []
    new_runs = [*(crash.successor_started_at for crash in met), *(mending.at for mending in mendings)]
    for each in recorded:
        if each["started_at_epoch_ms"] is None or each["completed_at_epoch_ms"] is None:
            continue
        name, output = each["function_name"], each["output"]
        began_at, ended_at = as_time(each["started_at_epoch_ms"]), as_time(each["completed_at_epoch_ms"])
        if name == _SLEEP:
            # It is recorded before the sleep, with the time at which that will be over.
            ended_at = began_at
        fate = Fate.RAN
        made = made_at.get(name) or _made_at(name, output)
        if made is not None and any(made <= start <= began_at for start in new_runs):
            fate = Fate.RUN_AGAIN
        elif any(crash.came_at >= ended_at for crash in met):
            fate = Fate.REMEMBERED
        server = max((start.number for start in starts if start.at <= ended_at), default=0)
        steps.append(Step(name, output, began_at, ended_at, server, fate))
    # Of two that ended at the same millisecond, the one that DBOS lists first.
    steps.sort(key=lambda step: step.ended_at)
    first = steps[0].server if steps else 0
    return Timeline(
        tuple(steps),
        tuple(met),
        tuple(mendings),
        tuple(start for start in starts if start.number >= first),
    )


def _made_at(name: str, output: Any) -> datetime | None:
    """When the change was made that a step returned; None if it made none, or does not say."""
    if not isinstance(output, dict) or not output.get("updated_at_ms"):
        return None
    has_decided_nothing = name == StepName.SETTLE and output.get("status") == Status.PENDING
    return None if has_decided_nothing else as_time(output["updated_at_ms"])
