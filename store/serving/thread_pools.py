"""Thread pools by kind of request: those that may wait keep no thread from those that need not.

Each kind of request has threads of its own, and a queue. Nothing is refused for want of a thread: a request
waits for others of its kind alone.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from waitress.task import ThreadedTaskDispatcher
from werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from flask import Flask

_QUICK_THREADS = 4
"""Enough for what waits for nothing."""
_REMEMBERED = 4096
"""Addresses whose kind is not looked up again: a page asks for the same one each second."""
_NEED_NO_DATABASE = frozenset(
    {"static", "presenter.arrive", "presenter.sign_in", "presenter.crash_application"}
)
"""Endpoints, beside every address at which there is nothing."""
POLLED = frozenset(
    {
        "storefront.shelf",
        "storefront.recent",
        "storefront.payment_status",
        "storefront.order_progress",
        "storefront.order_timeline",
        "guestbook.both",
        "guestbook.progress",
        "ledger.lines",
    }
)
"""What shoppers' pages ask again and again. The presenter's polls are looks: nobody goes before them."""


class Kind(Enum):
    """How long a request may wait, and for what."""

    QUICK = auto()
    """Not at all: files, and whatever needs no database."""
    LOOK = auto()
    """For a read: pages, and JSON that is read."""
    POLL = auto()
    """For a read, and again a second later: what keeps a page up to date that is already there."""
    CLICK = auto()
    """For a workflow, as long as a page may take."""
    CALL = auto()
    """For a workflow, as long as a JSON route may take."""


KindOf = Callable[[str, str], Kind]
"""Of a method and a path."""


def kinds_of(app: Flask) -> KindOf:
    """Tells the kinds of the requests that `app` answers."""
    addresses = app.url_map.bind("")

    @lru_cache(maxsize=_REMEMBERED)
    def kind_of(method: str, path: str) -> Kind:
        try:
            endpoint, _ = addresses.match(path, method.upper())
        except HTTPException:  # there is nothing, or something for another method
            return Kind.QUICK
        if endpoint in _NEED_NO_DATABASE:
            return Kind.QUICK
        if endpoint == "api.greeting":  # the one GET that acts
            return Kind.CALL
        if method.upper() != "POST":
            return Kind.POLL if endpoint in POLLED else Kind.LOOK
        return Kind.CALL if endpoint.startswith("api.") else Kind.CLICK

    return kind_of


class Pools:
    """What waitress takes for its one pool of threads: one for each kind of request.

    Clicks and pages have `threads`. Calls have half as many: they wait longest, and a program asks again by
    itself. Polls have a quarter: most are answered from what was read for all, and with more threads at it
    those who buy would wait for the interpreter.
    """

    def __init__(self, threads: int, kind_of: KindOf) -> None:
        self._kind_of = kind_of
        self._pools = {kind: ThreadedTaskDispatcher() for kind in Kind}
        counts = {
            Kind.QUICK: _QUICK_THREADS,
            Kind.POLL: max(2, threads // 4),
            Kind.CALL: threads // 2,
        }
        for kind, pool in self._pools.items():
            pool.set_thread_count(counts.get(kind, threads))

    def add_task(self, connection: Any) -> None:
        """Have the next request of a connection answered."""
        request = connection.requests[0]
        # One that waitress itself refuses has no path, perhaps.
        kind = Kind.QUICK if request.error else self._kind_of(request.command, request.path)
        self._pools[kind].add_task(connection)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:  # noqa: FBT001, FBT002 - waitress's
        """End the threads once they have answered what they are answering."""
        for pool in self._pools.values():  # all at once, before any is waited for
            pool.set_thread_count(0)
        ended = [pool.shutdown(cancel_pending, timeout) for pool in self._pools.values()]
        return all(ended)
