"""The unpaid orders of a browser: those whose payment pages it has shown, in a cookie of its own.

The shop counts what an address holds, and an address may be many people's. A payment id is for its owner
alone, so a client that may hold no more units is shown the way to its own orders by what its browser
remembers.
"""

from __future__ import annotations

from flask import Request, Response

from store.reads.records import Order
from store.vocabulary import Status, is_key
from store.web.shop import queries

COOKIE = "unpaid"
_PATH = "/pay"  # no other request need carry it
_MOST = 20
_DAY_SECONDS = 24 * 3600  # the longest that a payment window may be


def unpaid(request: Request) -> list[Order]:
    """Those of them that can still be paid, the newest first."""
    found = (queries().find(payment_id) for payment_id in _remembered(request))
    return [order for order in found if order and order.status is Status.PENDING and order.ms_to_pay()]


def remember(response: Response, request: Request, payment_id: str) -> None:
    """Have the browser remember this one, too."""
    before = _remembered(request)
    if payment_id not in before:
        newest = ".".join([payment_id, *before][:_MOST])
        response.set_cookie(
            COOKIE, newest, _DAY_SECONDS, path=_PATH, secure=request.is_secure, httponly=True, samesite="Lax"
        )


def _remembered(request: Request) -> list[str]:
    return [key for key in request.cookies.get(COOKIE, "").split(".")[:_MOST] if is_key(key)]
