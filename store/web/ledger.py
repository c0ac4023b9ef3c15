"""The pages of the ledger, which visitors know as the books."""

from __future__ import annotations

from typing import Any, cast

from flask import Blueprint, Flask, Response, current_app, render_template

from store.ledger.balance import Books
from store.web.every_request import fragment

ledger = Blueprint("ledger", __name__)


def prepare(app: Flask, books: Books) -> None:
    """Give `app` the pages of these books."""
    app.extensions["books"] = books
    app.register_blueprint(ledger)


@ledger.get("/ledger")
def show() -> str:
    """Show the books, each line green or red."""
    return render_template("ledger.html", ledger=_books().ledger())


@ledger.get("/ledger/lines")
def lines() -> Response:
    """The lines as they stand now."""
    return fragment("_ledger.html", ledger=_books().ledger())


@ledger.get("/ledger.json")
def as_json() -> dict[str, Any]:
    """The books for a program."""
    found = _books().ledger()
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


def _books() -> Books:
    return cast(Books, current_app.extensions["books"])
