"""Runs a finished order again, for real: its workflows are rewound to their first line, under the same ids.

DBOS forgets their steps and runs them as if for the first time. By the rule of `workflows.py` that changes
nothing: each step finds what it would do done. What the books had of the order is written down before, and
compared after.

The press comes with the number of the run that it asks for, and only who writes that down rewinds: sent
twice, or again by a browser after a crash, it is one run. A server that dies between the dispatch and the
checkout has rewound the one and not the other, which is as harmless; a workflow that is rewound is on a
queue, and the next server takes it from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dbos import DBOS, error
from flask import Response, abort, redirect, request, url_for
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as AnyResponse

from store.durable import runtime
from store.durable.deadlines import call_with_deadline
from store.durable.statements import execute, fetch_one
from store.durable.step_decorators import now_ms, plain_transaction
from store.money import price
from store.reads.checkpoints import as_time
from store.reads.records import Order
from store.stage.presenter_bar import presenter
from store.vocabulary import dispatch_id
from store.web.every_request import abort_not_there, fragment, htmx, page
from store.web.shop import queries

_DIGITS = 6
"""Of the number of a run."""
_ALIVE = {"PENDING", "ENQUEUED", "DELAYED"}
_AS_IT_IS = """
SELECT o.status, o.reason, o.updated_at_ms,
    (SELECT count(*) FROM payments p WHERE p.payment_id = o.payment_id AND p.kind = 'charge') AS charges,
    (SELECT count(*) FROM payments p WHERE p.payment_id = o.payment_id AND p.kind = 'refund') AS refunds,
    (SELECT coalesce(sum(p.amount_cents), 0) FROM payments p WHERE p.payment_id = o.payment_id
        AND p.kind = 'charge') AS charged_cents,
    (SELECT count(*) FROM stock_movements m WHERE m.cause = o.payment_id AND m.kind = 'reserve') AS taken,
    (SELECT count(*) FROM stock_movements m WHERE m.cause = o.payment_id AND m.kind = 'release') AS given_back
FROM orders o WHERE o.payment_id = :id
"""
_RERUNS = "SELECT attempt, as_it_was, began_at_ms FROM reruns WHERE payment_id = :id ORDER BY attempt"


@dataclass(frozen=True)
class Rerun:
    """An order, as far as it may be run again."""

    order: Order
    state: str
    """`under_way`, `ready`, `running` or `was_run`."""
    times: int
    """How often it was run again."""
    steps: int
    """That the last of these runs has recorded so far."""
    as_it_was: str
    """What the books had of it before the last one."""
    as_it_is: str
    """What they have now."""

    @property
    def next_attempt(self) -> int:
        """The number of the next run."""
        return self.times + 1

    @property
    def is_unchanged(self) -> bool:
        """Whether the books have the same of it as before the last run."""
        return self.as_it_was == self.as_it_is

    @property
    def is_live(self) -> bool:
        """Whether this will change by itself."""
        return self.state in {"under_way", "running"}


@presenter.get("/stage/orders/<key:payment_id>/again")
def show_rerun(payment_id: str) -> str:
    """Show what running an order again did, and the button."""
    return page("run_again.html", rerun=_rerun(payment_id))


@presenter.get("/stage/orders/<key:payment_id>/again/now")
def rerun_now(payment_id: str) -> Response:
    """The same as it stands now."""
    return fragment("_run_again.html", rerun=_rerun(payment_id))


@presenter.post("/stage/orders/<key:payment_id>/again")
def run_again(payment_id: str) -> AnyResponse:
    """Run a finished order again."""
    attempt = request.form.get("attempt", "")
    if not (attempt.isascii() and attempt.isdigit() and len(attempt) <= _DIGITS):
        abort(400, "Which run is meant cannot be understood: load the page of the order again.")
    order = _order(payment_id)
    if not order.is_final:
        abort(409, f"Order {order.order_id} is under way: run it again when it has ended.")
    workflows = queries().checkpoints.list_workflows(payment_id, dispatch_id(payment_id))
    if all(each.workflow_id != payment_id for each in workflows):
        abort(409, f"The checkpoints of order {order.order_id} are gone: there is nothing to run again.")
    if any(each.status in _ALIVE for each in workflows):
        abort(409, f"Order {order.order_id} is being run already: wait until that has ended.")
    if call_with_deadline(lambda: _begin(payment_id, int(attempt))):
        # The dispatch first: a checkout that finds its order dispatched starts none.
        ids = sorted((each.workflow_id for each in workflows), reverse=True)
        call_with_deadline(lambda: _rewind(ids))
    if htmx and not htmx.boosted:
        return fragment("_run_again.html", rerun=_rerun(payment_id))
    return redirect(url_for(".show_rerun", payment_id=payment_id), 303)


def _rewind(workflow_ids: Sequence[str]) -> None:
    for workflow_id in workflow_ids:
        try:
            DBOS.rewind_workflow(workflow_id, application_version=runtime.APPLICATION_VERSION)
        except error.DBOSException:
            # It is under way: the request that has begun that runs it. Or it was forgotten a moment ago.
            continue


@plain_transaction
def _begin(session: Session, payment_id: str, attempt: int) -> bool:
    """Write down that an order is run again for that time; False if that is not the next one."""
    as_it_was = _in_words(fetch_one(session, _AS_IT_IS, id=payment_id))
    return bool(
        execute(
            session,
            "INSERT INTO reruns (payment_id, attempt, as_it_was, began_at_ms)"
            " SELECT :id, :attempt, :as_it_was, :at_ms FROM (SELECT count(*) AS times FROM reruns"
            " WHERE payment_id = :id) AS before WHERE times = :attempt - 1 ON CONFLICT DO NOTHING",
            id=payment_id,
            attempt=attempt,
            as_it_was=as_it_was,
            at_ms=now_ms(),
        )
    )


def _order(payment_id: str) -> Order:
    order = queries().find(payment_id)
    if order is None:
        abort_not_there("There is no such order: go back to the store.")
    return order


def _rerun(payment_id: str) -> Rerun:
    order = _order(payment_id)
    [now] = queries().rows(_AS_IT_IS, id=payment_id)
    reruns = queries().rows(_RERUNS, id=payment_id)
    last = reruns[-1] if reruns else None
    ids = (payment_id, dispatch_id(payment_id))
    is_alive = any(each.status in _ALIVE for each in queries().checkpoints.list_workflows(*ids))
    began = [each["started_at_epoch_ms"] or 0 for each in queries().checkpoints.list_steps(*ids)]
    if order.is_final and last:
        state = "running" if is_alive else "was_run"
    else:
        state = "under_way" if is_alive or not order.is_final else "ready"
    return Rerun(
        order=order,
        state=state,
        times=len(reruns),
        steps=sum(at_ms >= last.began_at_ms for at_ms in began) if last else 0,
        as_it_was=last.as_it_was if last else "",
        as_it_is=_in_words(now),
    )


def _in_words(row: Any) -> str:
    """What the books have of an order, in words that are the same only if nothing has changed."""
    charges = f"charged {_times(row.charges)}, {price(int(row.charged_cents))}"
    refunds = f", refunded {_times(row.refunds)}"
    back = f", {row.given_back} given back" if row.given_back else ""
    stands = (row.reason or row.status).replace("_", " ")
    units = f"{row.taken} taken off the shelf{back}" if row.taken else "nothing taken off the shelf"
    changed = f"{as_time(row.updated_at_ms):%H:%M:%S.%f}"[:-3]
    money = f"{charges if row.charges else 'not charged'}{refunds if row.refunds else ''}"
    return f"{stands}, {money}, {units}, last changed at {changed} UTC"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
