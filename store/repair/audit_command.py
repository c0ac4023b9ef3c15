"""`app.py audit`, for operators, beside a server or without one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from store.durable import offline
from store.ledger.audit import Audit, Parting, audit
from store.ledger.ledger import one_moment
from store.settings import Settings

Say = Callable[[str], None]
_MOST_ORDERS = 10
"""Faults that are told of each closing; the JSON has all of them."""


def run(settings: Settings, said: argparse.Namespace, say: Say) -> int:
    """Count everything again, and say where the closings part from their rows; 1 if any does, else 0."""
    with offline.opened(settings) as databases, _bar() as progress, one_moment(databases.store) as store:
        found = audit(store, progress)
    if said.json:
        say(json.dumps(found.as_json(), indent=2))
    else:
        for parting in found.partings:
            for line in _lines(parting):
                say(line)
        say(_in_all(found))
    return 0 if found.agrees else 1


def _lines(parting: Parting) -> Iterator[str]:
    where = f"Closing {parting.closing}" if parting.closing else "The books"
    yield f"{where}: {parting.says}."
    yield from (f"    {order}" for order in parting.orders[:_MOST_ORDERS])
    if len(parting.orders) > _MOST_ORDERS:
        yield f"    … and {len(parting.orders) - _MOST_ORDERS} more: --json lists all"


def _in_all(found: Audit) -> str:
    counted = f"{found.rows:,} rows under {found.closings:,} closings, and {found.open_rows:,} that are open"
    if found.agrees:
        return f"Counted again from the first row, every closing is as it was made: {counted}."
    parted = len(found.partings)
    return f"Counted again, {parted} {'thing is' if parted == 1 else 'things are'} not as closed: {counted}."


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """On standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("closings"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
