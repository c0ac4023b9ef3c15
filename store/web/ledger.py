"""The pages of the ledger, which visitors know as the books."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from store.web.every_request import fragment, page
from store.web.shop import the_shop

ledger = Blueprint("ledger", __name__)


@ledger.get("/ledger")
def show() -> str:
    """Show the ledger, each line green or red."""
    return page("ledger.html", ledger=the_shop().ledger.latest())


@ledger.get("/ledger/lines")
def lines() -> Response:
    """The lines as they stand now."""
    return fragment("_ledger.html", ledger=the_shop().ledger.latest())


@ledger.get("/ledger.json")
def as_json() -> dict[str, Any]:
    """The ledger for a program."""
    found = the_shop().ledger.latest()
    return {
        "balanced": found.balanced,
        "catching_up": found.catching_up,
        "lines": [{"name": line.name, "figures": line.figures, "ok": line.ok} for line in found.lines],
        "faults": [
            {"line": line.name, "order_id": fault.order_id, "subject": fault.subject, "says": fault.says}
            for line in found.lines
            for fault in line.faults
        ],
        **({"naive_lane": found.damage} if found.damage else {}),
    }
