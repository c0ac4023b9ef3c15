"""Mistakes that are planted in the workflows, for the explorer to find."""

from __future__ import annotations

import inspect

import pytest

from store import workflows
from store.explore.scenarios import BY_NAME
from store.explore.search import search
from store.explore.story import Story, walk


def plant(monkeypatch: pytest.MonkeyPatch, function: str, right: str, wrong: str) -> None:
    """Change one function of workflows.py, as a tired developer would, in this process alone."""
    source = inspect.getsource(getattr(workflows, function))
    assert source.count(right) == 1, f"{function} has no {right!r}, or several"
    monkeypatch.setattr(workflows, function, getattr(workflows, function))  # and back at the end
    exec(source.replace(right, wrong), vars(workflows))  # noqa: S102 - ours


def first_violation(scenario: str) -> Story:
    """The shortest way in which a scenario goes wrong."""
    found = search(BY_NAME[scenario])
    assert found.violations, f"nothing was found in {found.states} states"
    return walk(BY_NAME[scenario], found.violations[0].path)
