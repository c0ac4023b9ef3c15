"""Finds work that the store has lost: DBOS knows of it, and a restored older copy of the store does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient

from store.durable.step_decorators import now_ms
from store.reads.checkpoints import workflows_of
from store.repair.stuck_rules import Stuck, known_outcome
from store.statement_text import text
from store.vocabulary import CHECKOUT, GREETING, RESTOCK, StepName, dispatch_id

_KNOWN = {
    CHECKOUT: "SELECT payment_id FROM orders WHERE payment_id IN :ids"
    " UNION SELECT payment_id FROM refusals WHERE payment_id IN :ids",
    GREETING: "SELECT greeting_id FROM greeting_requests WHERE greeting_id IN :ids",
    RESTOCK: "SELECT cause FROM stock_movements WHERE kind = 'restock' AND cause IN :ids",
}
"""The ids that the store has, of each workflow."""
_HALF_MENDED = """
SELECT m.workflow_id, max(m.mended_at_ms) AS mended_at_ms, count(*) AS tries FROM mendings m
WHERE m.workflow_id NOT LIKE '%.%'
  AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.payment_id = m.workflow_id)
  AND NOT EXISTS (SELECT 1 FROM refusals r WHERE r.payment_id = m.workflow_id)
GROUP BY m.workflow_id
"""
"""Checkouts that were to be run again. The ids of dispatches, greetings and restocks have a dot."""


def find_of(store: sa.Connection, client: DBOSClient, workflows: Sequence[Any]) -> Iterator[Stuck]:
    """Of these workflows, at least one, which have the same name: those that the store does not have."""
    name = workflows[0].name
    there = text(_KNOWN[name], "ids")
    known = set(store.execute(there, {"ids": [each.workflow_id for each in workflows]}).scalars())
    for workflow in workflows:
        if workflow.workflow_id in known:
            continue
        if name == CHECKOUT:
            yield from _lost_order(store, client, workflow)
        elif name == GREETING:
            yield from _lost_greeting(client, workflow)
        else:
            yield from _lost_restock(workflow)


def _lost_order(store: sa.Connection, client: DBOSClient, workflow: Any) -> Iterator[Stuck]:
    steps = client.list_workflow_steps(workflow.workflow_id)
    reserved = next((step for step in steps if step["function_name"] == StepName.RESERVE), None)
    if reserved is None or not reserved["output"]:
        return
    here = store.execute(
        text("SELECT 1 FROM orders WHERE payment_id = :id"), {"id": workflow.workflow_id}
    ).first()
    if here is not None:  # made since
        return
    dispatch, number = dispatch_id(workflow.workflow_id), reserved["output"].get("order_id")
    yield Stuck(
        workflow_id=workflow.workflow_id,
        workflow_name=CHECKOUT,
        arguments=(workflow.workflow_id, None),
        order_id=None,
        subject=f"what was order {number}" if number else "a click that was refused",
        since_ms=reserved["completed_at_epoch_ms"] or now_ms(),
        why="Its workflow remembers it, and the store does not: an older copy was restored.",
        outcome=known_outcome(client, workflow.workflow_id),
        with_it=(dispatch,),
    )


def _lost_restock(workflow: Any) -> Iterator[Stuck]:
    """Run again, it fills the shelf as that is now."""
    if workflow.status in {"SUCCESS", "ERROR"}:
        yield Stuck(
            workflow_id=workflow.workflow_id,
            workflow_name=RESTOCK,
            arguments=(workflow.workflow_id,),
            order_id=None,
            subject="a restock",
            since_ms=workflow.created_at or now_ms(),
            why="Its workflow remembers it, and the store does not: an older copy was restored."
            if workflow.status == "SUCCESS"
            else "Its workflow ended (ERROR) before its work was done.",
        )


def _lost_greeting(client: DBOSClient, workflow: Any) -> Iterator[Stuck]:
    """It may have signed over there. Run again, it does so with the same key, and is written down here."""
    found = client.list_workflows(workflow_ids=[workflow.workflow_id], load_output=False)
    if not found or not found[0].input:
        return
    *_, name = found[0].input["args"]  # earlier shops gave it the name alone
    yield Stuck(
        workflow_id=workflow.workflow_id,
        workflow_name=GREETING,
        arguments=(workflow.workflow_id, name),
        order_id=None,
        subject="a greeting",
        since_ms=workflow.created_at or now_ms(),
        why="The store does not know that it was asked for: an older copy was restored.",
    )


def find_half_mended(store: sa.Connection, client: DBOSClient) -> Iterator[Stuck]:
    """Lost orders whose old run was forgotten, in a process that died before the new one was asked for."""
    mendings = {row.workflow_id: row for row in store.execute(text(_HALF_MENDED))}
    known = workflows_of(client, mendings)
    for payment_id, mending in mendings.items():
        if payment_id not in known:
            yield Stuck(
                workflow_id=payment_id,
                workflow_name=CHECKOUT,
                arguments=(payment_id, None),
                order_id=None,
                subject="an order that was to be made again",
                since_ms=mending.mended_at_ms,
                why="Its workflow was forgotten to be run again, and was not.",
                tries=mending.tries,
                with_it=(dispatch_id(payment_id),),
            )
