"""The explorer is shown red: it finds each of these mistakes by itself, and tells the shortest way there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from store.explore.runtime import Runtime
from store.explore.scenarios import BY_NAME
from store.explore.story import replay
from tests.support.explored import first_violation, plant

_CRASH = "one order, a crash"
_MISTAKES = {
    "ignore a row count": (
        "one unit for two, no crash", "reserve",
        "took_a_unit = bool(execute(session, take, id=PRODUCT_ID))",
        "took_a_unit = execute(session, take, id=PRODUCT_ID) >= 0",
        "Every unit stocked is on the shelf, held or sold",
    ),
    "drop AND status = 'paid' from a tick": (
        "paid, a zombie", "_record_tick",
        " AND status = 'paid' AND progress = :tick - 1", "",
        "was at tick",
    ),
    "drop AND status = 'pending', and what is asked before it": (
        _CRASH, "settle",
        "    if order[\"status\"] == Status.PENDING:\n        if order[\"first_outcome\"] == Outcome.PAID:",
        "    if True:\n        if order[\"first_outcome\"] == Outcome.PAID:",
        "UnexpectedRowCount",
    ),
    "release twice": (
        "paid, a crash", "reserve",
        "        if took_a_unit:\n            _put_back(session)\n        if found",
        "        _put_back(session)\n        if found",
        "Every unit stocked is on the shelf, held or sold",
    ),
    "refund without ON CONFLICT": (
        _CRASH, "_record_payment", " ON CONFLICT DO NOTHING", "", "IntegrityError",
    ),
    "forget that a unit is not held any more": (
        _CRASH, "_cancel", "    _hold_no_longer(session, payment_id)\n", "", "still counts as an unpaid unit",
    ),
    "do not give late money back": (
        _CRASH, "record_notice",
        "        _take_and_give_back(session, payment_id)\n", "        pass\n",
        "the money is nowhere",
    ),
    "forget to write a notice down": (
        "paid, a crash", "record_notice",
        "    _write_notice(session, payment_id, outcome)\n", "",
        "was told of a payment that is in no notice",
    ),
    "decide by the message, not by the first notice": (
        _CRASH, "settle",
        "        if order[\"first_outcome\"] == Outcome.PAID:", "        if outcome == Outcome.PAID:",
        "the first word of its payment is failed",
    ),
    "forget to count a unit as unpaid": (
        "one unpaid unit, no crash", "reserve",
        "            _hold(session, payment_id, client)\n", "            pass\n",
        "its unit counts for no client",
    ),
    "sell what is not there": (
        "one unit for two, no crash", "reserve", " AND on_hand > 0", "", "IntegrityError",
    ),
    "fill the shelf once more": (
        "a restock, a crash", "fill_shelf",
        "    if before is not None:\n        return int(before.units)\n", "", "IntegrityError",
    ),
    "end a greeting that has ended": (
        "a greeting run again from its first line", "_end_greeting",
        " AND (outcome IS NULL OR :outcome = 'greeted')", "",
        "was greeted, and is given_up",
    ),
}  # fmt: skip
"""By what was done: where it shows, the function, what is right, what is wrong, what must be said of it."""


def test_the_cancelled_order_that_was_dispatched_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of kills had not hit it: what settles says `paid`, whatever has become of the order."""
    plant(
        monkeypatch, "settle", "    return order\n",
        "    if order[\"has_been_paid\"]:\n        order[\"status\"] = Status.PAID\n    return order\n",
    )  # fmt: skip
    story = first_violation("paid, a crash")
    assert "Order A is cancelled, and its dispatch was started." in story.wrong
    assert len(story.steps) <= 8, story.steps
    assert any("dies" in step for step in story.steps)
    scenario, _, numbers = story.code.rpartition(":")
    assert replay(BY_NAME[scenario], [int(number) for number in numbers.split(".")]) == story


@pytest.mark.parametrize("mistake", _MISTAKES)
def test_a_planted_mistake_is_found(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    """What is said of it names it."""
    scenario, function, right, wrong, said = _MISTAKES[mistake]
    plant(monkeypatch, function, right, wrong)
    story = first_violation(scenario)
    assert any(said in each for each in story.wrong), story.wrong


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
