"""The tutorial, as somebody follows it: each program saved, each command run, each result as it says."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from store.settings import ROOT
from tests.support.guestbook import JSON, Guestbook

_TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
_CHAPTERS = re.split(r"^## ", _TEXT, flags=re.MULTILINE)[1:-1]
_SAID = re.compile(r"signed over there, waiting: \d of \d|in both books|\d signatures?, \d greetings?")
_PARTS = re.compile(
    r"```(python|sh)\n(.*?)```|^Result: (\d+ signatures?, \d+ greetings?)\.", re.DOTALL | re.MULTILINE
)


@pytest.fixture
def guestbook(tmp_path: Path) -> Iterator[Guestbook]:
    """The one in the terminal of its own."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        yield guestbook


class Follower:
    """Somebody with an empty folder and a guestbook."""

    def __init__(self, folder: Path, guestbook: Guestbook) -> None:
        self._folder, self._guestbook = folder, guestbook
        self.heard = ""
        """The last that a program said."""

    def save(self, program: str, name: str) -> None:
        """With less to wait for, and the guestbook where it is."""
        program = program.replace("SECONDS = 5", "SECONDS = 2").replace(
            "http://127.0.0.1:8001", self._guestbook.url
        )
        (self._folder / name).write_text(program, encoding="utf-8")

    def do(self, command: str) -> None:
        """Run one command, and do meanwhile what its comment says."""
        words, comment = shlex.split(command, comments=True), command.partition("  # ")[2]
        if words[0] == "curl":
            assert urlsplit(words[-1]).path == "/trouble"
            assert (
                self._guestbook.request("POST", "/trouble", words[words.index("--json") + 1], JSON).status
                == 200
            )
            return
        assert words[0] == ".venv/bin/python"
        assert words[1] in {"greeting.py", "count.py"}
        with subprocess.Popen(
            [sys.executable, *words[1:]],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as program:
            assert program.stdout is not None
            if comment == "kill it":
                assert any("waiting: 1 of" in line for line in program.stdout)
                program.send_signal(signal.SIGKILL)
            elif comment == "start the guestbook again meanwhile":
                assert self._guestbook.wait_for_death() == 1
                self._guestbook.start()
            else:
                assert not comment
            said = program.stdout.read()
        assert program.returncode == (-signal.SIGKILL if comment == "kill it" else 0), said
        # Nothing is said but what the programs themselves say.
        assert all(_SAID.fullmatch(line) for line in said.splitlines()), said
        self.heard = said.strip()


@pytest.mark.timeout(300)
def test_the_tutorial_does_what_it_says(tmp_path: Path, guestbook: Guestbook) -> None:
    """In one folder, from its first program to its last result."""
    (tmp_path / "empty").mkdir()
    follower, results, names = Follower(tmp_path / "empty", guestbook), 0, iter(["count.py"])
    for kind, block, result in _PARTS.findall(_TEXT):
        if kind == "python":
            follower.save(block, next(names, "greeting.py"))
        elif kind == "sh":
            for command in block.splitlines():
                follower.do(command)
        else:
            assert follower.heard == result
            results += 1
    assert results == 6


def test_there_are_four_chapters() -> None:
    """So that the test before this one has something to follow."""
    assert [chapter[:2] for chapter in _CHAPTERS] == ["1.", "2.", "3.", "4."]
