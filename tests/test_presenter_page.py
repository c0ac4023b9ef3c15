"""The presenter's page, `docs/presenter.md`: each command, key, route and sentence that it names is there."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from store.settings import ROOT
from store.stage.crash_points import CRASH_POINTS
from store.stage.script import SCENES

pytestmark = pytest.mark.quick

_TEXT = (ROOT / "docs" / "presenter.md").read_text(encoding="utf-8")
_NAMED = re.findall(r"`([^`]+)`", _TEXT)
_SHOWN = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "templates").iterdir())
_SOURCES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "store").rglob("*.py"))
_KEYS = {"Space": '" "', "→": "ArrowRight", "←": "ArrowLeft"}
_OF_THE_BROWSER = {"F11"}


def test_every_scene_is_told_in_its_order() -> None:
    """By the sentence that the audience reads, from the first to the last."""
    assert re.findall(r"\| \*\*(.+?)\*\* \|", _TEXT) == [scene.sentence for scene in SCENES]


def test_every_key_does_something() -> None:
    """As the script of the stage knows it, or the button that has it."""
    script = (ROOT / "static" / "scenes.js").read_text(encoding="utf-8")
    keys = {name for name in _NAMED if name in _KEYS or re.fullmatch(r"[A-Z0-9]", name)}
    assert {"Space", "→", "←", "B", "C", "E", "R", "S", "X", "1", "3", "7"} == keys
    for key in keys:
        if key in _KEYS:
            assert _KEYS[key] in script
        elif key.isdigit():
            assert 1 <= int(key) <= len(CRASH_POINTS)
        else:
            assert f'data-key="{key.lower()}"' in _SHOWN or f'aria-keyshortcuts="{key}"' in _SHOWN
    assert len(CRASH_POINTS) == 7
    assert list(CRASH_POINTS)[2] == "charge"


def test_every_command_is_understood() -> None:
    """`make` has its target, and `app.py` its options."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {name.split()[1] for name in _NAMED if name.startswith("make ")}
    assert targets == {"talk", "reset"}
    assert all(re.search(rf"^{target}: .*##", makefile, re.MULTILINE) for target in targets)
    for command, option in [("talk", "--keep"), ("disarm", "--talk"), ("reset", "--talk")]:
        told = subprocess.run(
            [sys.executable, "app.py", command, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert option in told.stdout
    assert ".venv/bin/python app.py disarm --talk" in _NAMED


def test_everything_else_that_is_named_is_there() -> None:
    """Routes, buttons, and what a page says."""
    routes = {name for name in _NAMED if name.startswith("/")}
    assert routes == {"/stage", "/stage/notes"}
    assert all(f'"{route}"' in _SOURCES for route in routes)
    assert "Fill the shelf to {{ vocabulary.SHELF_SIZE }}" in _SHOWN
    assert "All sales so far: <strong>{{ lane.cheated }} cheated" in _SHOWN
    assert '"The shop began anew."' in _SOURCES
    assert 'ROOT / "var" / "talk"' in _SOURCES
    others = {
        name
        for name in set(_NAMED) - routes - _OF_THE_BROWSER - set(_KEYS)
        if not re.match(r"make |[A-Z0-9]$|\.venv", name)
    }
    assert others == {"Fill the shelf to 100", "All sales so far: 1 cheated, $99.99", "var/talk"}
