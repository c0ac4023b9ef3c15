"""How a server leaves its connections to the others that share its address, and ends.

It takes no new connection, for the others do. What has been asked is answered, with "Connection: close", so
that its holder asks the next time on another one. A connection that stays silent is closed
after a moment, which is longer than a page waits between two polls. Once all are closed, the server ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

_SILENT_SECONDS = 2.0
"""A connection on which nothing was asked for so long is closed."""
_LONGEST_SECONDS = 8.0
"""After this long, whatever is still being answered is left, and asked again: less than its parent waits."""


class Leaving:
    """Whether this server is leaving; one for all its listeners."""

    def __init__(self) -> None:
        self.is_on = False

    def begin(self, leave: Callable[[], None]) -> None:
        """Leave from now on; `leave` ends the process if that takes too long."""
        if self.is_on:
            return
        self.is_on = True
        deadline = threading.Timer(_LONGEST_SECONDS, leave)
        deadline.daemon = True
        deadline.start()


def close_silent(channels: Iterable[Any]) -> int:
    """Close the connections of waitress on which nobody has asked for anything; how many there are still."""
    found, silent_since = list(channels), time.time() - _SILENT_SECONDS
    for channel in found:
        is_busy = channel.requests or channel.request is not None or channel.total_outbufs_len
        if not is_busy and channel.last_activity < silent_since:
            channel.will_close = True
    return len(found)
