"""Owns how stuck work is found: orders, payments and greetings beside their workflows. Imports `vocabulary`.

It reads, and changes nothing. What only waits for its turn, or catches up after an outage, is late and
not stuck: see `Terms`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient

from store.vocabulary import CHECKOUT, DISPATCH, GREETING, Outcome, dispatch_id

_MARGIN_MS = 20_000
"""What should have moved this long ago is stuck, if the shop was well all the while."""
_BATCH = 500
_STEPS = {
    CHECKOUT: {"reserve", "settle", DISPATCH, "DBOS.setEvent", "DBOS.recv", "DBOS.sleep"},
    DISPATCH: {f"tick {tick}" for tick in range(1, 11)},
}
"""The names of the checkpoints that each workflow can have, as its code is now."""


@dataclass(frozen=True)
class Terms:
    """What tells stuck from late."""

    calm_ms: int
    """How long the shop has been up and its database well."""
    tick_ms: int
    version: str
    """Of the application: workflows of another are run by nobody."""

    @property
    def late_before_ms(self) -> int:
        """What was due before this time, in ms since 1970, should have been done."""
        return _now_ms() - _MARGIN_MS if self.calm_ms > _MARGIN_MS else 0


@dataclass(frozen=True)
class Stuck:
    """One workflow that will not come to its end by itself."""

    workflow_id: str
    workflow_name: str
    arguments: tuple[Any, ...]
    """What it is run again with."""
    order_id: int | None
    """Of its order, if it has one."""
    subject: str
    """What it is for people: "order 7", "a greeting"."""
    since_ms: int
    """When it should have moved, in ms since 1970."""
    why: str
    """One sentence, for everybody."""
    detail: str = ""
    """The error that its workflow ended with, for operators."""
    tries: int = 0
    """How often it was run again before."""
    outcome: str | None = None
    """What its checkpoints know of the payment of an order that is lost, an `Outcome`."""
    with_it: tuple[str, ...] = ()
    """Other workflows that are forgotten with it, because it starts them anew."""


def find(store: sa.Connection, client: DBOSClient, terms: Terms, *, sweep: bool) -> Iterator[Stuck]:
    """Everything that is stuck. `sweep` looks at every checkout that DBOS knows, too, newest first."""
    seen: set[str] = set()
    for each in (
        *_live_orders(store, client, terms),
        *_money_owed(store, terms),
        *_greetings(store, client, terms),
        *(_lost_orders(store, client) if sweep else ()),
    ):
        if each.workflow_id not in seen:
            seen.add(each.workflow_id)
            yield each


# --- orders that should move ---------------------------------------------------------------------------

_LIVE = """
SELECT o.payment_id, o.order_id, o.status, o.updated_at_ms, o.pay_by_ms, h.client,
    (SELECT min(received_at_ms) FROM payment_notices n WHERE n.payment_id = o.payment_id) AS heard_at_ms,
    (SELECT count(*) FROM mendings m WHERE m.workflow_id = o.payment_id
        OR m.workflow_id = o.payment_id || '.dispatch') AS tries
FROM orders o LEFT JOIN holds h ON h.payment_id = o.payment_id
WHERE o.status IN ('pending', 'paid') ORDER BY o.order_id
"""


def _live_orders(store: sa.Connection, client: DBOSClient, terms: Terms) -> Iterator[Stuck]:
    orders = store.execute(sa.text(_LIVE)).all()
    ids = [each for order in orders for each in (order.payment_id, dispatch_id(order.payment_id))]
    known = _workflows(client, ids)
    # Read again: what was under way when it was first read may have ended since.
    still = {order.payment_id: order.status for order in store.execute(sa.text(_LIVE))}
    for order in orders:
        if still.get(order.payment_id) != order.status:
            continue
        is_paid = order.status == "paid"
        workflow_id = dispatch_id(order.payment_id) if is_paid else order.payment_id
        workflow = known.get(workflow_id)
        due_ms = (
            order.updated_at_ms + terms.tick_ms
            if is_paid
            else min(order.pay_by_ms, order.heard_at_ms or order.pay_by_ms)
        )
        is_late = due_ms < terms.late_before_ms
        if is_paid and workflow is None and _is_alive(known.get(order.payment_id)) and not is_late:
            continue  # its checkout is about to start the dispatch
        why = _why(client, workflow, terms, is_late=is_late)
        if why is not None:
            yield Stuck(
                workflow_id=workflow_id,
                outcome=None if is_paid else _outcome_heard(client, order.payment_id),
                workflow_name=DISPATCH if is_paid else CHECKOUT,
                arguments=(order.payment_id, order.updated_at_ms if is_paid else order.client),
                order_id=order.order_id,
                subject=f"order {order.order_id}",
                since_ms=min(due_ms, _now_ms()),
                why=why,
                detail=_error(client, workflow),
                tries=order.tries,
                with_it=() if is_paid else (dispatch_id(order.payment_id),),
            )


def _why(client: DBOSClient, workflow: Any, terms: Terms, *, is_late: bool) -> str | None:
    """Why a workflow that has not done its work never will, one sentence; None if it may."""
    if workflow is None:
        return "Its checkpoints are gone."
    is_alive = _is_alive(workflow)
    if is_alive and workflow.app_version not in {None, terms.version}:
        return f"Its workflow is of another version of the shop ({workflow.app_version}), which nobody runs."
    if is_alive and not is_late:
        return None
    strange = _strange_step(client, workflow)
    if strange is not None:
        return f"Its workflow has a checkpoint, {strange!r}, that the code of today cannot have made."
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


def _workflows(client: DBOSClient, ids: Iterable[str]) -> dict[str, Any]:
    """The workflows of these ids that there are."""
    wanted = list(ids)
    found: dict[str, Any] = {}
    for first in range(0, len(wanted), _BATCH):
        batch = wanted[first : first + _BATCH]
        for each in client.list_workflows(workflow_ids=batch, load_input=False, load_output=False):
            found[each.workflow_id] = each
    return found


# --- payments --------------------------------------------------------------------------------------

_OWED = """
SELECT n.payment_id, o.order_id, n.received_at_ms,
    (SELECT count(*) FROM mendings m WHERE m.workflow_id = n.payment_id) AS tries
