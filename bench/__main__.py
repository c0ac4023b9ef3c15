"""The command line of the benchmark: `make bench`, or `python -m bench`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import crash, orders, pages, polls, processor, rush, table, visits, waiting
from bench.figures import QUICK, SMALLEST, WHOLE, Bench
from bench.servers import place

_GROUPS = {module.GROUP: module for module in (orders, polls, visits, crash, rush, waiting, pages)}
_DATABASES = {"sqlite": ("SQLite",), "postgres": ("Postgres",), "both": ("SQLite", "Postgres")}
_REFUSED = 2


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"bench: {sentence}\n")
    raise SystemExit(_REFUSED)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, without the usage."""
        _refuse(f"{message[:1].upper()}{message[1:]}; --help says what there is.")


def _said(words: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m bench", description="Measure the store, beside a yardstick.")
    parser.add_argument(
        "--only", metavar="GROUPS", default=",".join(_GROUPS), help="some groups, with commas: %(default)s"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", dest="scale", const=QUICK, help="some minutes")
    size.add_argument("--smallest", action="store_const", dest="scale", const=SMALLEST, help="only tries it")
    parser.add_argument("--database", choices=_DATABASES, default="both", help="(%(default)s)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="the figures for programs, too")
    said = parser.parse_args(words)
    said.only = [name.strip() for name in said.only.split(",")]
    for name in said.only:
        if name not in _GROUPS:
            _refuse(f"There is no group {name!r}: there are {', '.join(_GROUPS)}.")
    if said.json is not None:
        try:
            said.json.touch()
        except OSError as error:
            _refuse(f"The figures cannot be written to {said.json} ({error.strerror}): name another file.")
    return said


def main(words: Sequence[str] | None = None) -> None:
    """Measure what the command line says."""
    said = _said(words)
    # What was started is stopped, and what was measured is shown.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        processor.require_proc()
    except processor.NotHere as fault:
        _refuse(str(fault))
    databases = _DATABASES[said.database]
    with place(databases) as here:
        bench = Bench(said.scale or WHOLE, here, databases)
        try:
            _measure(bench, said.only)
        finally:  # what was measured is shown, whatever ends the run
            notes = {name: _GROUPS[name].about() for name in said.only}
            if said.json is not None:
                table.write_json(bench, said.json, notes)
            # In a pipe or a file, lines are as long as they need to be.
            table.show(bench, Console(width=None if sys.stdout.isatty() else 160), notes)


def _measure(bench: Bench, groups: list[str]) -> None:
    """One group after the other, with a bar that says how far it is."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("starting", total=sum(_GROUPS[name].steps(bench) for name in groups))

        def say(what: str) -> None:
            bar.update(task, description=what, advance=1)

        bench.say = say
        for name in groups:
            _GROUPS[name].run(bench)


if __name__ == "__main__":
    main()
