"""What is said of stuck work, and what its checkpoints are asked to say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dbos import DBOSClient

from store.durable.step_decorators import now_ms
from store.reads.checkpoints import workflows_of
from store.vocabulary import Outcome, dispatch_id

MARGIN_MS = 20_000
"""What should have moved this long ago is stuck, if the shop was well all the while."""
BATCH = 500


@dataclass(frozen=True)
class Lateness:
    """What tells stuck from late."""

    calm_ms: int
    """How long the shop has been up and its database well."""
    tick_ms: int
    version: str
    """Of the application: workflows of another are run by nobody."""

    @property
    def late_before_ms(self) -> int:
        """What was due before this time, in ms since 1970, should have been done."""
        return now_ms() - MARGIN_MS if self.calm_ms > MARGIN_MS else 0


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


def known_outcome(client: DBOSClient, payment_id: str) -> str | None:
    """What the checkpoints of a checkout remember of its payment, should the store have forgotten it."""
    if workflows_of(client, [dispatch_id(payment_id)]):
        return Outcome.PAID
    outcome = _outcome_given(client, payment_id)
    for step in client.list_workflow_steps(payment_id):
        order = step["output"]
        if step["function_name"] in {"reserve", "settle"} and order and order.get("first_outcome"):
            return str(order["first_outcome"])  # the message only wakes; this decides
        if step["function_name"] == "DBOS.recv" and step["output"] in set(Outcome):
            outcome = str(step["output"])
    return outcome


def _outcome_given(client: DBOSClient, payment_id: str) -> str | None:
    """What a checkout that was run again was told of its payment."""
    found = client.list_workflows(workflow_ids=[payment_id], load_output=False)
    given = found[0].input if found else None
    arguments = given["args"] if given is not None else ()
    return next((str(each) for each in arguments[2:] if each in set(Outcome)), None)
