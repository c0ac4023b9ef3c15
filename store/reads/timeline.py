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

from store.reads.checkpoints import as_time
from store.reads.crashes import Crash, Start
from store.statement_text import text
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
    """Of the servers that have had it, in turn."""

    @property
    def deploys(self) -> tuple[Deploy, ...]:
        """Where other code went on, oldest first."""
        ticks = [step.ended_at for step in self.steps if step.name.startswith(f"{StepName.TICK} ")]
        return tuple(
            Deploy(start.number, start.at, sum(tick <= start.at for tick in ticks))
            for before, start in pairwise(self.starts)
            if before.code and start.code and before.code != start.code
        )


def mendings_of(connection: sa.Connection, workflow_ids: Sequence[str]) -> list[Mending]:
    """When one of these workflows was run again, oldest first."""
    statement = (
        "SELECT reason, mended_at_ms FROM mendings WHERE workflow_id IN :ids"
        " UNION ALL SELECT '', began_at_ms FROM reruns WHERE payment_id IN :ids ORDER BY mended_at_ms"
    )
    select = text(statement, "ids")
    rows = connection.execute(select, {"ids": workflow_ids})
    return [Mending(row.reason, as_time(row.mended_at_ms)) for row in rows]


def of(
    recorded: Iterable[Mapping[str, Any]],
    met: Sequence[Crash],
    mendings: Sequence[Mending],
    starts: Sequence[Start],
    made_at: Mapping[str, datetime],
) -> Timeline:
    """The story of these steps, as DBOS lists them.

    They were read before: what is recorded by then was done by one of the servers of `starts`, which are
    those that have had it. `met` are the crashes that met it. `made_at` says when changes were made whose
    steps do not.
    """
    steps = []
    new_runs = [*(crash.came_at for crash in met), *(mending.at for mending in mendings)]
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
        server = next((start.number for start in reversed(starts) if start.at <= ended_at), 0)
        steps.append(Step(name, output, began_at, ended_at, server, fate))
    # Of two that ended at the same millisecond, the one that DBOS lists first.
    steps.sort(key=lambda step: step.ended_at)
    return Timeline(tuple(steps), tuple(met), tuple(mendings), tuple(starts))


def _made_at(name: str, output: Any) -> datetime | None:
    """When the change was made that a step returned; None if it made none, or does not say."""
    if not isinstance(output, dict) or not output.get("updated_at_ms"):
        return None
    has_decided_nothing = name == StepName.SETTLE and output.get("status") == Status.PENDING
    return None if has_decided_nothing else as_time(output["updated_at_ms"])