FROM payment_notices n
LEFT JOIN orders o ON o.payment_id = n.payment_id
WHERE n.outcome = 'paid' AND n.received_at_ms < :late_before_ms
  AND (o.payment_id IS NULL OR (o.status = 'cancelled' AND NOT EXISTS
    (SELECT 1 FROM payments p WHERE p.payment_id = n.payment_id AND p.kind = 'refund')))
ORDER BY n.received_at_ms LIMIT 1000
"""


def _money_owed(store: sa.Connection, terms: Terms) -> Iterator[Stuck]:
    for notice in store.execute(sa.text(_OWED), {"late_before_ms": terms.late_before_ms}):
        has_order = notice.order_id is not None
        yield Stuck(
            workflow_id=notice.payment_id,
            workflow_name=CHECKOUT,
            arguments=(notice.payment_id, None),
            order_id=notice.order_id,
            subject=f"the payment of order {notice.order_id}" if has_order else "a payment without an order",
            since_ms=notice.received_at_ms,
            why="It was paid after it was cancelled, and not refunded."
            if has_order
            else "It was paid, and there is no order for it.",
            tries=notice.tries,
            with_it=(dispatch_id(notice.payment_id),),
        )


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


def _greetings(store: sa.Connection, client: DBOSClient, terms: Terms) -> Iterator[Stuck]:
    requests = [*store.execute(sa.text(_OPEN)), *store.execute(sa.text(_UNASKED))]
    known = _workflows(client, (request.greeting_id for request in requests))
    still_open = {
        row.greeting_id for row in [*store.execute(sa.text(_OPEN)), *store.execute(sa.text(_UNASKED))]
    }
    for request in requests:
        if request.greeting_id not in still_open:
            continue
        workflow = known.get(request.greeting_id)
        # Just asked for, its workflow is started next.
        is_late = request.give_up_at_ms + 60_000 < terms.late_before_ms
        is_new = workflow is None and terms.calm_ms < _MARGIN_MS
        why = None if is_new else _why(client, workflow, terms, is_late=is_late)
        if why is not None:
            yield Stuck(
                workflow_id=request.greeting_id,
                workflow_name=GREETING,
                arguments=(request.greeting_id, request.name),
                order_id=None,
                subject="a greeting",
                since_ms=min(request.give_up_at_ms, _now_ms()),
                why=why,
                detail=_error(client, workflow),
                tries=request.tries,
            )


# --- orders that are not there -------------------------------------------------------------------------


def _lost_orders(store: sa.Connection, client: DBOSClient) -> Iterator[Stuck]:
    """Checkouts whose `reserve` has made an order that the store does not have."""
    for batch in _batches(client):
        ids = [each.workflow_id for each in batch]
        there = sa.text(
            "SELECT payment_id FROM orders WHERE payment_id IN :ids"
            " UNION SELECT payment_id FROM refusals WHERE payment_id IN :ids"
        ).bindparams(sa.bindparam("ids", expanding=True))
        known = set(store.execute(there, {"ids": ids}).scalars())
        for each in batch:
            if each.workflow_id not in known:
                yield from _lost_order(store, client, each)


def _batches(client: DBOSClient) -> Iterator[list[Any]]:
    offset = 0
    while batch := client.list_workflows(
        name=CHECKOUT, load_input=False, load_output=False, sort_desc=True, limit=_BATCH, offset=offset
    ):
        yield batch
        offset += len(batch)


def _lost_order(store: sa.Connection, client: DBOSClient, workflow: Any) -> Iterator[Stuck]:
    steps = client.list_workflow_steps(workflow.workflow_id)
    reserved = next((step for step in steps if step["function_name"] == "reserve"), None)
    if reserved is None or not reserved["output"] or reserved["output"].get("status") == "refused":
        return
    here = store.execute(
        sa.text("SELECT 1 FROM orders WHERE payment_id = :id"), {"id": workflow.workflow_id}
    ).first()
    if here is not None:  # made since
        return
    dispatch = dispatch_id(workflow.workflow_id)
    yield Stuck(
        workflow_id=workflow.workflow_id,
        workflow_name=CHECKOUT,
        arguments=(workflow.workflow_id, None),
        order_id=None,
        subject=f"what was order {reserved['output'].get('order_id')}",
        since_ms=reserved["completed_at_epoch_ms"] or _now_ms(),
        why="Its workflow has made an order that the store does not have: an older copy was restored.",
        outcome=_outcome_heard(client, workflow.workflow_id),
        with_it=(dispatch,),
    )


def _outcome_heard(client: DBOSClient, payment_id: str) -> str | None:
    """What the checkpoints of a checkout remember of its payment, should the store have forgotten it."""
    if _workflows(client, [dispatch_id(payment_id)]):
        return Outcome.PAID
    heard: str | None = None
    for step in client.list_workflow_steps(payment_id):
        if step["function_name"] == "settle" and step["output"] and step["output"].get("first_outcome"):
            return str(step["output"]["first_outcome"])  # the message only wakes; this decided
        if step["function_name"] == "DBOS.recv" and step["output"] in set(Outcome):
            heard = str(step["output"])
    return heard


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
