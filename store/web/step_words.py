"""What each step of a workflow did, in the words of its shopper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from store.money import price
from store.reads.timeline import Step
from store.step_results import REFUSED
from store.vocabulary import DISPATCH, DISPATCH_TICKS, GREETING_TICKS, Outcome, Reason, Status, StepName


def words_of(step: Step) -> str:
    """What a step did, as its shopper would say it; by its name where that is of an earlier shop."""
    kind, _, number = step.name.rpartition(" ")
    if kind == StepName.TICK:
        return f"Tick {number} of {DISPATCH_TICKS}"
    if kind == StepName.WAIT:
        return f"Waited, {number} of {GREETING_TICKS}"
    if step.name == "DBOS.recv":
        return _words_of_message(step.output)
    say, keys = _SAYS.get(step.name, (step.name, frozenset()))
    if isinstance(say, str):
        return say
    # Earlier shops returned less; and what cannot be read is a text.
    return say(step.output) if isinstance(step.output, dict) and keys <= step.output.keys() else step.name


def _words_of_reserve(output: Any) -> str:
    if output["status"] == REFUSED:
        return "Refused: too many unpaid units"
    return "Found the shelf empty" if output["reason"] == Reason.SOLD_OUT else "Took a unit off the shelf"


def _words_of_settle(output: Any) -> str:
    if output["status"] == Status.PENDING:
        return "Looked whether it is decided: not yet"
    if output["status"] not in {Status.PAID, Status.DISPATCHED, Status.CANCELLED}:
        return "Found no order to settle"
    if output["status"] == Status.CANCELLED:
        refunded = f"; refunded {price(output['price_cents'])}" if output["has_been_paid"] else ""
        return f"Cancelled it; the unit went back on the shelf{refunded}"
    return f"Charged {price(output['price_cents'])}"


def _words_of_message(output: Any) -> str:
    if output is None:
        return "Waited for the payment: no word came"
    outcome = {str(Outcome.PAID): ": paid", str(Outcome.FAILED): ": cancelled"}.get(str(output), "")
    return f"Waited for the payment{outcome}"


def _words_of_signing(output: Any) -> str:
    signature = output["signature"]
    return (
        f"Signed the online guestbook as No. {signature}"
        if signature
        else "Asked the online guestbook in vain"
    )


_OF_AN_ORDER = frozenset({"status", "reason", "price_cents", "has_been_paid"})
_SAYS: dict[str, tuple[str | Callable[[Any], str], frozenset[str]]] = {
    StepName.RESERVE: (_words_of_reserve, _OF_AN_ORDER),
    StepName.SETTLE: (_words_of_settle, _OF_AN_ORDER),
    DISPATCH: ("Started the dispatch", frozenset()),
    StepName.BEGIN: ("Began the greeting", frozenset()),
    StepName.SIGN: (_words_of_signing, frozenset({"signature"})),
    StepName.RECORD: ("Wrote it into our own book", frozenset()),
    StepName.END: ("Gave the greeting up", frozenset()),
    "DBOS.setEvent": ("Told the page", frozenset()),
    "DBOS.sleep": ("Set the time at which to go on", frozenset()),
}
"""By the name of the step: what it did, or how that is said, and what its output must have for that."""
