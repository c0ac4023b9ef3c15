"""What the routes of one application ask: its settings, its reads, its ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from store.ledger.ledger import Books
from store.reads.greetings import Greetings
from store.reads.orders import Queries
from store.settings import Settings
from store.web.health import Health

_NAME = "shop"


@dataclass(frozen=True)
class Shop:
    """One object of `app.extensions`, in place of many."""

    settings: Settings
    queries: Queries
    greetings: Greetings
    books: Books
    health: Health


def install(app: Flask, shop: Shop) -> None:
    """Give `app` the shop that its routes ask."""
    app.extensions[_NAME] = shop


def the_shop() -> Shop:
    """The shop that answers this request."""
    return cast(Shop, current_app.extensions[_NAME])


def queries() -> Queries:
    """Its reads."""
    return the_shop().queries
