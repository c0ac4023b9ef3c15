"""What a process and all its children use: processor time and memory, from /proc."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_IS_THERE = _PROC.joinpath("self", "stat").is_file()


class NotHere(RuntimeError):
    """This machine cannot be measured; the message is one sentence."""


def require_proc() -> None:
    """Refuse a machine without /proc.

    Raises:
        NotHere: there is none.
    """
    if not _IS_THERE:
        raise NotHere("The benchmark reads processor time from /proc, which only Linux has.")


def family_of(pid: int) -> list[int]:
    """A process, and all that it and those have started."""
    parents = {}
    for folder in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(folder.name)] = int(_fields(int(folder.name))[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def processor_seconds(pid: int) -> float:
    """Processor time of a family so far, with that of its members that have ended."""
    ticks = 0
    for each in family_of(pid):
        with suppress(OSError):  # it has ended meanwhile, and its parent has its time
            ticks += sum(map(int, _fields(each)[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Memory of a family, what is shared counted once."""
    kilobytes = 0
    for each in family_of(pid):
        with suppress(OSError):
            rollup = _PROC.joinpath(str(each), "smaps_rollup").read_text(encoding="utf-8")
            found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
            kilobytes += int(found[1]) if found else 0
    return kilobytes / 1024


def threads_of(pid: int) -> int:
    """Threads of a family."""
    count = 0
    for each in family_of(pid):
        with suppress(OSError):
            count += int(_fields(each)[17])
    return count


def _fields(pid: int) -> list[str]:
    """The fields of its stat that follow the name: state, parent, ..."""
    stat = _PROC.joinpath(str(pid), "stat").read_text(encoding="utf-8")
    return stat.rpartition(")")[2].split()


@dataclass(frozen=True)
class Used:
    """Seconds of processor, and of the clock."""

    server: float
    postgres: float
    wall: float

    def beyond(self, idle: Used) -> Used:
        """The same without what it would have used had nobody asked for anything."""
        share = self.wall / idle.wall
        return Used(self.server - idle.server * share, self.postgres - idle.postgres * share, self.wall)


class Meter:
    """Processor time of one server, and of Postgres."""

    def __init__(self, server_pid: int, postgres_pid: int | None) -> None:
        self._server, self._postgres = server_pid, postgres_pid

    def over(self, work: Callable[[], object]) -> Used:
        """What is used while `work` is done."""
        before, began_at = self._read(), time.monotonic()
        work()
        wall, after = time.monotonic() - began_at, self._read()
        return Used(after[0] - before[0], after[1] - before[1], wall)

    def idle(self, seconds: float) -> Used:
        """What is used while nobody asks for anything."""
        return self.over(lambda: time.sleep(seconds))

    def _read(self) -> tuple[float, float]:
        postgres = 0.0 if self._postgres is None else processor_seconds(self._postgres)
        return processor_seconds(self._server), postgres


def model() -> str:
    """What the machine calls its processor."""
    with suppress(OSError):
        text = _PROC.joinpath("cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return found[1].strip()
    return "unknown"
