"""The explorer is shown red: it finds each of these mistakes by itself, and tells the shortest way there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from store.explore.runtime import Runtime
from store.explore.scenarios import BY_NAME
from store.explore.story import replay
from tests.planted.mistakes import IN_THE_WORKFLOWS, OLD_CANCEL, Mistake
from tests.support.explored import first_violation, plant


def test_the_cancelled_order_that_was_dispatched_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of kills had not hit it: what settles says `paid`, whatever has become of the order."""
    _plant(monkeypatch, OLD_CANCEL)
    story = first_violation(OLD_CANCEL.scenario)
    assert OLD_CANCEL.said in story.wrong
    assert len(story.steps) <= 8, story.steps
    assert any("dies" in step for step in story.steps)
    scenario, _, numbers = story.code.rpartition(":")
    assert replay(BY_NAME[scenario], [int(number) for number in numbers.split(".")]) == story


@pytest.mark.timeout(600)  # on a machine that is busy
@pytest.mark.parametrize("mistake", IN_THE_WORKFLOWS, ids=lambda mistake: mistake.name)
def test_a_planted_mistake_is_found(monkeypatch: pytest.MonkeyPatch, mistake: Mistake) -> None:
    """What is said of it names it."""
    _plant(monkeypatch, mistake)
    story = first_violation(mistake.scenario)
    assert any(mistake.said in each for each in story.wrong), story.wrong


def _plant(monkeypatch: pytest.MonkeyPatch, mistake: Mistake) -> None:
    for change in mistake.changes:
        plant(monkeypatch, change.function, change.right, change.wrong)


def test_a_checkpoint_before_its_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that records a step, and commits it afterwards: what is in between is found at once."""

    def record_first(self: Runtime, options: Any, work: Callable[[], Any]) -> Any:
        name, run = str(options["name"]), self.now_turn().run
        assert run is not None

        def record() -> Any:
            before = self._store.save()
            result = self.transact(name, work)  # what it will return
            self._store.load(before)
            self.record(run, name, json.dumps(result))
            return result

        return self.operate(name, record, is_quiet=False)

    monkeypatch.setattr(Runtime, "run_step", record_first)
    story = first_violation("paid, a crash")
    assert any("is remembered by its workflow, and is not here" in each for each in story.wrong), story.wrong
