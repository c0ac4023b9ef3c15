"""Owns the presenter's tools: today, restock. Imports `workflows` and `web`.

The blueprint is registered only where the shop listens on loopback, so that elsewhere its
routes are not found and no page mentions them.
"""

from __future__ import annotations

from flask import Blueprint, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response

from store import workflows

presenter = Blueprint("presenter", __name__)


@presenter.post("/restock")
def restock() -> Response:
    """Fill the shelf; back to the store for a browser, the units added for a program."""
    units = workflows.restock()
    if "text/html" in request.headers.get("Accept", ""):
        return redirect(url_for("storefront.store"), 303)
    return jsonify(units_added=units)
