"""Free ports of loopback, for programs that listen there later, or again after a crash."""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

_PICKED = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST_PICKED = 32768
"""Of Linux, unless it is told otherwise; of other systems it is higher."""
_LOWEST = 1024
_OF_EACH_WORKER = 500


def free_port() -> int:
    """A port that nobody has, and that nobody is given who asks the kernel for any port.

    A port that the kernel picked may be picked again for somebody else as soon as it is closed. So these are
    below those that it picks, each worker has its own, and none comes twice before all have come.
    """
    for port in itertools.islice(_ports_of_this_worker(), _OF_EACH_WORKER):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as probe:
            return int(probe.getsockname()[1])
    raise AssertionError("no port is free")


@cache
def _ports_of_this_worker() -> Iterator[int]:
    """Its ports, again and again. Two runs of the tests at once begin at different ones."""
    try:
        above = int(_PICKED.read_text(encoding="utf-8").split()[0])
    except FileNotFoundError:
        above = _LOWEST_PICKED
    worker = re.search(r"\d+", os.environ.get("PYTEST_XDIST_WORKER", ""))
    lowest = above - (int(worker[0] if worker else 0) + 1) * _OF_EACH_WORKER
    if lowest < _LOWEST:  # the kernel picks from nearly all of them, so it may as well pick this one
        return itertools.repeat(0)
    first = os.getpid() % _OF_EACH_WORKER
    return (lowest + number % _OF_EACH_WORKER for number in itertools.count(first))
