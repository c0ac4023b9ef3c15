"""Records a run: from which commit is looked up before it begins, and the rest is written at its end."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from store.proof import document, record
from store.proof.record import Machine, Run
from store.settings import ROOT, refuse

SQLITE = f"SQLite {sqlite3.sqlite_version}"
_MOST_WRONG = 5
_NO_GIT = "A run is recorded with its commit, and this is no checkout of git: leave out --record."
_PROCESSORS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Recording:
    """One run that is to be recorded."""

    kind: str
    command: str
    commit: str
    has_changes: bool
    load: float | None
    began_at: float = field(default_factory=time.monotonic)

    def end(
        self,
        exit_code: int,
        counts: Mapping[str, int],
        *,
        database: str = SQLITE,
        wrong: Sequence[str] = (),
        caught: tuple[Mapping[str, str], ...] = (),
    ) -> None:
        """Append it to the record, and write its page anew."""
        run = Run(
            kind=self.kind,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=self.commit,
            has_changes=self.has_changes,
            command=self.command,
            machine=this_machine(),
            database=database,
            counts=counts,
            seconds=round(time.monotonic() - self.began_at, 1),
            verdict=record.verdict_of(exit_code),
            load=self.load,
            wrong=tuple(wrong[:_MOST_WRONG]),
            caught=caught,
        )
        record.append(run)
        document.write()


def begin(kind: str, command: str) -> Recording:
    """Note from which commit this runs; ends the process with one sentence where that cannot be known."""
    try:
        top = Path(_git("rev-parse", "--show-toplevel"))
        commit = _git("rev-parse", "HEAD")
        # What a run before this one has recorded is not a change of what is tried.
        changes = _git("status", "--porcelain", "--", ".", ":!docs/proof.jsonl", ":!docs/proof.md")
    except (OSError, subprocess.CalledProcessError):
        refuse(_NO_GIT)
    if top.resolve() != ROOT:  # a copy that lies in a checkout of something else
        refuse(_NO_GIT)
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return Recording(kind, command, commit, bool(changes), load)


def _git(*words: str) -> str:
    asked = ["git", *words]
    found = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 - ours
    return found.stdout.strip()


def this_machine() -> Machine:
    """On what this process runs."""
    return Machine(
        cores=os.cpu_count() or 1,
        processor=_processor(),
        system=_system(),
        python=platform.python_version(),
    )


def _processor() -> str:
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:  # it is no Linux
        return f"{platform.system()} {platform.release()}"
