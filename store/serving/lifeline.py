"""The line between a server and its parent: the end of either is noticed by the other.

It is the standard input of the server, and ends when the parent does. On it the parent tells of each other
server that it has seen die, one line each; the server writes one byte, once it is open.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

_OPEN = b"!"
_AT_ONCE_BYTES = 4096


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

    def tell(self, line: str) -> None:
        """Tell the server something. One that is frozen may miss it."""
        with contextlib.suppress(OSError):
            self._ours.send(line.encode() + b"\n")

    def close(self) -> None:
        """Let go of it: a server that has the other end dies."""
        self._ours.close()
        self.servers_end.close()


def listen_to_parent(on_line: Callable[[str], None]) -> None:
    """Read what the parent writes, and end this process when the parent is gone, whatever it died of.

    No orphan keeps the port.
    """

    def listen() -> None:
        half_line = b""
        # Not sys.stdin, whose lock Python needs to end.
        with contextlib.suppress(OSError):  # that is how a line ends on which something was not read
            while told := os.read(0, _AT_ONCE_BYTES):
                *lines, half_line = (half_line + told).split(b"\n")
                for line in lines:
                    # A parent of another version may say something else.
                    with contextlib.suppress(ValueError):
                        on_line(line.decode())
        os._exit(1)

    threading.Thread(target=listen, name="parent", daemon=True).start()


def say_open() -> None:
    """Tell the parent that this server is open. One that dies after that is not broken: it was killed."""
    with contextlib.suppress(OSError):  # on Windows the line has one direction; or the parent is gone
        os.write(0, _OPEN)
