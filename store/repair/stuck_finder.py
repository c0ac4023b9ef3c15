"""Finds stuck work: orders, payments and greetings beside their workflows.

It reads, and changes nothing. What only waits for its turn, or catches up after an outage, is late and not
stuck: see `Lateness`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient

from store.durable.step_decorators import now_ms
from store.reads.checkpoints import workflows_of
from store.repair import owed_money, sweep
from store.repair.stuck_rules import MARGIN_MS, Lateness, Stuck, known_outcome
from store.statement_text import text
from store.vocabulary import CHECKOUT, DISPATCH, GREETING, StepName, dispatch_id

_STEPS = {
    CHECKOUT: {StepName.RESERVE, StepName.SETTLE, DISPATCH, "DBOS.setEvent", "DBOS.recv", "DBOS.sleep"},
    DISPATCH: {f"{StepName.TICK} {tick}" for tick in range(1, 11)},
}
"""The names of the checkpoints that each workflow can have, as its code is now."""


def find(store: sa.Connection, client: DBOSClient, lateness: Lateness) -> Iterator[Stuck]:
    """What is stuck of all that the open books have; a `sweep` finds the rest."""
    seen: set[str] = set()
    for each in (
        *_live_orders(store, client, lateness),
        *owed_money.find(store, lateness),
        *_greetings(store, client, lateness),
    ):
        if each.workflow_id not in seen:
            seen.add(each.workflow_id)
            yield each


def find_all(store: sa.Connection, client: DBOSClient, lateness: Lateness) -> Iterator[Stuck]:
    """The same, and what only a sweep finds."""
    found = {each.workflow_id: each for each in find(store, client, lateness)}
    yield from found.values()
    yield from (each for each in sweep.find(store, client) if each.workflow_id not in found)


# --- orders that should move ---------------------------------------------------------------------------

_LIVE = """
SELECT o.payment_id, o.order_id, o.status, o.updated_at_ms, o.pay_by_ms, h.client,
    (SELECT min(received_at_ms) FROM payment_notices n WHERE n.payment_id = o.payment_id) AS noticed_at_ms,
    (SELECT count(*) FROM mendings m WHERE m.workflow_id = o.payment_id
        OR m.workflow_id = o.payment_id || '.dispatch') AS tries
