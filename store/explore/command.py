"""`python app.py explore`: looks at every schedule, or walks one of them again."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from store.explore import naive_search
from store.explore.scenarios import BY_NAME, QUICK, WHOLE, Scenario
from store.explore.search import Found, search
from store.explore.story import replay, walk
from store.proof.recording import Recording, begin
from store.settings import refuse
from store.stage import shortest_losses

_PROCESSES = 2
_BETWEEN_LOOKS_SECONDS = 0.2


def run(said: argparse.Namespace) -> int:
    """Do what the command line says; 1 if something is wrong, else 0."""
    console = Console(highlight=False, soft_wrap=True)
    if said.replay:
        return _replay(console, said.replay)
    if said.naive:
        return _tell_losses(console, is_recorded=said.record)
    recording = _recording(said)
    began = time.monotonic()
    found = explore(QUICK if said.quick else WHOLE, console)
    violations = [violation for each in found for violation in each.violations]
    for violation in violations:
        console.print(f"\nA violation, in “{violation.scenario}”:", markup=False)
        for line in walk(BY_NAME[violation.scenario], violation.path).lines:
            console.print(line, markup=False)
    schedules, states = sum(each.schedules for each in found), sum(each.states for each in found)
    console.print(
        f"{schedules:,} schedules, {states:,} states, {len(violations)} violations"
        f" in {time.monotonic() - began:.0f} s"
    )
    exit_code = 1 if violations else 0
    if recording is not None:
        counts = {
            "scenarios": len(found),
            "schedules": schedules,
            "states": states,
            "violations": len(violations),
        }
        recording.end(exit_code, counts, wrong=[says for each in violations for says in each.wrong])
    return exit_code


def _recording(said: argparse.Namespace) -> Recording | None:
    if not said.record:
        return None
    return begin("explore", "python app.py explore" + (" --quick" if said.quick else ""))


def explore(scenarios: Sequence[Scenario], console: Console) -> list[Found]:
    """Search them all, in two processes, with a bar that shows how far they are."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    spawn = multiprocessing.get_context("spawn")
    with (
        spawn.Manager() as manager,
        ProcessPoolExecutor(_PROCESSES, mp_context=spawn) as pool,
        Progress(*columns, console=console) as progress,
    ):
        looked_at = manager.dict()
        bar = progress.add_task("scenarios", total=len(scenarios))
        waiting: set[Future[Found]] = {pool.submit(_search, each.name, looked_at) for each in scenarios}
        found: list[Found] = []
        while waiting:
            done, waiting = wait_for(waiting, timeout=_BETWEEN_LOOKS_SECONDS)
            found += [each.result() for each in done]
            states = sum(looked_at.values())
            progress.update(bar, completed=len(found), description=f"scenarios ({states:,} states)")
    return found


def _search(name: str, looked_at: Any) -> Found:
    report: Callable[[int, int], None] = lambda known, _done: looked_at.update({name: known})  # noqa: E731
    return search(BY_NAME[name], report)


def _tell_losses(console: Console, *, is_recorded: bool) -> int:
    found = naive_search.find_losses()
    for loss in found:
        console.print(f"{loss.title}.", markup=False)
        for place, step in enumerate(loss.told, 1):
            console.print(f"  {place}. {step}.", markup=False)
    if is_recorded:
        shortest_losses.record(found)
    return 0


def _replay(console: Console, code: str) -> int:
    name, _, numbers = code.rpartition(":")
    scenario = BY_NAME.get(name)
    if scenario is None or not all(each.isdigit() for each in numbers.split(".") if each):
        refuse("There is no such schedule: give --replay the code that a violation ends with.")
    try:
        story = replay(scenario, [int(each) for each in numbers.split(".") if each])
    except IndexError:
        refuse("That schedule cannot be walked: it is of another version of the shop.")
    for line in story.lines:
        console.print(line, markup=False)
    return 1 if story.wrong else 0
