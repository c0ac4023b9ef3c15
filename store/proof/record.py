"""The public record: `docs/proof.jsonl`, one line of JSON for each run, and no line is ever changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from store.settings import ROOT

RECORD = ROOT / "docs" / "proof.jsonl"
GREEN, RED, VOID = "green", "red", "void"
VOID_EXIT = 3
"""The exit code of a check where nothing is wrong, and not all came that was to go wrong."""
_VERDICTS = {0: GREEN, VOID_EXIT: VOID}
"""By exit code; every other one is red."""


class BadRecord(ValueError):
    """The record cannot be read; the message is one sentence."""


@dataclass(frozen=True)
class Machine:
    """On what something ran. Its name is nobody's business."""

    cores: int
    processor: str
    system: str
    python: str


@dataclass(frozen=True)
class Run:
    """One run that was recorded."""

    kind: str
    """`explore`, `storm` or `planted`."""
    date: str
    """When it ended: ISO 8601, in UTC."""
    commit: str
    has_changes: bool
    """Whether files differed from that commit."""
    command: str
    """What repeats it, with its seed."""
    machine: Machine
    database: str
    """With its version."""
    counts: Mapping[str, int]
    seconds: float
    verdict: str
    """`green`; `red`; or `void`, where something that was to be tried was not."""
    load: float | None = None
    """How many processes wanted to run as it began, over a minute; None where nobody counts them."""
    wrong: tuple[str, ...] = ()
    """The first things that were wrong, each a sentence."""
    caught: tuple[Mapping[str, str], ...] = ()
    """Of planted bugs: each one's name, and what each check said of it; nothing where it did not catch it."""


def verdict_of(exit_code: int) -> str:
    """What the exit code of a check says."""
    return _VERDICTS.get(exit_code, RED)


def read(path: Path = RECORD) -> tuple[Run, ...]:
    """Every run on record, the oldest first; none where there is no record.

    Raises:
        BadRecord: a line is not one that `append` writes.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ()
    return tuple(_read_line(number, line) for number, line in enumerate(lines, 1))


def _read_line(number: int, line: str) -> Run:
    try:
        found: dict[str, Any] = json.loads(line)
        machine = Machine(**found.pop("machine"))
        wrong, caught = tuple(found.pop("wrong", ())), tuple(found.pop("caught", ()))
        return Run(machine=machine, wrong=wrong, caught=caught, **found)
    except (ValueError, TypeError, KeyError, AttributeError) as trouble:
        raise BadRecord(f"Line {number} of the record is not a run.") from trouble


def append(run: Run, path: Path = RECORD) -> None:
    """Add a run to the end of the record."""
    found = asdict(run)
    for name in ("wrong", "caught"):
        if not found[name]:
            del found[name]
    with path.open("a", encoding="utf-8") as record:
        record.write(json.dumps(found, ensure_ascii=False) + "\n")
