"""Process trees: a parent with all that it has started, stopped or killed as one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterable


def children_of(parent: int) -> list[int]:
    """The processes that a process has started, and that have not ended."""
    return _all_children()[parent]


def grandchildren_of(parent: int) -> list[int]:
    """Those that these have started."""
    children = _all_children()
    return [each for child in children[parent] for each in children[child]]


def tree_of(parent: int) -> list[int]:
    """A process, then all that it and those have started."""
    children, found = _all_children(), [parent]
    for each in found:
        found += children[each]
    return found


def all_processes() -> set[int]:
    """All that have not ended."""
    return {pid for children in _all_children().values() for pid in children}


def stop_tree(parent: int) -> list[int]:
    """Have a process and all below it stand still, also what one starts meanwhile; these, in that order."""
    stopped: list[int] = []
    while new := [pid for pid in tree_of(parent) if pid not in stopped]:
        send_signal(new, signal.SIGSTOP)
        stopped += new
    return stopped


def send_signal(pids: Iterable[int], number: signal.Signals) -> None:
    """Send it to each that has not ended."""
    for pid in pids:
        if pid > 1:  # 0 and -1 are groups of processes, and 1 is everybody's parent
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # it has ended meanwhile


def _all_children() -> defaultdict[int, list[int]]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="],  # noqa: S607 - where it is differs
        capture_output=True,
        text=True,
        check=True,
    )
    children: defaultdict[int, list[int]] = defaultdict(list)
    for line in listed.stdout.splitlines():
        pid, parent, state = line.split(maxsplit=2)
        if not state.startswith("Z"):
            children[int(parent)].append(int(pid))
    return children
