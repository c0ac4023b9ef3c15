"""A server that its parent starts again, and that can be kept from starting.

To put another database in place, nobody may have it open, and the parent starts the next server at once. So
a shell stands before each server: it says its process id, waits while there is a file named `hold`, and
becomes the server then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from store.serving.supervised_programs import SERVER
from store.serving.supervisor import Supervisor

_SHELL = """
while [ -e "$0/hold" ] && kill -0 $PPID; do : > "$0/waiting"; sleep 0.05; done
echo $$ > "$0/pid.new" && mv "$0/pid.new" "$0/pid"
exec "$@"
"""
_HOLD_SECONDS = 30.0
_KILL_SECONDS = 2.0


class Held:
    """Servers of one parent, with what is known of them in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.program = replace(
            SERVER, command=("/bin/sh", "-c", _SHELL, str(folder), *SERVER.command), can_be_forked=False
        )

    def pid(self) -> int | None:
        """The process id of the server that was started last, if there is one."""
        try:
            pid = int((self._folder / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if pid > 1 else None

    @contextmanager
    def none(self, supervisor: Supervisor) -> Iterator[None]:
        """Have no server meanwhile. The one that there is dies of SIGKILL.

        Raises:
            TimeoutError: it does not.
        """
        waiting, hold = self._folder / "waiting", self._folder / "hold"
        waiting.unlink(missing_ok=True)
        hold.touch()
        try:
            kill_at, deadline = 0.0, time.monotonic() + _HOLD_SECONDS
            # There is one child at a time. One that waits now began to after `hold` was there, so whoever
            # comes after it waits too, and nobody is a server.
            while not waiting.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError("the server could not be held")
                if time.monotonic() > kill_at:
                    supervisor.kill_server()
                    # Once is enough, but for a server that was just about to start: it saw no `hold`.
                    kill_at = time.monotonic() + _KILL_SECONDS
                time.sleep(0.02)  # between two looks
            yield
        finally:
            hold.unlink(missing_ok=True)
