"""How a storm looks in a terminal: its progress, its verdict."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from store.database import make_engines
from store.money import price
from store.proof.record import VOID_EXIT
from store.proof.recording import SQLITE, Recording
from store.settings import ROOT, Settings, is_sqlite
from store.stage.crash_points import CRASH_POINTS
from store.stage.storm_picture import LIGHT, Picture
from store.storm import fault_storm, storm
from store.storm.own_postgres import Cluster
from store.storm.verdict import Plan, Progress, Verdict

_ENDED = {"died": "died", "lost": "were lost"}
_CONNECTIONS = 50
"""Of a Postgres of its own, for each server of several."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a verdict, beside that it is told."""

    picture: Path | None
    """The file that its picture goes to, as SVG."""
    as_json: bool
    recording: Recording | None


def run_storm(plan: Plan, settings: Settings | None, wanted: Wanted, *, on_postgres: bool) -> int:
    """Run the storm, on the database that `settings` name, or on one that is thrown away.

    The verdict goes to standard output, the progress to standard error. The exit code is 1 if anything is
    wrong, and `VOID_EXIT` if nothing is, but something that was to happen never did.

    Raises:
        DatabaseRefused: the database cannot be used, or has orders in it.
    """
    with ExitStack() as thrown_away:
        cluster = None
        if settings is None:
            folder = Path(thrown_away.enter_context(tempfile.TemporaryDirectory(prefix="widget-storm-")))
            store, checkpoints = f"sqlite:///{folder / 'store.sqlite3'}", ""
            if on_postgres:
                servers = plan.processes * plan.machines
                cluster = thrown_away.enter_context(Cluster(folder, max(100, _CONNECTIONS * servers)))
                store, checkpoints = cluster.urls()
            settings = replace(Settings(), database_url=store, system_database_url=checkpoints)
        verdict = _run(plan, settings, cluster)
        database = _version(settings) if wanted.recording else ""
    if wanted.picture is not None:
        wanted.picture.write_text(_drawn(verdict), encoding="utf-8")
    if wanted.as_json:
        json.dump(verdict.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _print(verdict)
        sys.stderr.writelines(f"{line}\n" for line in verdict.server_log)
    exit_code = VOID_EXIT if verdict.ok and verdict.never_landed else 0 if verdict.ok else 1
    if wanted.recording is not None:
        wanted.recording.end(exit_code, verdict.counts, database=database, wrong=verdict.wrong)
    return exit_code


def _version(settings: Settings) -> str:
    """The database, with its version."""
    if is_sqlite(settings.database_url):
        return SQLITE
    databases = make_engines(settings)
    try:
        with databases.reader.connect() as connection:
            version = connection.exec_driver_sql("SHOW server_version").scalar_one()
    finally:
        databases.close()
    return f"Postgres {version}"


def _run(plan: Plan, settings: Settings, cluster: Cluster | None) -> Verdict:
    """Run it, and show how far it is."""
    if plan.faults:
        fault_storm.refuse_what_cannot_be_broken(settings, cluster)
    storm.refuse_the_database_of_others(settings)
    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("opening", total=plan.seconds, figures="")

        def tell(progress: Progress) -> None:
            _draw(bar, task, plan, progress)

        if plan.faults:
            return fault_storm.run(plan, settings, cluster, tell)
        return storm.run(plan, settings, tell, postgres=cluster if plan.kills_postmaster else None)


def _drawn(verdict: Verdict) -> str:
    templates = Environment(
        loader=FileSystemLoader(ROOT / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    picture = Picture.of(verdict.as_result(), LIGHT)
    return templates.get_template("storm.svg").render(picture=picture, is_chart=False)


def _draw(bar: Bar, task: TaskID, plan: Plan, progress: Progress) -> None:
    bar.update(
        task,
        description=f"{progress.phase}: {progress.fault}" if progress.fault else progress.phase,
        completed=min(progress.seconds, plan.seconds),
        figures=(
            f"{progress.seconds:.0f} s, {progress.kills} of {plan.kills} kills, {progress.orders} orders, "
            f"longest pause {progress.longest_pause_seconds:.1f} s"
        ),
    )


def _whom(plan: Plan) -> str:
    """Whom the kills are of, where that is not one server."""
    if plan.machines > 1:
        return f" of {plan.machines} machines and their servers, {plan.processes} on each"
    return f" of {plan.processes} servers" if plan.processes > 1 else ""


def _print(verdict: Verdict) -> None:
    """The verdict for people: green or red, and it says so in words."""
    console = Console(highlight=False)
    plan = verdict.plan
    console.print(
        f"\n[bold]A storm of {plan.seconds:g} s on {verdict.database}[/]: {plan.shoppers} shoppers, "
        f"{verdict.kills} kills{_whom(plan)}, seed {plan.seed}\n"
    )
    facts = Table.grid(padding=(0, 2))
    for row in _deaths(verdict):
        facts.add_row(*row)
    facts.add_row("Orders", str(sum(verdict.endings.values())), _listed(verdict.endings))
    facts.add_row("Requests", str(verdict.requests), f"{verdict.sent_again} of them sent again")
    facts.add_row("Connections refused", str(verdict.refused), _word(ok=not verdict.refused))
    if verdict.usual_pause_seconds is None:
        facts.add_row("Usual pause", "-", "nobody met a dying server")
    else:
        facts.add_row(
            "Usual pause", f"{verdict.usual_pause_seconds:.2f} s", "for those who met a dying server"
        )
    facts.add_row("Longest pause", f"{verdict.longest_pause_seconds:.2f} s", "that anybody saw")
    facts.add_row("Longest dark", f"{verdict.longest_dark_seconds:.2f} s", "in which nobody was answered")
    facts.add_row("To rest", f"{verdict.seconds_to_rest:.1f} s", "until nothing moved any more")
    if verdict.faults:
        facts.add_row(
            "Greetings", str(sum(verdict.faults["greetings"].values())), _listed(verdict.faults["greetings"])
        )
    console.print(facts)
    if verdict.faults:
        _print_faults(console, verdict.faults)
    console.print()
    ledger = Table.grid(padding=(0, 2))
    for line in verdict.ledger["lines"]:
        figures = ", ".join(_figure(name, number) for name, number in line["figures"].items())
        ledger.add_row(_word(ok=line["ok"]), line["name"], f"[dim]{figures}[/]")
    console.print(ledger)
    for complaint in verdict.complaints:
        console.print(f"[red]wrong[/]  {complaint}")
    for sentence in verdict.never_landed:
        console.print(f"[yellow]VOID[/]   {sentence}")
    console.print(f"\n{_last_words(verdict)}")


def _deaths(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    """What was killed and frozen, where, and how long the work of the dead waited."""
    for kind, times in verdict.landed.items():
        yield kind.capitalize(), _times(times)
    for point, times in verdict.points.items():
        yield f"… aimed at “{point}”", _times(times), f"[dim]{CRASH_POINTS[point].words.lower()}[/]"
    for ending, adopted in verdict.adoptions.items():
        since = "the last sign of life" if ending == "lost" else "the death"
        yield (
            f"Taken up of {adopted.count} that {_ENDED[ending]}",
            f"{adopted.usual_seconds:.2f} s",
            f"{adopted.longest_seconds:.2f} s at the longest, from {since}",
        )


def _last_words(verdict: Verdict) -> str:
    if not verdict.ok:
        return "[bold red]Something is wrong: see the lines marked wrong.[/]"
    if verdict.never_landed:
        return "[bold yellow]Nothing is wrong, but not all came that was meant to: this proves little.[/]"
    return "[bold green]The books balance, and every shopper has the order that they were shown.[/]"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _print_faults(console: Console, faults: dict[str, Any]) -> None:
    """What happened beside the kills, what did not, and what that makes of the check of every order."""
    console.print()
    happened = Table.grid(padding=(0, 2))
    for kind, times in faults["tried"].items():
        happened.add_row(f"{times} times", kind)
    for kind, times in faults["given_up_before_they_began"].items():
        happened.add_row(f"[yellow]{times} times[/]", kind, "[dim]given up before it began[/]")
    for kind, why in faults["not_tried"].items():
        happened.add_row("[yellow]not tried[/]", kind, f"[dim]{why}[/]")
    console.print(happened)
    console.print(
        f"\n{faults['orders_younger_than_a_restored_copy']} orders were made after a copy of the store was "
        "taken that was then restored. They may have another number than before; what was shown since a copy "
        "was taken is not held against the shop; all else must be as it was shown."
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
