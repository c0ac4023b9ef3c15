"""What the routes of one application ask: its settings, its reads, its ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from flask import Flask, current_app

from store.ledger.ledger import LedgerReader
from store.proof.summary import Summary
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
    ledger: LedgerReader
    health: Health
    proof: Summary
    """The public record, as it was when this server started."""
    presenter_tools: Callable[[], Any] = lambda: None
    """What the presenter's tools show to this client; None where they are not for it."""


def install(app: Flask, shop: Shop) -> None:
    """Give `app` the shop that its routes ask."""
    app.extensions[_NAME] = shop


def offer_presenter_tools(app: Flask, tools: Callable[[], Any]) -> None:
    """Have the pages of `app` end with the presenter's tools, for clients that may use them."""
    install(app, replace(cast(Shop, app.extensions[_NAME]), presenter_tools=tools))


def the_shop() -> Shop:
    """The shop that answers this request."""
    return cast(Shop, current_app.extensions[_NAME])


def queries() -> Queries:
    """Its reads."""
    return the_shop().queries
