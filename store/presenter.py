"""Owns the presenter's tools: today, restock. Imports `workflows`.

The blueprint is registered only where the shop listens on loopback, so that elsewhere its
routes are not found and no page mentions them.
"""

from __future__ import annotations

from ipaddress import ip_address

from flask import Blueprint, abort, current_app, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response

from store import workflows

presenter = Blueprint("presenter", __name__)


def is_offered() -> bool:
    """Whether whoever makes this request may use the tools: nobody but this machine.

    The blueprint is there only if `STORE_HOST` is loopback. Other servers than `python app.py`
    listen where they are told, so where the request comes from is looked at too.
    """
    return presenter.name in current_app.blueprints and ip_address(request.remote_addr or "::").is_loopback


@presenter.before_request
def refuse_others() -> None:
    """Elsewhere there are no tools."""
    if not is_offered():
        abort(404)


@presenter.post("/restock")
def restock() -> Response:
    """Fill the shelf; back to the store for a browser, the units added for a program."""
    units = workflows.restock()
    if "text/html" in request.headers.get("Accept", ""):
        return redirect(url_for("storefront.store"), 303)
    return jsonify(units_added=units)
