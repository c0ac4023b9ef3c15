"""The JSON routes.

They are a contract that other front ends already speak: names, types and statuses do not change. Every
route may be repeated safely. An error is `{"error": "<one sentence>"}`.
"""

from __future__ import annotations

import time
from threading import BoundedSemaphore
from typing import NoReturn, TypedDict

from flask import Blueprint, Response, abort, request

from store import commands
from store.durable.deadlines import DeadlineExceeded
from store.reads.orders import LIST_LIMIT
from store.reads.records import Order
from store.vocabulary import (
    KEY_MIN_LENGTH_OVER_JSON,
    WIRE_STATUS,
    Outcome,
    PaymentState,
    Reason,
    Status,
    is_key,
    new_key,
)
from store.web import origin, webhook_signatures
from store.web.origin import client_of
from store.web.shop import queries, the_shop

api = Blueprint("api", __name__)

_greeting_waiters = BoundedSemaphore(4)
"""A greeting takes seconds, on purpose: no more requests than these wait for one, and leave none to shop."""
_MAX_NUMBER = 2**31 - 1
"""The largest order number that the schema holds."""


class ProductJson(TypedDict):
    """The product; `price` is dollars, `inventory` the units on the shelf."""

    product_id: int
    product: str
    description: str
    inventory: int
    price: float


class OrderJson(TypedDict):
    """An order; `order_status` as in `vocabulary.WIRE_STATUS`, `progress_remaining` 10 down to 0."""

    order_id: int
    order_status: int
    last_update_time: str
    product_id: int
    progress_remaining: int


@api.get("/product")
def product() -> ProductJson:
    """Show the product and how many are on the shelf."""
    found = queries().board().product
    return {
        "product_id": found.product_id,
        "product": found.name,
        "description": found.description,
        "inventory": found.on_hand,
        "price": found.price_cents / 100,
    }


@api.get("/orders")
def orders() -> list[OrderJson]:
    """List orders, newest first: `limit` of them at most, numbered below `before`."""
    limit = _number("limit", LIST_LIMIT)
    before = _number("before", _MAX_NUMBER)
    if limit > LIST_LIMIT:
        abort(400, f"limit must be at most {LIST_LIMIT}; use before to see older orders.")
    if before == _MAX_NUMBER:  # what front ends poll: shared among them
        found = queries().board().newest(limit)
    else:
        found = queries().list_orders(before=before, limit=limit)
    return [_order_json(order) for order in found]


@api.get("/order/<int:order_id>")
def order(order_id: int) -> OrderJson:
    """Show one order by its number."""
    found = queries().find_by_number(order_id) if order_id <= _MAX_NUMBER else None
    if found is None:
        abort(404, "There is no order of that number.")
    return _order_json(found)


@api.post("/checkout/", defaults={"key": ""}, strict_slashes=False)
@api.post("/checkout/<path:key>")
def checkout(key: str) -> Response:
    """Buy one; the payment id as plain text once a unit is held."""
    if not is_key(key):
        abort(400, "The key must be 1 to 64 letters, digits, _ or -.")
    if len(key) < KEY_MIN_LENGTH_OVER_JSON:
        abort(400, f"The key is too easy to guess: use at least {KEY_MIN_LENGTH_OVER_JSON} characters.")
    if queries().is_sold_out_for(key):
        abort(409, "Sold out: repeat this request once the shelf is filled.")
    try:
        status = commands.buy(key, client_of(request))
    except commands.KeyTaken:
        abort(409, "That key belongs to something else: use a new one.")
    except commands.TooManyUnpaid:
        abort(429, "You hold too many unpaid units: pay for one or let it expire, and then use a new key.")
    if status is None:
        abort(504, "The shop is still reserving your unit: repeat this request with the same key.")
    order = queries().find(key) if status is Status.CANCELLED else None
    if order is not None and order.reason is Reason.SOLD_OUT:  # or it was there, and has ended since
        abort(409, "Sold out: try again with a new key once the shelf is filled.")
    return _plain_text(key)


