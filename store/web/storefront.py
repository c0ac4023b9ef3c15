"""The shopper's pages and fragments.

A page and the fragment that polls below it render the same template, so what a shopper sees is the same
with JavaScript and without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Blueprint, Flask, Response, abort, current_app, redirect, render_template, request, url_for
from flask_htmx import make_response
from werkzeug.wrappers import Response as AnyResponse

from store import commands
from store.reads.checkpoints import is_known_checkout
from store.reads.records import Order, PaymentView, Refund
from store.settings import Settings
from store.vocabulary import Outcome, PaymentState, Reason, Status, is_key, new_key
from store.web.every_request import fragment
from store.web.origin import client_of
from store.web.shop import queries

storefront = Blueprint("storefront", __name__)

_RECENT = 8
"""Orders on the store page."""


def prepare(app: Flask, settings: Settings) -> None:
    """Give `app` the pages."""
    # With a secret, only whoever has it may say that something is paid.
    app.jinja_env.globals["can_pay_here"] = not settings.webhook_keys
    app.register_blueprint(storefront)


@storefront.get("/")
def store() -> str:
    """Show the product, the shelf, and the newest orders.

    Whoever clicked on an empty shelf comes back here with their key, which buys once it is filled.
    """
    board = queries().board()
    given = request.args.get("key", "")
    key = given if is_key(given) else new_key()
    came_too_late = key == given and not board.product.on_hand
    return render_template(
        "store.html", board=board, recent=board.newest[:_RECENT], key=key, came_too_late=came_too_late
    )


@storefront.get("/shelf")
def shelf() -> Response:
    """The shelf and its Buy Now, which keeps the key that the page has."""
    return fragment("_shelf.html", board=queries().board(), key=_key(request.args))


@storefront.get("/recent")
def recent() -> Response:
    """The newest orders and their bars."""
    return fragment("_recent_orders.html", recent=queries().board().newest[:_RECENT])


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
def pay(payment_id: str) -> str | AnyResponse:
    """Show where the payment stands, or go on to the order once it is settled."""
    view = _known(queries().payment(payment_id), payment_id)
    if _is_settled(view):
        return redirect(url_for(".order", payment_id=payment_id), 303)
    return render_template("pay.html", view=view, payment_id=payment_id, **_way_back_in(view))


@storefront.get("/pay/<key:payment_id>/status")
def payment_status(payment_id: str) -> Response:
    """The payment as it stands now; once settled, it sends the page on to the order."""
    view = _known(queries().watch(payment_id), payment_id)
    if _is_settled(view):
        address = url_for(".order", payment_id=payment_id)
        onward: Response = make_response("", location={"path": address, "target": "body", "replace": "true"})
        return onward
    return fragment("_payment.html", view=view, payment_id=payment_id, **_way_back_in(view))


@storefront.post("/pay/<key:payment_id>")
def settle(payment_id: str) -> AnyResponse:
    """Tell the checkout of its payment, and go to the order."""
    outcome = request.form.get("outcome", "")
    if outcome not in set(Outcome):
        abort(400, "A payment is either paid or failed: go back and choose one of the two.")
    # Anybody may still cancel: money that comes for a cancelled order is given back.
    if outcome == Outcome.PAID and not current_app.jinja_env.globals["can_pay_here"]:
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


@storefront.get("/orders/<key:payment_id>")
def order(payment_id: str) -> str | AnyResponse:
    """Show an order: where it stands, its bar, and what the database remembers of it."""
    found = _known(queries().payment(payment_id), payment_id).order
    if found is None:
        return redirect(url_for(".pay", payment_id=payment_id), 303)
    history = queries().history(payment_id)
    return render_template(
        "order.html", order=found, refund=_refund(found), history=history, payment_id=payment_id
    )


@storefront.get("/orders/<key:payment_id>/progress")
def order_progress(payment_id: str) -> Response:
    """Where the order stands now."""
    found = queries().watch(payment_id).order or _no_such_order()
    return fragment("_order_progress.html", order=found, refund=_refund(found))


@storefront.get("/orders/<key:payment_id>/checkpoints")
def order_checkpoints(payment_id: str) -> Response:
    """What DBOS has recorded of the order so far."""
    _known(queries().payment(payment_id), payment_id)
    return fragment("_checkpoints.html", history=queries().history(payment_id), payment_id=payment_id)


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
    if view.state is PaymentState.RESERVING and not is_known_checkout(payment_id):
        _no_such_order()
    return view


def _refund(order: Order) -> Refund | None:
    """The money that came too late, if any did. Only a cancelled order can have some."""
    return queries().refund(order.payment_id) if order.status is Status.CANCELLED else None


def _is_settled(view: PaymentView) -> bool:
    """Whether the payment page has nothing left to offer. Sold out stays: it is a way back in."""
    order = view.order
    return order is not None and order.status is not Status.PENDING and order.reason is not Reason.SOLD_OUT


def _way_back_in(view: PaymentView) -> dict[str, Any]:
    """What a page needs to sell again, once the shelf is filled or the client has paid for something."""
    is_sold_out = view.order is not None and view.order.reason is Reason.SOLD_OUT
    if is_sold_out or view.state is PaymentState.REFUSED:
        return {"board": queries().board(), "key": new_key()}
    return {}


def _no_such_order() -> NoReturn:
    abort(404, "There is no such order: if you followed a link, check that all of it was copied.")
