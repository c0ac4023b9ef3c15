"""The shopper's pages and fragments.

A page and the fragment that polls below it render the same template, so what a shopper sees is the same
with JavaScript and without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from flask import Blueprint, Response, abort, current_app, redirect, request, url_for
from flask_htmx import make_response
from werkzeug.wrappers import Response as AnyResponse

from store import commands
from store.reads import time_limit
from store.reads.crashes import Crash
from store.reads.records import Board, Order, PaymentView, Refund
from store.vocabulary import Outcome, PaymentState, Status, is_key, new_key
from store.web import own_orders
from store.web.every_request import Fragment, abort_not_there, fragment, htmx, page, render, send
from store.web.origin import client_of
from store.web.shop import queries, the_shop
from store.web.views import (
    OrderView,
    PaymentPage,
    Shelf,
    State,
    ends_on_payment_page,
    state_of,
)
from store.web.waterfall import Waterfall

storefront = Blueprint("storefront", __name__)

_RECENT = 8
"""Orders on the store page."""
_KEPT = "recent orders"
_LAST_STEPS = timedelta(seconds=10)
"""How long after its order the timeline may still grow."""


@storefront.get("/")
def store() -> str:
    """Show the product, the shelf, and the newest orders.

    Whoever clicked on an empty shelf comes back here with their key, which buys once it is filled.
    """
    board = queries().board()
    given = request.args.get("key", "")
    key = given if is_key(given) else new_key()
    came_too_late = key == given and not board.product.on_hand
    return page(
        "store.html",
        product=board.product,
        shelf=Shelf.of(board, key),
        recent=_recent(board).html,
        came_too_late=came_too_late,
    )


@storefront.get("/shelf")
def shelf() -> Response:
    """The shelf and its Buy Now, which keeps the key that the page has."""
    return fragment("_buy_now.html", shelf=Shelf.of(queries().board(), _key(request.args)))


@storefront.get("/recent")
def recent() -> Response:
    """The newest orders and their bars."""
    return send(_recent(queries().board()))


@storefront.post("/buy")
def buy() -> AnyResponse:
    """Start the checkout that the key names, or come back to the one it has started."""
    key = _key(request.form)
    if queries().is_sold_out_for(key):  # no workflow and no row for a click that can get nothing
        return redirect(url_for(".store", key=key), 303)
    try:
        commands.buy(key, client_of(request))
    except commands.KeyTaken:
        abort(409, "That key belongs to something else: go back to the store for a new Buy Now.")
    except commands.TooManyUnpaid:
        pass  # the payment page says so, and is a way back in
    return redirect(url_for(".pay", payment_id=key), 303)


@storefront.get("/pay/<key:payment_id>")
def pay(payment_id: str) -> AnyResponse:
    """Show where the payment stands, or go on to the order once it is settled."""
    view = _known(queries().payment(payment_id), payment_id)
    if _is_settled(view):
        return redirect(url_for(".order", payment_id=payment_id), 303)
    shown = _payment_page(payment_id, view)
    return _remembered(make_response(page("pay.html", payment=shown)), shown)


@storefront.get("/pay/<key:payment_id>/status")
def payment_status(payment_id: str) -> Response:
    """The payment as it stands now; once settled, it sends the page on to the order."""
    view = _known(queries().watch(payment_id), payment_id)
    if _is_settled(view):
        address = url_for(".order", payment_id=payment_id)
        onward: Response = make_response("", location={"path": address, "target": "body", "replace": "true"})
        return onward
    shown = _payment_page(payment_id, view)
    told = fragment("_payment_status.html", same_while=shown.steady, payment=shown)
    return told if told.status_code == 304 else _remembered(told, shown)


@storefront.post("/pay/<key:payment_id>")
def settle(payment_id: str) -> AnyResponse:
    """Tell the checkout of its payment, and go to the order."""
    outcome = request.form.get("outcome", "")
    if outcome not in set(Outcome):
        abort(400, "A payment is either paid or failed: go back and choose one of the two.")
    # Anybody may still cancel: money that comes for a cancelled order is given back.
    if outcome == Outcome.PAID and not the_shop().settings.can_pay_here:
        abort(
            403,
            "The payment provider tells this shop what is paid: "
            "go back to the payment page, which goes on by itself.",
        )
    view = _known(queries().payment(payment_id), payment_id)
    if view.state is PaymentState.REFUSED:
        _no_such_order()
    if view.order is None or view.order.can_be_changed_by(Outcome(outcome)):
        try:
            commands.settle(payment_id, Outcome(outcome))
        except commands.UnknownPayment:
            _no_such_order()
    return redirect(url_for(".order", payment_id=payment_id), 303)


@storefront.post("/pay/<key:payment_id>/more_time")
def extend(payment_id: str) -> AnyResponse:
    """Give the shopper more time to pay, once, and go back to the payment."""
    view = _known(queries().payment(payment_id), payment_id)
    if view.state is PaymentState.AWAITING_PAYMENT:  # of any other, its page says why not
        commands.extend(payment_id)
    return redirect(url_for(".pay", payment_id=payment_id), 303)


@storefront.get("/orders/<key:payment_id>")
def order(payment_id: str) -> str | AnyResponse:
    """Show an order: where it stands, its track, and every step that the database remembers."""
    return time_limit.read(lambda: _order_page(payment_id))


def _order_page(payment_id: str) -> str | AnyResponse:
    found = _known(queries().payment(payment_id), payment_id).order
    if found is None:
        return redirect(url_for(".pay", payment_id=payment_id), 303)
    # What htmx brought can ask for the steps once they are to be seen; they cost more than all the rest.
    timeline = _timeline_later(found) if htmx else _timeline(found)
    return page("order.html", shown=_shown(found, queries().crashes_of(payment_id)), **timeline)


@storefront.get("/orders/<key:payment_id>/progress")
def order_progress(payment_id: str) -> Response:
    """Where the order stands now."""
    view = queries().watch(payment_id)
    found = view.order or _no_such_order()
    shown = _shown(found, view.crashes)
    return fragment("_order_progress.html", same_while=shown, shown=shown)


def _shown(order: Order, crashes: tuple[Crash, ...]) -> OrderView:
    return OrderView.of(order, crashes, _refund(order), queries().deploys_met(order))


@storefront.get("/orders/<key:payment_id>/timeline")
def order_timeline(payment_id: str) -> Response:
    """Every step of the order so far, and what became of it over the crashes."""
    found = _known(queries().payment(payment_id), payment_id).order or _no_such_order()
    return fragment("_order_timeline.html", **_timeline(found))


def _key(values: Mapping[str, str]) -> str:
    key = values.get("key", "")
    if not is_key(key):
        abort(
            400,
            "That Buy Now has no usable key (1 to 64 letters, digits, _ or -): "
            "go back to the store for a new one.",
        )
    return key


def _known(view: PaymentView, payment_id: str) -> PaymentView:
    """The same, unless nothing has been started by that name: then 404."""
    if view.state is PaymentState.RESERVING and not queries().checkpoints.is_known_checkout(payment_id):
        _no_such_order()
    return view


def _refund(order: Order) -> Refund | None:
    """The money that came too late, if any did. Only a cancelled order can have some."""
    return queries().refund(order.payment_id) if order.status is Status.CANCELLED else None


def _is_settled(view: PaymentView) -> bool:
    """Whether the payment page has nothing left to offer, and the order's page goes on."""
    is_decided = view.order is not None and view.order.status is not Status.PENDING
    return is_decided and not ends_on_payment_page(state_of(view))


