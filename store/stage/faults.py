"""The presenter's faults: what goes wrong at a press, for some seconds, and what ends it.

Which one is on is a row, written before anything is done about it, so the page knows it after a crash, too. A
fault of the server or of its database is made by a process of its own: see `fault_helper`. The guestbook's
troubles it ends itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import make_url
from sqlalchemy.orm import Session

from store.clients import guestbook
from store.durable.statements import execute
from store.durable.step_decorators import now_ms, plain_transaction
from store.reads.orders import Queries
from store.settings import ROOT, Settings, is_sqlite, sqlite_file

_LEAD_SECONDS = 0.5
"""For the answer to the press to leave, and its page to load, before the server stands still."""
_SHORT_SECONDS, _LONG_SECONDS = 5, 20
_MANY = 100_000


@dataclass(frozen=True)
class Fault:
    """One thing that may go wrong."""

    words: str
    """What goes wrong, as an audience is told."""
    expect: str | Callable[[Settings], str]
    """What is done and what is to be seen, for the presenter; where that depends on it, of this shop."""
    seconds: int
    make: Callable[[Settings, int], None]
    """Make it for so many seconds; returns at once.

    Raises:
        guestbook.Unavailable: it does not take it.
    """
    why_not: Callable[[Settings], str]
    """Why it cannot be made here, one sentence; nothing if it can."""

    def says(self, settings: Settings) -> str:
        """What is done in a shop of these settings, and what is to be seen."""
        return self.expect if isinstance(self.expect, str) else self.expect(settings)


@dataclass(frozen=True)
class Latest:
    """The fault that was made last."""

    kind: str
    """By its name in `FAULTS`; nothing before the first."""
    began_at_ms: int
    """0 before the first."""
    left_ms: int
    """Until it is over; 0 if it is."""

    @property
    def seconds_left(self) -> int:
        """The one that has begun included."""
        return -(-self.left_ms // 1000)

    @property
    def says(self) -> str:
        """What is on and for how long; nothing if nothing is."""
        return f"{self.words}: {self.seconds_left} s more" if self.words else ""

    @property
    def words(self) -> str:
        """What is on; nothing if nothing is."""
        return FAULTS[self.kind].words if self.left_ms and self.kind in FAULTS else ""


def latest(queries: Queries) -> Latest:
    """The fault that was made last.

    Raises:
        DeadlineExceeded: the database does not answer.
    """
    rows = queries.rows("SELECT kind, began_at_ms, ends_at_ms FROM stage_faults")
    if not rows:
        return Latest("", 0, 0)
    return Latest(rows[0].kind, rows[0].began_at_ms, max(0, rows[0].ends_at_ms - now_ms()))


@plain_transaction
def begin(session: Session, kind: str, after_ms: int, ends_at_ms: int) -> bool:
    """Write down that a fault begins, after the one that began then; False if another is on or came first."""
    return bool(
        execute(
            session,
            "INSERT INTO stage_faults (only_row, kind, began_at_ms, ends_at_ms)"
            " VALUES (1, :kind, :at_ms, :ends_at_ms) ON CONFLICT (only_row) DO UPDATE"
            " SET kind = excluded.kind, began_at_ms = excluded.began_at_ms, ends_at_ms = excluded.ends_at_ms"
            " WHERE stage_faults.began_at_ms = :after_ms AND stage_faults.ends_at_ms <= excluded.began_at_ms",
            kind=kind,
            at_ms=now_ms(),
            ends_at_ms=ends_at_ms,
            after_ms=after_ms,
        )
    )


@plain_transaction
def end(session: Session) -> None:
    """Write down that the one that is on is over: it could not be made."""
    # No row changes where none has ever begun.
    execute(session, "UPDATE stage_faults SET ends_at_ms = :at_ms WHERE ends_at_ms > :at_ms", at_ms=now_ms())


# --- how each is made ----------------------------------------------------------------------------


def _tell_guestbook(**trouble: Any) -> Callable[[Settings, int], None]:
    return lambda settings, seconds: guestbook.make_trouble(
        settings.guestbook_url, for_seconds=seconds, **trouble
    )


def _freeze(_settings: Settings, seconds: int) -> None:
    _start_helper(kind="freeze", pid=os.getpid(), seconds=seconds, lead_seconds=_LEAD_SECONDS)


def _lock_database(settings: Settings, seconds: int) -> None:
    url = settings.database_url
    if is_sqlite(url):
        _start_helper(kind="lock_sqlite", database=str(sqlite_file(url)), seconds=seconds)
    else:
        address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        _start_helper(kind="lock_postgres", database=address, seconds=seconds)


def _start_helper(**told: Any) -> None:
    helper = subprocess.Popen(
        [sys.executable, "-m", "store.stage.fault_helper"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # neither Ctrl+C nor the end of this server is for it
        text=True,
    )
    # Waited for in a thread, or it would stay a zombie.
    threading.Thread(target=helper.communicate, args=[json.dumps(told)], name="fault", daemon=True).start()


def why_no_guestbook(settings: Settings) -> str:
    """Why the guestbook is none that this shop may meddle with; nothing if it is one."""
    if not settings.guestbook_url:
        return "No guestbook is running."
    host = urlsplit(settings.guestbook_url).hostname or ""
    try:
        is_ours = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_ours = False
    return "" if is_ours else "The guestbook is on another machine, and not ours to change."


def _why_no_freeze(_settings: Settings) -> str:
    return "" if hasattr(signal, "SIGSTOP") else "Windows cannot stop a process and let it go on."


def _what_is_locked(settings: Settings) -> str:
    if is_sqlite(settings.database_url):
        return (
            "Another process holds the write lock of the SQLite file: pages can be read, and nothing can"
            " be written. Orders stand still, and go on."
        )
    return (
        "Another connection locks the table of orders: Postgres is there, and no order can be read or"
        " written. Orders stand still, and go on."
    )


FAULTS: Mapping[str, Fault] = {
    "slow": Fault(
        "The guestbook is slow",
        "Each signature takes four seconds.",
        _LONG_SECONDS,
        _tell_guestbook(kind="slow", seconds=4, times=_MANY),
        why_no_guestbook,
    ),
    "failing": Fault(
        "The guestbook fails",
        "It answers 503. Greetings ask again, later and later, and sign once.",
        _LONG_SECONDS,
        _tell_guestbook(kind="fail", status=503, times=_MANY),
        why_no_guestbook,
    ),
    "dying": Fault(
        "The guestbook dies after recording",
        "Once, before it has answered. Asked again with the same key, it signs nothing twice.",
        _LONG_SECONDS,
        _tell_guestbook(kind="die", times=1),
        why_no_guestbook,
    ),
    "frozen": Fault(
        "The server is frozen",
        "SIGSTOP, then SIGCONT. Nobody answers; what was clicked waits, and goes on.",
        _SHORT_SECONDS,
        _freeze,
        _why_no_freeze,
    ),
    "database": Fault(
        "The database is locked",
        _what_is_locked,
        _SHORT_SECONDS,
        _lock_database,
        lambda _settings: "",
    ),
}
"""By the name that stands in a row and in an address."""
LEAD_MS = round(_LEAD_SECONDS * 1000)
"""Before a fault that stops the server begins."""
