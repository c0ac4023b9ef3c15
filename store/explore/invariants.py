"""What must hold in every state of an explored shop, from one state to the next, and when it is at rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from store.explore.database import MemoryStore, Rows, Saved
from store.explore.deadlines import ORDER_ID, OUTCOME, PAY_BY, PAYMENT_ID, PROGRESS, REASON, STATUS
from store.explore.installed import TICK_MS
from store.explore.shop import Move
from store.explore.witnesses import ExploredWitnesses
from store.explore.world import World
from store.ledger.ledger import LedgerReader
from store.step_results import REFUSED
from store.terms_of_sale import terms
from store.vocabulary import (
    CHECKOUT,
    DISPATCH,
    TRANSITIONS,
    Event,
    GreetingOutcome,
    Outcome,
    Reason,
    Status,
    dispatch_id,
)

_ONLY_GROW = ("stock_movements", "payments", "payment_notices", "refusals", "greetings")
"""Tables whose rows are never changed, nor taken back."""
_SOLD = {Status.PAID, Status.DISPATCHED}


class Invariants:
    """Looks at states; what it has found of the same ones is remembered."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._known: dict[Any, tuple[str, ...]] = {}

    def broken_by(self, before: Saved, move: Move) -> list[str]:
        """What a move has broken, each a sentence."""
        after = move.store
        found = [] if before is after else list(_changed_wrongly(before.rows, after.rows))
        return found + list(_wrong_now(after.rows, move.world)) + list(self._faults(after, move.world))

    def _faults(self, saved: Saved, world: World) -> tuple[str, ...]:
        """Of the real ledger, over the tables and the checkpoints of this state."""
        workflows = tuple(
            (key, each.name, each.status, each.output, *each.steps[:1])
            for key, each in sorted(world.workflows.items())
        )
        key = (saved.number, workflows, tuple(sorted(world.book.items())))
        known = self._known.get(key)
        if known is None:
            self._store.load(saved)
            self._store.bring_back()
            ledger = LedgerReader(self._store.engine, TICK_MS / 1000, ExploredWitnesses(world)).read()
            lines = [f"{line.name}: no" for line in ledger.lines if not line.ok]
            known = self._known[key] = tuple(f"The ledger: {says}" for says in (ledger.alarm or lines))
        return known


def _orders(rows: Rows) -> dict[str, tuple[Any, ...]]:
    return {row[PAYMENT_ID]: row for row in rows["orders"]}


def _changed_wrongly(before: Rows, after: Rows) -> Iterator[str]:
    """Whatever a page has shown must not be taken back: so no state may be."""
    for table in _ONLY_GROW:
        gone = set(before[table]) - set(after[table])
        if gone:
            yield f"A row of {table} was changed or taken back: {min(gone)}."
    orders = _orders(after)
    for key, was in _orders(before).items():
        wrong = _order_changed_wrongly(was, orders.get(key))
        if wrong:
            yield f"Order {was[ORDER_ID]} {wrong}."
    ended = {row[0]: row[OUTCOME] for row in after["greeting_requests"]}
    for row in before["greeting_requests"]:
        if row[OUTCOME] == GreetingOutcome.GREETED and ended.get(row[0]) != row[OUTCOME]:
            yield f"The greeting of {row[1]} was greeted, and is {ended.get(row[0])}."


def _order_changed_wrongly(was: tuple[Any, ...], order: tuple[Any, ...] | None) -> str:
    if order is None:
        return "is gone"
    if order[ORDER_ID] != was[ORDER_ID]:
        return f"has another number, {order[ORDER_ID]}"
    if order[STATUS] != was[STATUS] and order[STATUS] not in TRANSITIONS[was[STATUS]]:
        return f"was {was[STATUS]}, and is {order[STATUS]}"
    if was[REASON] and order[REASON] != was[REASON]:
        return f"was {was[REASON]}, and is {order[REASON]}"
    if order[PROGRESS] < was[PROGRESS]:
        return f"was at tick {was[PROGRESS]}, and is at {order[PROGRESS]}"
    return "has less time to be paid than it had" if order[PAY_BY] < was[PAY_BY] else ""


def _wrong_now(rows: Rows, world: World) -> Iterator[str]:
    orders = _orders(rows)
    yield from _wrongly_told(rows, orders, world)
    yield from _too_many_held(rows)
    for workflow in world.workflows.values():
        order = orders.get(str(workflow.arguments[0]))
        if workflow.name == DISPATCH and (order is None or order[STATUS] not in _SOLD):
            status = order[STATUS] if order is not None else "not there"
            yield f"Order {workflow.arguments[0]} is {status}, and its dispatch was started."
        if workflow.name == CHECKOUT and any(workflow.arguments[1:2]):
            yield from _not_counted(rows, order)


