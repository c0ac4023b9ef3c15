"""How a server asks its parent for a successor: an orderly end, and a start of the program anew."""

from __future__ import annotations

import os
import signal

from store.process_value import ProcessValue

parent: ProcessValue[int] = ProcessValue("the parent of this server")
"""Its process id, in a server that was started by a parent which starts the next one."""


def why_not() -> str:
    """Why nobody starts a successor, one sentence; nothing if the parent does."""
    if not hasattr(signal, "SIGUSR2"):
        return "On Windows a parent cannot be told to replace its server."
    if not parent.is_set or os.getppid() != parent():
        return "Nobody starts the next server: open the shop with `python app.py`."
    return ""


def ask() -> None:
    """Have the parent stop this server in good order, and start the next one; nothing where there is none."""
    if not why_not():
        os.kill(parent(), signal.SIGUSR2)
