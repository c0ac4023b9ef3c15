"""Every schedule of a small scope, in `make test`; of the whole one, in `make torture`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from store.explore import naive_search
from store.explore.scenarios import BY_NAME, QUICK
from store.explore.search import search
from store.explore.story import replay, walk
from store.settings import ROOT
from store.stage.shortest_losses import recorded
from tests.conftest import Often

_ENOUGH = 1_000
"""States of the quick scope, below which nothing would have been at risk."""


def explore(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "app.py", "explore", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.first_of_all
@pytest.mark.timeout(1200)
def test_no_schedule_breaks_the_shop(often: Often) -> None:
    """Books, answers and what is at rest are right in every state."""
    told = explore() if often(0, 1) else explore("--quick")
    counts = re.search(r"([\d,]+) schedules, ([\d,]+) states, 0 violations", told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr
    assert counts, told.stdout
    schedules, states = (int(count.replace(",", "")) for count in counts.groups())
    assert states >= _ENOUGH
    assert schedules > states


def test_the_same_scope_has_the_same_states() -> None:
    """Nothing of a search is left to chance: neither to the clock nor to the order of a set."""
    scenario = QUICK[-1]
    first, second = search(scenario), search(scenario)
    assert (first.states, first.moves, first.schedules) == (second.states, second.moves, second.schedules)


def test_a_schedule_is_told_in_words_and_walked_again_by_its_code() -> None:
    """As the command line takes it."""
    scenario = BY_NAME["paid, a crash"]
    story = walk(scenario, [("act", 0), ("run", 0, ""), ("crash",), ("adopt",), ("run", 0, "")])
    assert story.steps == (
        "A clicks Buy Now: starts the checkout.",
        "A's checkout: “reserve” commits (pending).",
        "Server 1 dies: server 2 starts.",
        "Server 2: takes up A.",
        "A's checkout on server 2: “reserve” commits (pending); announces “held”; notes its deadline.",
    )
    name, _, numbers = story.code.rpartition(":")
    assert replay(BY_NAME[name], [int(number) for number in numbers.split(".")]) == story
    told = explore("--replay", story.code)
    assert told.returncode == 0
    assert story.steps[-1] in told.stdout


@pytest.mark.parametrize("code", ["nowhere:0.1", "paid, a crash:x", "paid, a crash:99"])
def test_a_code_that_names_no_schedule_is_refused(code: str) -> None:
    """In one sentence."""
    told = explore("--replay", code)
    assert told.returncode != 0
    assert "schedule" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_naive_twin_loses_in_so_many_steps() -> None:
    """Computed, by the same search over its own functions: it is never charged back, never shipped."""
    losses = {loss.name: loss for loss in naive_search.find_losses()}
    assert losses.keys() == {
        "charged_and_never_shipped", "units_held_for_ever", "greetings_never_written_down", "sold_twice",
    }  # fmt: skip
    charged = losses["charged_and_never_shipped"]
    assert charged.title == "The shortest way to lose $99.99: four steps"
    assert charged.told[0] == "Buy Now is clicked"
    assert charged.steps[-1] == "The server dies"
    assert len(losses["units_held_for_ever"].steps) == 3
    assert not any("dies" in step for step in losses["sold_twice"].steps)
    assert losses["sold_twice"].told[1].startswith("B: "), "it takes two"


def test_the_stage_shows_what_the_search_finds() -> None:
    """What is recorded is what it finds now; if not: `python app.py explore --naive --record`."""
    assert list(recorded()) == naive_search.find_losses()
