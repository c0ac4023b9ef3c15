"""Owns how the storm looks in a terminal: its progress, its verdict.

Imports `config`, `storm` and `vocabulary`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from store import storm
from store.config import Settings
from store.storm import Plan, Progress, Verdict
from store.vocabulary import price


def run_storm(plan: Plan, settings: Settings | None, *, as_json: bool) -> int:
    """Run the storm, on a SQLite file that is thrown away unless `settings` name a database.

    The verdict goes to standard output, the progress to standard error. The exit code is 1 if
    anything is wrong.

    Raises:
        DatabaseRefused: the database cannot be used, or has orders in it.
    """
    if settings is None:
        with tempfile.TemporaryDirectory(prefix="widget-storm-") as folder:
            url = f"sqlite:///{Path(folder) / 'store.sqlite3'}"
            return run_storm(
                plan, replace(Settings(), database_url=url, system_database_url=""), as_json=as_json
            )
    storm.refuse_the_database_of_others(settings)
    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("opening", total=plan.seconds, figures="")
        verdict = storm.run(plan, settings, lambda progress: _draw(bar, task, plan, progress))
    if as_json:
        json.dump(verdict.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _print(verdict)
    return 0 if verdict.ok else 1


def _draw(bar: Bar, task: TaskID, plan: Plan, progress: Progress) -> None:
    bar.update(
        task,
        description=progress.phase,
        completed=min(progress.seconds, plan.seconds),
        figures=(
            f"{progress.seconds:.0f} s, {progress.kills} of {plan.kills} kills, {progress.orders} orders, "
            f"longest pause {progress.longest_pause_seconds:.1f} s"
        ),
    )


def _print(verdict: Verdict) -> None:
    """The verdict for people: good news is green and says so, bad news is red and says so."""
    console = Console(highlight=False)
    plan = verdict.plan
    console.print(
        f"\n[bold]A storm of {plan.seconds:g} s on {verdict.database}[/]: {plan.shoppers} shoppers, "
        f"{verdict.kills} kills, seed {plan.seed}\n"
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_row("Orders", str(sum(verdict.endings.values())), _listed(verdict.endings))
    facts.add_row("Requests", str(verdict.requests), f"{verdict.sent_again} of them sent again")
    facts.add_row("Connections refused", str(verdict.refused), _word(ok=not verdict.refused))
    facts.add_row("Usual pause", f"{verdict.usual_pause_seconds:.2f} s", "for whoever met a dying server")
    facts.add_row("Longest pause", f"{verdict.longest_pause_seconds:.2f} s", "that anybody saw")
    console.print(facts)
    console.print()
    books = Table.grid(padding=(0, 2))
    for line in verdict.ledger["lines"]:
        figures = ", ".join(_figure(name, number) for name, number in line["figures"].items())
        books.add_row(_word(ok=line["ok"]), line["name"], f"[dim]{figures}[/]")
    console.print(books)
    for complaint in verdict.complaints:
        console.print(f"[red]wrong[/]  {complaint}")
    console.print(
        "\n[bold green]The books balance, and every shopper has the order that they were shown.[/]"
        if verdict.ok
        else "\n[bold red]Something is wrong: see the lines marked wrong.[/]"
    )


def _figure(name: str, number: int) -> str:
    words = name.replace("_", " ")
    return (
        f"{words.removesuffix(' cents')} {price(number)}" if name.endswith("_cents") else f"{words} {number}"
    )


def _word(*, ok: bool) -> str:
    return "[green]holds[/]" if ok else "[red]wrong[/]"


def _listed(endings: dict[str, int]) -> str:
    return ", ".join(f"{count} {ending.replace('_', ' ')}" for ending, count in endings.items())
