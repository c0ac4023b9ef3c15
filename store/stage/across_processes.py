"""What the presenter tells one server, the others find out: a reset, armed crashes, a held window.

Another server of the same parent, one of another machine, or `app.py reset` and `disarm` may have been told.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout

from store.database import Databases
from store.settings import Settings
from store.stage import crash_points, payment_window_hold
from store.statement_text import text

_LOOK_SECONDS = 0.5
"""`app.py reset` promises the opening state within three."""
ANSWER_SECONDS = 0.3
"""For an answer to leave, before the server ends."""


@dataclass(frozen=True)
class _Told:
    """What stands in the tables."""

    resets_wanted: int
    reset_at_ms: int
    """When the last one was carried out; 0 for never."""
    is_held: bool
    armed: tuple[tuple[str, str], ...]


def begin(settings: Settings, databases: Databases) -> None:
    """Look out from now on, in a thread, where there are tools that somebody may use."""
    if settings.offers_presenter_tools:
        first = _read(databases)
        threading.Thread(target=_watch, args=[settings, databases, first], name="watch", daemon=True).start()


def _watch(settings: Settings, databases: Databases, known: _Told) -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        with suppress(DBAPIError, SQLAlchemyTimeout):  # it is away, and may be back by the next look
            found = _read(databases)
            if (found.resets_wanted, found.reset_at_ms) != (0, known.reset_at_ms):
                time.sleep(ANSWER_SECONDS)
                os._exit(1)
            if found.armed != known.armed:
                crash_points.armed().look_out()
            if found.is_held != known.is_held:
                payment_window_hold.take_up(settings)
            known = found


def _read(databases: Databases) -> _Told:
    once = (
        "SELECT (SELECT count(*) FROM reset_requests) AS wanted,"
        " (SELECT coalesce(max(at_ms), 0) FROM last_reset) AS last_at_ms,"
        " (SELECT count(*) FROM window_holds) AS held"
    )
    with databases.reader.connect() as connection:
        row = connection.execute(text(once)).one()
        armed = connection.execute(text("SELECT point, only_key FROM armed_crashes ORDER BY point"))
        return _Told(
            int(row.wanted),
            int(row.last_at_ms),
            bool(row.held),
            tuple((each.point, each.only_key) for each in armed),
        )
