"""The line between a server and its parent: the end of either is noticed by the other.

It is the standard input of the server. The parent never writes to it, and it ends when the parent does; the
server writes one byte, once it is open.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

_OPEN = b"!"


class ParentsEnd:
    """What the parent has of the line."""

    def __init__(self) -> None:
        self._ours, self.servers_end = socket.socketpair()
        """The second is for the server, and closed here once it has it."""
        self._ours.settimeout(0)
        self._has_opened = False

    @property
    def has_opened(self) -> bool:
        """Whether the server has said that it is open, be it dead by now."""
        if not self._has_opened:
            with contextlib.suppress(OSError):  # nothing was said, or the line is closed
                self._has_opened = self._ours.recv(1) == _OPEN
        return self._has_opened

    def close(self) -> None:
        """Let go of it: a server that has the other end dies."""
        self._ours.close()
        self.servers_end.close()


def die_with_parent() -> None:
    """End this process when its parent is gone, whatever the parent died of: no orphan keeps the port."""

    def wait_for_the_end() -> None:
        # Not sys.stdin, whose lock Python needs to end.
        with contextlib.suppress(OSError):  # that is how a line ends on which something was not read
            while os.read(0, 1):
                pass
        os._exit(1)

    threading.Thread(target=wait_for_the_end, name="die with parent", daemon=True).start()


def say_open() -> None:
    """Tell the parent that this server is open. One that dies after that is not broken: it was killed."""
    with contextlib.suppress(OSError):  # on Windows the line has one direction; or the parent is gone
        os.write(0, _OPEN)
