"""Lets the requests of a storm in while it is on: each shopper a client of their own, with a naive twin."""

from __future__ import annotations

from flask import Flask, abort, request

from store.durable import runtime
from store.stage import naive
from store.vocabulary import Outcome
from store.web.shop import queries

HEADER = "Store-Storm"
"""`<secret of the storm>/<number of the shopper>`; the secret is known to the storm's process alone."""
PRESENTER, OBSERVER = 200, 201
"""Who is no shopper: one who fills the shelf, and one who looks at every order in the end."""


def prepare(app: Flask) -> None:
    """Have `app` look at requests that say that they are of a storm, and at no others."""
    app.before_request(_admit)


def _admit() -> None:
    said = request.headers.get(HEADER)
    if said is None or request.endpoint in {None, "static", "health"}:
        return
    secret, _, number = said.partition("/")
    on = queries().rows("SELECT 1 FROM storms WHERE secret = :secret AND is_on = 1", secret=secret)
    if not on or number not in _NUMBERS:
        # One that was stopped, or that a reset has forgotten, sells no more.
        abort(409, "The storm that this request is of is over: start another one on the stage.")
    # They share one address. What a shop allows to one client, it allows to each of them.
    request.remote_addr = f"127.66.0.{number}"
    if request.endpoint == "storefront.settle" and request.form.get("outcome") == Outcome.PAID:
        key = (request.view_args or {})["payment_id"]
        naive.sell(key, runtime.executor_number())


_NUMBERS = frozenset(str(number) for number in range(OBSERVER + 1))
