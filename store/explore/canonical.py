"""When two states are the same: no later transition can tell them apart.

Times count by how far ahead they are, and not at all once they are over; of notices, their order. When
something was written down is read by nobody. Tokens count by whether they are the owner's.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Any

from store.explore.database import Rows, Saved
from store.explore.deadlines import CREATED_AT, EXTENDED_AT, GIVE_UP_AT, PAY_BY
from store.explore.world import World

_AHEAD = re.compile(r'"(pay_by_ms|give_up_at_ms|wake_ms|at_ms)": (\d+)')
_WHEN = re.compile(r'"updated_at_ms": \d+')
_WRITTEN_AT_THE_END = {"stock_movements", "payments", "refusals", "greetings"}
"""Tables whose last column is when the row was written."""


def key_of(saved: Saved, world: World) -> bytes:
    """The same for states that are the same."""
    parts: list[Any] = [_tables(saved, world.now_ms)]
    for workflow_id, each in sorted(world.workflows.items()):
        is_over = each.status != "PENDING"
        # Nothing reads the steps of a workflow that has ended, but a run that is still at it.
        steps = () if is_over and not _is_run(world, workflow_id) else _texts(each.steps, world.now_ms)
        whose = (workflow_id, each.arguments, each.executor == world.executor)
        parts.append((*whose, each.status, each.output is None, steps))
    parts.append(sorted(world.events.items()))
    parts.append(sorted(world.messages.items()))
    parts.append(sorted(_run(world, run) for run in world.runs))
    parts.append(
        sorted(
            (
                each.executor - world.executor,
                each.action,
                tuple(_relative(text, world.now_ms) for text in each.memory),
            )
            for each in world.requests
        )
    )
    parts.append((world.todo, world.crashes, world.takeovers, world.guestbook_deaths, world.mendings))
    parts.append((world.has_adopted, sorted(world.book.items())))
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).digest()


@lru_cache(maxsize=50_000)
def _tables(saved: Saved, now_ms: int) -> str:
    return repr(_rows_of(saved.rows, now_ms))


def _rows_of(rows: Rows, now_ms: int) -> list[Any]:
    """The tables, with their times as above."""
    found: list[Any] = []
    for table, all_rows in rows.items():
        if table in _WRITTEN_AT_THE_END:
            found.append([row[:-1] for row in all_rows])
        elif table == "orders":
            found.append([_order(row, now_ms) for row in all_rows])
        elif table == "payment_notices":
            found.append([row[:-1] for row in sorted(all_rows, key=lambda row: (row[0], row[-1]))])
        elif table == "greeting_requests":
            found.append(
                [(row[:3], max(0, row[GIVE_UP_AT] - now_ms), row[GIVE_UP_AT + 1 :]) for row in all_rows]
            )
        elif table == "products":
            found.append([row[4] for row in all_rows])
        else:
            found.append(all_rows)
    return found


def _order(row: tuple[Any, ...], now_ms: int) -> tuple[Any, ...]:
    left_ms = max(0, row[PAY_BY] - now_ms)
    window_ms = row[PAY_BY] - row[CREATED_AT] if left_ms else 0
    return (*row[:CREATED_AT], left_ms, window_ms, row[EXTENDED_AT] is None)


def _is_run(world: World, workflow_id: str) -> bool:
    return any(run.workflow_id == workflow_id for run in world.runs)


def _run(world: World, run: Any) -> tuple[Any, ...]:
    workflow = world.workflows.get(run.workflow_id)
    is_owner = workflow is not None and workflow.owner == run.owner
    # What it remembers is the beginning of what is recorded, unless that was forgotten meanwhile.
    memory = tuple(_relative(text, world.now_ms) for text in run.memory) if world.may_forget else ()
    if not is_owner and not memory:
        memory = (str(len(run.memory)),)
    unrecorded = ""
    if run.unrecorded is not None:
        # Whoever is no owner loses it.
        unrecorded = _relative(run.unrecorded[1], world.now_ms) if is_owner else "something"
    return (run.workflow_id, run.executor - world.executor, is_owner, memory, unrecorded)


def _texts(steps: list[tuple[str, str]], now_ms: int) -> tuple[str, ...]:
    return tuple(_relative(text, now_ms) for _, text in steps)


@lru_cache(maxsize=20_000)
def _relative(text: str, now_ms: int) -> str:
    def ahead(found: re.Match[str]) -> str:
        return f'"{found[1]}": {max(0, int(found[2]) - now_ms)}'

    return _WHEN.sub("", _AHEAD.sub(ahead, text))
