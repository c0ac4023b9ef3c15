"""The loop of a server's connections: it looks at those that something happened to.

Waitress's own asks every connection, whenever anything happens to one, what it waits for. With a thousand
open pages, that was half of what a server did. What is done with a connection is waitress's, as it was.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from waitress.wasyncore import read, write

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
LOOK_AT_ALL_SECONDS = 1.0
"""How often all are asked, as waitress does when nothing happens."""


class EventLoop:
    """Waits for the connections in `connections`, by file number, and has them read and write.

    They are waitress's: connections of clients, the sockets that listen, and the pipes by which a thread
    wakes the loop. Each says by `readable()` and `writable()` what it waits for. Whatever changes what a
    client's would say has to touch it; in another thread, it has to wake the loop as well.
    """

    def __init__(self, connections: Mapping[int, Any]):
        self._connections = connections
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, tuple[Any, int]] = {}
        """What the selector was told: whose each file is, and what it waits for."""
        self._lock = threading.Lock()
        self._touched: set[int] = set()
        self._is_woken = False

    def touch(self, number: int) -> None:
        """Have the connection of this file asked what it waits for, before the loop waits again."""
        with self._lock:
            self._touched.add(number)

    def must_be_woken(self) -> bool:
        """Whether the caller, who has touched a connection, is the first who has to wake the loop."""
        with self._lock:
            was_woken, self._is_woken = self._is_woken, True
        return not was_woken

    def run(self, listening: Sequence[int]) -> None:
        """Until a connection, or a signal, raises SystemExit or KeyboardInterrupt.

        Those that listen are asked each time: they also close what has been idle for too long.
        """
        all_looked_at = float("-inf")
        while True:
            now = time.monotonic()
            if now - all_looked_at >= LOOK_AT_ALL_SECONDS:
                all_looked_at = now
                self._watch_each({*self._connections, *self._watched})
            self._watch_each(listening)
            self._watch_each(self._take_touched())
            for key, events in self._selector.select(LOOK_AT_ALL_SECONDS):
                # Whoever was handled before may have closed it, and another one may have its number.
                if events & _READ and self._connections.get(key.fd) is key.data:
                    read(key.data)
                if events & _WRITE and self._connections.get(key.fd) is key.data:
                    write(key.data)
                self._watch(key.fd)

    def _take_touched(self) -> set[int]:
        with self._lock:
            touched, self._touched, self._is_woken = self._touched, set(), False
        return touched

    def _watch_each(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._watch(number)

    def _watch(self, number: int) -> None:
        """Wait for what the connection of this file waits for now, if there is one."""
        connection = self._connections.get(number)
        wants = _wanted(connection) if connection is not None else 0
        if self._watched.get(number, (None, 0)) == (connection if wants else None, wants):
            return
        if self._watched.pop(number, None):
            self._selector.unregister(number)  # also where another one has the number of one that was closed
        if wants:
            with suppress(OSError):  # another thread has closed it meanwhile
                self._selector.register(number, wants, connection)
                self._watched[number] = connection, wants


def _wanted(connection: Any) -> int:
    wants = _READ if connection.readable() else 0
    # A socket that listens is never written to.
    return wants | (_WRITE if not connection.accepting and connection.writable() else 0)