def _remembered(response: Response, shown: PaymentPage) -> Response:
    """The same; a browser that shows something to pay for will find the way back to it."""
    if shown.state is State.AWAITING_PAYMENT:
        own_orders.remember(response, request, shown.payment_id)
    return response


def _payment_page(payment_id: str, view: PaymentView) -> PaymentPage:
    sells_again = ends_on_payment_page(state_of(view))
    return PaymentPage.of(
        payment_id,
        view,
        can_pay_here=the_shop().settings.can_pay_here,
        shelf=Shelf.of(queries().board(), new_key()) if sells_again else None,
        unpaid=own_orders.unpaid(request) if view.state is PaymentState.REFUSED else [],
    )


@dataclass(frozen=True)
class _Kept:
    """The newest orders as they were rendered last, and what of."""

    board: Board
    alarm: tuple[str, ...]
    fragment: Fragment


def _recent(board: Board) -> Fragment:
    """The newest orders, rendered once for each reading of the board, however many look at them."""
    alarm = the_shop().ledger.alarm()
    kept: _Kept | None = current_app.extensions.get(_KEPT)
    if kept is None or kept.board is not board or kept.alarm != alarm:
        newest = board.newest(_RECENT)
        shown = [OrderView.of(order, board.crashes.get(order.payment_id, ())) for order in newest]
        kept = _Kept(board, alarm, render("_recent_orders.html", recent=shown, alarm=alarm))
        current_app.extensions[_KEPT] = kept
    return kept.fragment


def _timeline(order: Order) -> dict[str, Any]:
    # What DBOS records last, it records after the order is final.
    is_live = not order.is_final or datetime.now(UTC) - order.updated_at < _LAST_STEPS
    timeline = Waterfall.of(queries().timeline(order.payment_id))
    return {"timeline": timeline, "is_live": is_live, "payment_id": order.payment_id}


def _timeline_later(order: Order) -> dict[str, Any]:
    return {"timeline": None, "is_live": True, "payment_id": order.payment_id}


def _no_such_order() -> NoReturn:
    abort_not_there("There is no such order: if you followed a link, check that all of it was copied.")
