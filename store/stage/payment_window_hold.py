"""Holding the payment window open while the presenter talks.

Whoever buys meanwhile has an hour to pay, from the first: the deadline stands on the order's row, in what its
workflow remembers, and on its page, as ever. An order that is waiting already is given more time once, by its
own length, as its shopper could ask for. A row says that the window is held, so it is after a crash, too.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from store import workflows
from store.durable.statements import execute
from store.durable.step_decorators import now_ms, plain_transaction
from store.reads.orders import Queries
from store.settings import Settings
from store.statement_text import text
from store.terms_of_sale import Terms, terms

HELD_MINUTES = 60


def take_up(settings: Settings) -> None:
    """Sell on the terms that the row says."""
    if settings.offers_presenter_tools:
        _sell_on(settings, is_held=_is_held())


def is_on(queries: Queries) -> bool:
    """Whether it is held.

    Raises:
        DeadlineExceeded: the database does not answer.
    """
    return bool(queries.rows("SELECT 1 FROM window_holds"))


def begin(settings: Settings) -> None:
    """Hold it, for new orders and, once, for those that wait."""
    _begin()
    _sell_on(settings, is_held=True)
    for payment_id in _waiting():
        workflows.extend_window(payment_id)


def end(settings: Settings) -> None:
    """Hold it no longer: orders that were made meanwhile keep their hour."""
    _end()
    _sell_on(settings, is_held=False)


def _sell_on(settings: Settings, *, is_held: bool) -> None:
    usual = Terms.of(settings)
    held_ms = max(usual.payment_window_ms, HELD_MINUTES * 60_000)
    terms.set(replace(usual, payment_window_ms=held_ms) if is_held else usual)


@plain_transaction
def _is_held(session: Session) -> bool:
    return session.execute(text("SELECT 1 FROM window_holds")).first() is not None


@plain_transaction
def _waiting(session: Session) -> list[str]:
    return list(session.execute(text("SELECT payment_id FROM orders WHERE status = 'pending'")).scalars())


@plain_transaction
def _begin(session: Session) -> None:
    # No row changes where it is held.
    execute(
        session,
        "INSERT INTO window_holds (only_row, began_at_ms) VALUES (1, :at_ms) ON CONFLICT DO NOTHING",
        at_ms=now_ms(),
    )


@plain_transaction
def _end(session: Session) -> None:
    execute(session, "DELETE FROM window_holds WHERE only_row = 1")
