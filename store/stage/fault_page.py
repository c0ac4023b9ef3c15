"""The presenter's page of faults, which end by themselves; of the shelf; and of the time to pay."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Response, abort, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from store import commands
from store.clients import guestbook
from store.durable import runtime
from store.durable.deadlines import call_with_deadline
from store.durable.step_decorators import now_ms
from store.stage import faults, payment_window_hold
from store.stage.faults import FAULTS, LEAD_MS, Fault, Latest
from store.stage.presenter_bar import is_meant_for_this_server, presenter
from store.web.every_request import fragment, page
from store.web.shop import queries, the_shop

_DIGITS = 15
"""Of a time in ms."""


@dataclass(frozen=True)
class FaultView:
    """One fault, as its button shows it."""

    name: str
    fault: Fault
    expect: str
    """What is done here and what is to be seen."""
    why_not: str
    is_on: bool


@dataclass(frozen=True)
class TroubleView:
    """All that may go wrong, and what does."""

    faults: tuple[FaultView, ...]
    latest: Latest
    on_hand: int
    is_held: bool
    """Whether the payment window is."""
    executor: int


@presenter.get("/stage/faults")
def show_faults() -> str:
    """Show what may go wrong."""
    return page("faults.html", trouble=_view())


@presenter.get("/stage/faults/now")
def faults_now() -> Response:
    """The same as it stands now."""
    return fragment("_faults.html", trouble=_view())


@presenter.post("/stage/faults/<name>")
def make_fault(name: str) -> AnyResponse:
    """Make one fault, for its seconds, unless one is on."""
    fault = FAULTS.get(name)
    if fault is None:
        abort(404, f"There is no such fault: it is one of {', '.join(FAULTS)}.")
    latest = faults.latest(queries())
    after = request.form.get("after", str(latest.began_at_ms))
    if not (after.isascii() and after.isdigit() and len(after) <= _DIGITS):
        abort(400, "That press cannot be understood: load the page of the faults again.")
    if latest.says:
        abort(409, f"{latest.says}. Wait until that is over.")
    settings = the_shop().settings
    if why_not := fault.why_not(settings):
        abort(409, f"That fault cannot be made here. {why_not}")
    ends_at_ms = now_ms() + fault.seconds * 1000 + (LEAD_MS if name == "frozen" else 0)
    if not call_with_deadline(lambda: faults.begin(name, int(after), ends_at_ms)):
        abort(409, "That press came twice, or another one came before it: load the page of the faults again.")
    try:
        fault.make(settings, fault.seconds)
    except guestbook.Unavailable as trouble:
        call_with_deadline(faults.end)
        abort(502, f"{trouble} So it was not told what to do wrong.")
    return redirect(url_for(".show_faults"), 303)


@presenter.post("/stage/sell_out")
def sell_out() -> AnyResponse:
    """Clear the shelf: a restock to nothing, recorded as any other."""
    queries().require_database()
    if is_meant_for_this_server():
        commands.restock(level=0)
    return redirect(url_for(".show_faults"), 303)


@presenter.post("/stage/window")
def change_window() -> AnyResponse:
    """Hold the payment window open while the presenter talks, or no longer."""
    changes = {"hold": payment_window_hold.begin, "end": payment_window_hold.end}
    change = changes.get(request.form.get("do", ""))
    if change is None:
        abort(400, "The payment window is held, or it is not: go back and choose one of the two.")
    call_with_deadline(lambda: change(the_shop().settings))
    return redirect(url_for(".show_faults"), 303)


def _view() -> TroubleView:
    latest, settings = faults.latest(queries()), the_shop().settings
    return TroubleView(
        faults=tuple(
            FaultView(
                name,
                fault,
                fault.says(settings),
                fault.why_not(settings),
                bool(latest.says) and latest.kind == name,
            )
            for name, fault in FAULTS.items()
        ),
        latest=latest,
        on_hand=queries().board().product.on_hand,
        is_held=payment_window_hold.is_on(queries()),
        executor=runtime.executor_number(),
    )