FROM orders o LEFT JOIN holds h ON h.payment_id = o.payment_id
WHERE o.status IN ('pending', 'paid') ORDER BY o.order_id
"""


def _live_orders(store: sa.Connection, client: DBOSClient, lateness: Lateness) -> Iterator[Stuck]:
    orders = store.execute(text(_LIVE)).all()
    ids = [each for order in orders for each in (order.payment_id, dispatch_id(order.payment_id))]
    known = workflows_of(client, ids)
    # Read again: what was under way when it was first read may have ended since.
    still = {order.payment_id: order.status for order in store.execute(text(_LIVE))}
    for order in orders:
        if still.get(order.payment_id) != order.status:
            continue
        is_paid = order.status == "paid"
        workflow_id = dispatch_id(order.payment_id) if is_paid else order.payment_id
        workflow = known.get(workflow_id)
        due_ms = (
            order.updated_at_ms + lateness.tick_ms
            if is_paid
            else min(order.pay_by_ms, order.noticed_at_ms or order.pay_by_ms)
        )
        is_late = due_ms < lateness.late_before_ms
        if is_paid and workflow is None and _is_alive(known.get(order.payment_id)) and not is_late:
            continue  # its checkout is about to start the dispatch
        why = _why(client, workflow, lateness, is_late=is_late)
        if why is not None:
            yield Stuck(
                workflow_id=workflow_id,
                outcome=None if is_paid else known_outcome(client, order.payment_id),
                workflow_name=DISPATCH if is_paid else CHECKOUT,
                arguments=(order.payment_id, order.updated_at_ms if is_paid else order.client),
                order_id=order.order_id,
                subject=f"order {order.order_id}",
                since_ms=min(due_ms, now_ms()),
                why=why,
                detail=_error(client, workflow),
                tries=order.tries,
                with_it=() if is_paid else (dispatch_id(order.payment_id),),
            )


def _why(client: DBOSClient, workflow: Any, lateness: Lateness, *, is_late: bool) -> str | None:
    """Why a workflow that has not done its work never will, one sentence; None if it may."""
    if workflow is None:
        return "Its checkpoints are gone."
    is_alive = _is_alive(workflow)
    if is_alive and workflow.app_version not in {None, lateness.version}:
        return f"Its workflow is of another version of the shop ({workflow.app_version}), which nobody runs."
    if is_alive and not is_late:
        return None
    strange = _strange_step(client, workflow)
    if strange is not None:
        return f"Its workflow has a checkpoint, {strange!r}, that the current code cannot have written."
    if not is_alive:
        return f"Its workflow ended ({workflow.status}) before its work was done."
    return "Its workflow is under way and does not move: the log of the server may say why."


def _is_alive(workflow: Any) -> bool:
    return workflow is not None and workflow.status in {"PENDING", "ENQUEUED", "DELAYED"}


def _error(client: DBOSClient, workflow: Any) -> str:
    """The first line of the error that a workflow has ended with; nothing if it has not."""
    if workflow is None or workflow.status != "ERROR":
        return ""
    found = client.list_workflows(workflow_ids=[workflow.workflow_id], load_input=False)
    lines = str(found[0].error or "").splitlines() if found else []
    return lines[0][:200] if lines else ""


def _strange_step(client: DBOSClient, workflow: Any) -> str | None:
    possible = _STEPS.get(workflow.name, set())
    steps = client.list_workflow_steps(workflow.workflow_id, load_output=False) if possible else []
    return next((step["function_name"] for step in steps if step["function_name"] not in possible), None)


# --- greetings ---------------------------------------------------------------------------------------

_OPEN = """
SELECT q.greeting_id, q.name, q.give_up_at_ms, g.signature,
    (SELECT count(*) FROM mendings m WHERE m.workflow_id = q.greeting_id) AS tries
FROM greeting_requests q LEFT JOIN greetings g ON g.greeting_id = q.greeting_id
WHERE q.outcome IS NULL ORDER BY q.asked_at_ms LIMIT 1000
"""
_UNASKED = """
SELECT g.greeting_id, g.name, g.recorded_at_ms AS give_up_at_ms, g.signature,
    (SELECT count(*) FROM mendings m WHERE m.workflow_id = g.greeting_id) AS tries
FROM greetings g LEFT JOIN greeting_requests q ON q.greeting_id = g.greeting_id
WHERE q.greeting_id IS NULL LIMIT 1000
"""


def _greetings(store: sa.Connection, client: DBOSClient, lateness: Lateness) -> Iterator[Stuck]:
    requests = [*store.execute(text(_OPEN)), *store.execute(text(_UNASKED))]
    known = workflows_of(client, (request.greeting_id for request in requests))
    still_open = {row.greeting_id for row in [*store.execute(text(_OPEN)), *store.execute(text(_UNASKED))]}
    for request in requests:
        if request.greeting_id not in still_open:
            continue
        workflow = known.get(request.greeting_id)
        # Just asked for, its workflow is started next.
        is_late = request.give_up_at_ms + 60_000 < lateness.late_before_ms
        is_new = workflow is None and lateness.calm_ms < MARGIN_MS
        why = None if is_new else _why(client, workflow, lateness, is_late=is_late)
        if why is not None:
            yield Stuck(
                workflow_id=request.greeting_id,
                workflow_name=GREETING,
                arguments=(request.greeting_id, request.name),
                order_id=None,
                subject="a greeting",
                since_ms=min(request.give_up_at_ms, now_ms()),
                why=why,
                detail=_error(client, workflow),
                tries=request.tries,
            )