@api.post("/payment_webhook/<path:payment_id>/<status>")
def payment_webhook(payment_id: str, status: str) -> Response:
    """Settle a payment; the order number as plain text. The first outcome counts.

    Money that comes too late is given back, exactly once however often it is announced.
    """
    _check_signature()
    if status not in set(Outcome):
        abort(400, "The status must be paid or failed.")
    _check_body(payment_id, Outcome(status))
    order_id = _settle(payment_id, Outcome(status))
    if order_id is None:
        abort(504, "The shop is still settling this payment: repeat this request.")
    return _plain_text(str(order_id))


def _settle(payment_id: str, outcome: Outcome) -> int | None:
    """Settle a payment; its order number, or None if that takes longer."""
    if not is_key(payment_id):
        _no_such_payment()
    view = queries().payment(payment_id)
    if view.state is PaymentState.REFUSED or (
        view.order is None and not queries().checkpoints.is_known_checkout(payment_id)
    ):
        _no_such_payment()
    if view.order is not None and not view.order.can_be_changed_by(outcome):
        return view.order.order_id
    try:
        return commands.settle(payment_id, outcome)
    except commands.UnknownPayment:
        _no_such_payment()
    except DeadlineExceeded:
        return None


@api.get("/greeting/", defaults={"name": ""}, strict_slashes=False)
@api.get("/greeting/<path:name>")
def greeting(name: str) -> Response:
    """Greet, and say so once both books are signed, as tutorials of durable execution do.

    The one GET that acts. With an Idempotency-Key, asking again is the same greeting.
    """
    if request.method == "HEAD":
        abort(405)
    origin.refuse_other_sites()
    key = request.headers.get("Idempotency-Key", new_key())
    if not is_key(key):
        abort(400, "The Idempotency-Key must be 1 to 64 letters, digits, _ or -.")
    end = _greet(key, name)
    if end is None:
        abort(504, f"The greeting is on its way: repeat this request with the Idempotency-Key {key}.")
    if end.trouble:
        abort(502, end.trouble)
    return _plain_text(f"Thank you for being awesome, {name}!")


def _greet(key: str, name: str) -> commands.EndOfGreeting | None:
    """See `commands.greet`; waits for it, unless enough others do."""
    queries().require_database()
    may_wait = _greeting_waiters.acquire(blocking=False)
    try:
        return commands.greet(key, name, client_of(request), wait=may_wait)
    except commands.BadName as fault:
        abort(400, str(fault))
    except commands.TooManyGreetings:
        abort(429, "You have too many greetings under way: repeat this request when one has ended.")
    except commands.KeyTaken:
        abort(409, "That Idempotency-Key has greeted by another name: use a new one.")
    except DeadlineExceeded:
        return None
    finally:
        if may_wait:
            _greeting_waiters.release()


def _webhook_keys() -> tuple[bytes, ...]:
    return the_shop().settings.webhook_keys


def _check_signature() -> None:
    if not _webhook_keys():
        return
    try:
        webhook_signatures.verify(_webhook_keys(), request.headers, request.get_data(), time.time())
    except webhook_signatures.BadSignature as error:
        abort(401, str(error))


def _check_body(payment_id: str, outcome: Outcome) -> None:
    """Hold what was signed against the path, which was not. Without a secret the body says nothing."""
    if not _webhook_keys():
        return
    try:
        said = webhook_signatures.read_body(request.get_data())
    except webhook_signatures.BadBody as fault:
        abort(400, str(fault))
    if said != (payment_id, outcome):
        abort(
            400,
            "The body names another payment or status than the address: "
            "send it to the address of the payment and status that it names.",
        )


def _no_such_payment() -> NoReturn:
    abort(404, "There is no payment of that id.")


def _order_json(order: Order) -> OrderJson:
    return {
        "order_id": order.order_id,
        "order_status": WIRE_STATUS[order.status],
        "last_update_time": order.updated_at.isoformat(timespec="milliseconds"),
        "product_id": order.product_id,
        "progress_remaining": order.progress_remaining,
    }


def _number(name: str, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= _MAX_NUMBER):
        abort(400, f"{name} must be a whole number, 1 or more.")
    return int(text)


def _plain_text(text: str) -> Response:
    return Response(text, mimetype="text/plain")
