"""Prints who catches which planted bug: `python -m tests.planted`; with `--record`, for the public record."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from rich.console import Console

from store.proof.recording import begin
from store.proof.summary import CHECKS
from tests.planted.catchers import a_copy, catch_all, storm, test
from tests.planted.mistakes import ALL, Mistake


def main() -> int:
    """Try them all; the exit code is 1 if nobody catches one of them, or the shop as it is fails a check."""
    said = _read()
    console = Console(highlight=False, soft_wrap=True)
    chosen = tuple(each for each in ALL if said.only in each.name)
    recording = begin("planted", _command(said)) if said.record else None
    if trouble := _trouble_without(chosen, said.storm):
        console.print(f"Without any bug: {trouble}", markup=False)
        return 1
    console.print("Without any bug, nobody complains.")
    rows: list[dict[str, str]] = []
    caught = 0
    for mistake, found in catch_all(chosen, storm_seconds=said.storm):
        rows.append({"bug": mistake.name, **asdict(found)})
        caught += found.by_anybody
        console.print(f"\n{mistake.name}" + ("" if found.by_anybody else ": NOBODY"), markup=False)
        for check in CHECKS:
            words = getattr(found, check) or "did not catch it"
            console.print(f"  {check:8}  {words}", markup=False)
    counts = {"bugs": len(rows), "caught": caught}
    console.print(f"\n{counts['caught']} of {counts['bugs']} planted bugs are caught")
    exit_code = 0 if counts["caught"] == counts["bugs"] else 1
    if recording is not None:
        recording.end(exit_code, counts, caught=tuple(rows))
    return exit_code


def _read() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description="Who catches which bug.")
    parser.add_argument("--only", default="", metavar="WORDS", help="those whose name has these words")
    parser.add_argument(
        "--storm", type=int, default=0, metavar="SECONDS", help="try a storm, too (not tried)"
    )
    parser.add_argument("--record", action="store_true", help="add the table to docs/proof.jsonl")
    return parser.parse_args()


def _command(said: argparse.Namespace) -> str:
    only = f" --only {said.only!r}" if said.only else ""
    return f"python -m tests.planted{only}" + (f" --storm {said.storm}" if said.storm else "")


def _trouble_without(chosen: tuple[Mistake, ...], storm_seconds: int) -> str:
    """What the suite or a storm says of the shop as it is; the explorer has its own test for that."""
    tests = tuple(dict.fromkeys(test for each in chosen for test in each.tests))
    with a_copy() as root:
        return (test(root, tests) if tests else "") or (storm(root, storm_seconds) if storm_seconds else "")


if __name__ == "__main__":
    sys.exit(main())