def _wrongly_told(rows: Rows, orders: dict[str, tuple[Any, ...]], world: World) -> Iterator[str]:
    """What somebody was told, against what is so."""
    refused = {row[0] for row in rows["refusals"]}
    for (workflow_id, name), value in world.events.items():
        told, order = json.loads(value), orders.get(workflow_id)
        if name == Event.HELD and not _is_true_of_reservation(told, order, is_refused=workflow_id in refused):
            yield f"{workflow_id} was told that its order is {told}, and that is not so."
        if name == Event.SETTLED and (
            order is None or order[ORDER_ID] != told or order[STATUS] == Status.PENDING
        ):
            yield f"{workflow_id} was told that order {told} is settled, and that is not so."
    noticed = {row[:2] for row in rows["payment_notices"]}
    for payment_id, (message, _) in world.messages.items():
        if (payment_id, json.loads(message)) not in noticed:
            yield f"{payment_id}'s checkout was told of a payment that is in no notice."


def _not_counted(rows: Rows, order: tuple[Any, ...] | None) -> Iterator[str]:
    """An order whose client is known: it counts for that client while it is unpaid."""
    if order is None or order[STATUS] != Status.PENDING:
        return
    if order[PAYMENT_ID] not in {row[0] for row in rows["holds"]}:
        yield f"Order {order[ORDER_ID]} is unpaid, and its unit counts for no client."


def _too_many_held(rows: Rows) -> Iterator[str]:
    """Each client's unpaid units, against how many one may hold. What is paid already is not one of them."""
    paid = {payment_id for payment_id, outcome, *_ in rows["payment_notices"] if outcome == Outcome.PAID}
    held = Counter(client for payment_id, client, *_ in rows["holds"] if payment_id not in paid)
    for client, units in held.items():
        if 0 < terms().unpaid_per_client < units:
            yield f"Client {client} holds more unpaid units than one may: {units}."


def _is_true_of_reservation(told: str, order: Any, *, is_refused: bool) -> bool:
    if told == REFUSED:
        return order is None and is_refused
    if order is None:
        return False
    if told == Status.PENDING:
        return bool(order[REASON] != Reason.SOLD_OUT)
    return told == order[STATUS] or (told == Status.PAID and order[STATUS] == Status.DISPATCHED)


def wrong_at_rest(rows: Rows, world: World) -> list[str]:
    """What is wrong where nothing moves any more, each a sentence."""
    return [
        *_orders_unfinished(rows, world),
        *_workflows_unfinished(rows, world),
        *_greetings_unfinished(rows, world),
    ]


def _orders_unfinished(rows: Rows, world: World) -> Iterator[str]:
    for key, order in _orders(rows).items():
        if order[STATUS] not in {Status.DISPATCHED, Status.CANCELLED}:
            yield f"Nothing moves any more, and {key}'s order is {order[STATUS]} for ever."
        elif order[STATUS] == Status.DISPATCHED and dispatch_id(key) not in world.workflows:
            yield f"{key}'s order is dispatched, and there is no dispatch of it."


def _workflows_unfinished(rows: Rows, world: World) -> Iterator[str]:
    answered = _orders(rows).keys() | {row[0] for row in rows["refusals"]}
    for workflow_id, workflow in world.workflows.items():
        if workflow.status != "SUCCESS":
            yield f"Nothing moves any more, and the {workflow.name} of {workflow_id} has not ended."
        elif workflow.name == CHECKOUT and workflow_id not in answered:
            yield f"Nothing moves any more, and {workflow_id}'s click has made neither order nor refusal."
        elif workflow.name == CHECKOUT and (workflow_id, Event.HELD) not in world.events:
            yield f"Nothing moves any more, and nobody was told of {workflow_id}'s order."


def _greetings_unfinished(rows: Rows, world: World) -> Iterator[str]:
    asked = {row[0]: row for row in rows["greeting_requests"]}
    for key, row in asked.items():
        if row[OUTCOME] is None:
            yield f"Nothing moves any more, and the greeting of {row[1]} has not ended."
        elif row[OUTCOME] == GreetingOutcome.GREETED and key not in world.book:
            yield f"The greeting of {row[1]} is greeted, and is not in the online guestbook."
    for key in world.book.keys() - asked.keys():
        yield f"The online guestbook has a signature that nobody asked for: {key}."
