"""The page of the public record: what is claimed, how it is checked, what is not claimed, and every run."""

from __future__ import annotations

from flask import Blueprint

from store.web.every_request import page
from store.web.shop import the_shop

proof = Blueprint("proof", __name__)


@proof.get("/proof")
def show() -> str:
    """Show the record as it was when this server started."""
    return page("proof.html", proof=the_shop().proof)
