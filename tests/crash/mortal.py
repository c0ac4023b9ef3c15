"""The shop, with an appointment: it kills itself with SIGKILL at one named point.

    python -m tests.crash.mortal "after commit of charge"

The points are those of `store/stage/commit_points.py`. Whoever asks for one that is never reached finds the
process alive.
"""

from __future__ import annotations

import os
import signal
import sys

from store.stage.commit_points import Lookout


def _die(point: str) -> None:
    os.write(1, f"dying {point}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    lookout = Lookout(_die)
    lookout.install()
    lookout.want({sys.argv.pop(1): ""})

    import app

    sys.argv.insert(1, "server")
    app.main()
