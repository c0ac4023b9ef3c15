"""What a server, or a process that it has started, may ask of the parent: to kill servers or replace them.

It is asked on a socket that all servers of one parent inherit, one line each. The parent never writes to it,
and it ends when the parent does.
"""

from __future__ import annotations

import contextlib
import os

from store.process_wide import ProcessWide

KILL = b"kill "
"""And the token of the server; nothing for any one of them."""
KILL_ALL = b"kill all"
REPLACE = b"replace"

parents_socket: ProcessWide[int] = ProcessWide("the socket for requests to the parent")
"""Its descriptor, in a server whose parent starts the next one."""


def why_not() -> str:
    """Why there is nobody to be asked, one sentence; nothing if there is."""
    if parents_socket.is_set:
        return ""
    return "Nobody starts the next server: open the shop with `python app.py`."


def ask_to_replace() -> None:
    """Have the parent stop its servers in good order, and start the next ones; nothing without a parent."""
    _ask(REPLACE)


def ask_to_kill_server(token: str) -> None:
    """Have the parent kill the server that it calls so, if it has one; nothing where there is no parent."""
    _ask(KILL + token.encode())


def ask_to_kill_all() -> None:
    """Have the parent kill all its servers, this one among them; nothing where there is none."""
    _ask(KILL_ALL)


def _ask(message: bytes) -> None:
    if parents_socket.is_set:
        with contextlib.suppress(OSError):  # the parent is gone, and so is this process in a moment
            os.write(parents_socket(), message + b"\n")


def ask_to_kill(descriptor: int) -> None:
    """Have the parent kill one of its servers with SIGKILL; for a process that was given the socket.

    The parent alone knows that a process id is still that of its server.

    Raises:
        OSError: the parent is gone.
    """
    os.write(descriptor, KILL + b"\n")
