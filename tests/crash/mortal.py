"""The shop, with an appointment: it kills itself with SIGKILL at one named point.

    python -m tests.crash.mortal "after commit of charge"

The points are those of `store/stage/crash_points.py`. Whoever asks for one that is never reached finds the
process alive.
"""

from __future__ import annotations

import os
import signal
import sys

from store.stage.crash_points import Appointment


def _die() -> None:
    os.write(1, f"dying {_POINT}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _POINT = sys.argv.pop(1)
    Appointment(_POINT, _die).begin()

    import app

    sys.argv.append("server")
    app.main()
