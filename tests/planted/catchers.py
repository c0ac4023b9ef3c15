"""Lets the explorer, a storm and the suite loose on a copy of the shop that has one planted bug."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.proof.record import VOID_EXIT
from store.proof.summary import NOT_TRIED, has_caught
from store.settings import ROOT
from tests.planted.mistakes import Mistake

_LEFT_OUT = shutil.ignore_patterns(".*", "var", "__pycache__", "bench", "browser")
_SECONDS = 600
"""For one check of one bug: a bug that has it wait for ever is caught by nobody."""
_STORM = ("--shoppers", "10", "--kills", "6", "--seed", "1", "--json")


@dataclass(frozen=True)
class Caught:
    """What each check said of one bug: nothing where it did not catch it."""

    explorer: str = NOT_TRIED
    storm: str = NOT_TRIED
    suite: str = NOT_TRIED

    @property
    def by_anybody(self) -> bool:
        """Whether any check has caught it."""
        return any(map(has_caught, (self.explorer, self.storm, self.suite)))


@contextmanager
def a_copy(mistake: Mistake | None = None) -> Iterator[Path]:
    """A copy of the shop with that bug, or with none; thrown away at the end."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        root = Path(folder) / "shop"
        shutil.copytree(ROOT, root, ignore=_LEFT_OUT)
        for change in mistake.changes if mistake is not None else ():
            change.apply(root)
        yield root


def catch(mistake: Mistake, *, storm_seconds: int = 0) -> Caught:
    """Try each check on this bug; a storm where it may last for that long."""
    with a_copy(mistake) as root:
        return Caught(
            explore(root, mistake) if mistake.scenario else NOT_TRIED,
            storm(root, storm_seconds) if storm_seconds else NOT_TRIED,
            test(root, mistake.tests) if mistake.tests else NOT_TRIED,
        )


def catch_all(mistakes: tuple[Mistake, ...], *, storm_seconds: int = 0) -> Iterator[tuple[Mistake, Caught]]:
    """Try all of them, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        tried = pool.map(lambda each: catch(each, storm_seconds=storm_seconds), mistakes)
        yield from zip(mistakes, tried, strict=True)


def explore(root: Path, mistake: Mistake) -> str:
    """What the explorer says of it; it must name it, or has found something else.

    Raises:
        RuntimeError: it has found another mistake than this one.
    """
    told = _run(root, "-m", "tests.planted.look", mistake.scenario)
    if told.returncode:
        raise RuntimeError(f"the explorer could not be run on {mistake.name!r}: {told.stderr[-2000:]}")
    found = json.loads(told.stdout)
    if not found["wrong"]:
        return ""
    if not any(mistake.said in each for each in found["wrong"]):
        raise RuntimeError(f"the explorer says something else of {mistake.name!r}: {found['wrong']}")
    [first, *_] = [each for each in found["wrong"] if mistake.said in each]
    return f"{_short(first)} ({found['steps']} steps)"


def test(root: Path, tests: tuple[str, ...]) -> str:
    """Which of these tests of the suite failed first; nothing if none did.

    Raises:
        RuntimeError: they could not be run.
    """
    told = _run(
        root, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly",
        f"--basetemp={root.parent / 'tests'}", *tests,
    )  # fmt: skip
    if told.returncode == 0:
        return ""
    failed = re.search(r"^FAILED \S+::(\w+)", told.stdout, re.MULTILINE)
    if told.returncode != 1 or failed is None:
        raise RuntimeError(f"the tests could not be run: {told.stdout[-2000:]}{told.stderr[-2000:]}")
    return failed[1]


def storm(root: Path, seconds: int) -> str:
    """What a storm of that length says of it; nothing if it is green.

    Raises:
        RuntimeError: it could not blow, or nobody bought anything in it.
    """
    told = _run(root, "app.py", "storm", "--seconds", str(seconds), *_STORM)
    if told.returncode not in {0, 1, VOID_EXIT} or not told.stdout:
        raise RuntimeError(f"the storm could not blow: {told.stderr[-2000:]}")
    verdict: dict[str, Any] = json.loads(told.stdout)
    if verdict["ok"]:
        if not verdict["endings"]:
            raise RuntimeError(f"the storm put nothing at risk: {verdict['never_landed']}")
        return ""
    broken = [line["name"] for line in verdict["ledger"]["lines"] if not line["ok"]]
    said: list[str] = [*broken, *verdict["complaints"], "connections were refused"]
    return _short(said[0])


def _short(sentence: str) -> str:
    """The first line of it, and not too much of that."""
    line = re.sub(r"\(sqlite3\.\w+\) ", "", sentence.partition("\n")[0])  # said by SQLAlchemy before it
    return line if len(line) <= 120 else f"{line[:119]}…"


def _run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=root, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
