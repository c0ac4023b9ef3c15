"""What a server, or a process that it has started, may ask of the parent: to kill it, or to replace it.

It is asked on a socket that all servers of one parent inherit, one byte each. The parent never writes to it,
and it ends when the parent does.
"""

from __future__ import annotations

import contextlib
import os

from store.process_value import ProcessValue

KILL = b"k"
REPLACE = b"r"

parents_socket: ProcessValue[int] = ProcessValue("the socket for requests to the parent")
"""Its descriptor, in a server whose parent starts the next one."""


def why_not() -> str:
    """Why there is nobody to be asked, one sentence; nothing if there is."""
    if parents_socket.is_set:
        return ""
    return "Nobody starts the next server: open the shop with `python app.py`."


def ask_to_replace() -> None:
    """Have the parent stop this server in good order, and start the next one; nothing where there is none."""
    if parents_socket.is_set:
        with contextlib.suppress(OSError):  # the parent is gone, and so is this process in a moment
            os.write(parents_socket(), REPLACE)


def ask_to_kill(descriptor: int) -> None:
    """Have the parent kill its server with SIGKILL; for a process that was given the socket.

    The parent alone knows that a process id is still that of its server.

    Raises:
        OSError: the parent is gone.
    """
    os.write(descriptor, KILL)
