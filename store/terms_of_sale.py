"""On what terms the shop sells and greets."""

from __future__ import annotations

from dataclasses import dataclass

from store.process_wide import ProcessWide
from store.settings import Settings


@dataclass(frozen=True)
class Terms:
    """The settings that the workflows need."""

    payment_window_ms: int = 120_000
    tick_ms: int = 1_000
    unpaid_per_client: int = 50
    """Orders that may hold units for one client; 0 for any number."""
    greetings_per_client: int = 20
    """Greetings that one client may have under way; 0 for any number."""
    greeting_window_ms: int = 300_000
    """How long a greeting asks the online guestbook before it gives up."""
    guestbook_url: str = ""
    """Where the online guestbook is; it may be elsewhere after a restart."""

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        """The terms that these settings describe."""
        return cls(
            payment_window_ms=round(settings.payment_window_seconds * 1000),
            tick_ms=round(settings.dispatch_tick_seconds * 1000),
            unpaid_per_client=settings.unpaid_per_client,
            greetings_per_client=settings.greetings_per_client,
            greeting_window_ms=round(settings.greeting_window_seconds * 1000),
            guestbook_url=settings.guestbook_url,
        )


terms: ProcessWide[Terms] = ProcessWide("the terms of the shop")
