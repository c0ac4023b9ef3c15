"""The public record: it only grows, says where each run came from, and its pages are written from it."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from store.proof import document, record
from store.proof.claims import CLAIMS, NOT_CLAIMED
from store.proof.record import BadRecord, Machine, Run
from store.proof.summary import Summary, load
from store.settings import ROOT
from tests.planted.catchers import a_copy

pytestmark = pytest.mark.quick

_STORM = Run(
    kind="storm",
    date="2026-01-02T03:04:05+00:00",
    commit="a" * 40,
    has_changes=False,
    command="python app.py storm --seed 7",
    machine=Machine(2, "a processor", "a system", "3.11.7"),
    database="SQLite 3.40.1",
    counts={"kills": 1_200, "orders": 30, "sent_again": 2},
    seconds=61.4,
    verdict=record.GREEN,
)
_PLANTED = replace(
    _STORM,
    kind="planted",
    counts={"bugs": 2, "caught": 1},
    verdict=record.RED,
    load=20.5,
    wrong=("Buy Now answered 0", "It was late"),
    caught=(
        {"bug": "release twice", "explorer": "off by 1 | unit", "storm": "not tried", "suite": "test_it"},
        {"bug": "a bug", "explorer": "", "storm": "not tried", "suite": "not tried"},
    ),
)


# --- what is on record ------------------------------------------------------------------


def test_the_document_is_what_the_tool_writes() -> None:
    """Never by hand: `python -m store.proof.document`."""
    assert document.DOCUMENT.read_text(encoding="utf-8") == document.text(load())


def test_every_run_on_record_can_be_repeated() -> None:
    """It has its commit, its command, and the seed of what chance decided; and not the name of a machine."""
    runs = record.read()
    for run in runs:
        assert re.fullmatch("[0-9a-f]{40}", run.commit)
        assert run.command.startswith("python ")
        assert run.verdict in {record.GREEN, record.RED, record.VOID}
        assert run.kind != "storm" or "--seed " in run.command
        assert run.counts
    if runs and len(platform.node()) > 3:
        assert platform.node() not in record.RECORD.read_text(encoding="utf-8")


def test_every_file_that_a_claim_names_is_there() -> None:
    """A check that is gone checks nothing."""
    texts = [*(claim.is_checked for claim in CLAIMS), *NOT_CLAIMED]
    named = {path for text in texts for path in re.findall(r"\b(?:tests|docs)/[\w/]+(?:\.\w+)?", text)}
    assert len(named) >= 4
    assert [path for path in named if not (ROOT / path).exists()] == []


# --- how it is kept and shown -----------------------------------------------------------


def test_the_record_only_grows(tmp_path: Path) -> None:
    """One line for each run; where there is no file, there are no runs."""
    path = tmp_path / "proof.jsonl"
    assert record.read(path) == ()
    record.append(_STORM, path)
    first = path.read_text(encoding="utf-8")
    record.append(_PLANTED, path)
    assert path.read_text(encoding="utf-8").startswith(first)
    assert record.read(path) == (_STORM, _PLANTED)


@pytest.mark.parametrize("line", ["", "{}", "[]", "nothing", '{"kind": "storm", "machine": 2}'])
def test_a_line_that_is_no_run_is_named(tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its number; and the page says so, in place of showing less than there is."""
    path = tmp_path / "proof.jsonl"
    record.append(_STORM, path)
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(BadRecord, match="Line 2"):
        record.read(path)
    monkeypatch.setattr("store.proof.summary.read", lambda: record.read(path))
    assert "Line 2" in document.text(load())
    assert "Line 2" in rendered(load())


def test_one_of_a_kind_is_not_called_several() -> None:
    """As one says it."""
    one = replace(_STORM, counts={"kills": 1, "postmasters_killed": 1, "sent_again": 1})
    assert Summary.of((one,)).runs[0].counts == "1 kill, 1 postmaster killed, 1 sent again"


def test_an_exit_code_is_a_verdict() -> None:
    """Three is a run in which something was not tried; whatever else is not zero is red."""
    assert [record.verdict_of(code) for code in (0, 1, 2, 3)] == ["green", "red", "red", "void"]


def test_totals_and_runs_are_counted() -> None:
    """A run that was not green is not left out."""
    shown = Summary.of((_STORM, _STORM, _PLANTED))
    assert shown.totals == {
        "runs on record": 3, "of them not green": 1, "kills": 2_400, "orders in storms": 60,
        "states explored": 0,
    }  # fmt: skip
    assert [run.state for run in shown.runs] == ["broken", "holds", "holds"]
    assert shown.runs[1].counts == "1,200 kills, 30 orders, 2 sent again"
    assert [bug.catchers for bug in shown.planted] == ["explorer and suite", "nobody"]
    in_markdown = document.text(shown)
    assert r"| release twice | off by 1 \| unit | not tried | test_it |" in in_markdown
    assert "| red: Buy Now answered 0 |" in in_markdown
    assert "2 cores under a load of 20.5, a processor" in in_markdown
    assert "| a bug | did not catch it | not tried | not tried |" in in_markdown
    on_the_page = rendered(shown)
    assert on_the_page.count('class="broken"') == 2  # the run, and the bug
    assert "did not catch it" in on_the_page
    assert "Buy Now answered 0; It was late." in on_the_page


def rendered(shown: Summary) -> str:
    """The page, without its frame."""
    templates = Environment(
        loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined, autoescape=True
    )
    template = templates.get_template("proof.html")
    return "".join(template.blocks["main"](template.new_context({"proof": shown})))


def test_without_a_record_that_is_said() -> None:
    """On both pages; what is claimed stands there anyway."""
    for text in (document.text(Summary.of(())), rendered(Summary.of(()))):
        assert "No run is on record." in text
        assert "power cut" in text


# --- how it is written ------------------------------------------------------------------

_RECORD = "from store.proof.recording import begin; begin('explore', 'python x').end({code}, {{'states': 5}})"


def test_a_run_is_recorded_with_its_commit_and_whether_there_are_changes() -> None:
    """What an earlier run has recorded is no change of what is tried."""
    with a_copy() as root:
        (root / "docs" / "proof.jsonl").unlink(missing_ok=True)

        def git(*words: str) -> str:
            who = ("-c", "user.name=a test", "-c", "user.email=test@example.invalid")
            return subprocess.run(
                ["git", *who, *words], cwd=root, check=True, capture_output=True, text=True
            ).stdout.strip()

        git("init", "--quiet")
        git("add", "--all")
        git("commit", "--quiet", "--message", "All of it")
        for code in (0, 1):
            told = run(root, "-B", "-c", _RECORD.format(code=code))
            assert told.returncode == 0, told.stderr
        (root / "app.py").write_text("")
        run(root, "-B", "-c", _RECORD.format(code=3))
        found = record.read(root / "docs" / "proof.jsonl")
        assert [(each.verdict, each.has_changes) for each in found] == [
            ("green", False), ("red", False), ("void", True),
        ]  # fmt: skip
        assert {each.commit for each in found} == {git("rev-parse", "HEAD")}
        page = (root / "docs" / "proof.md").read_text(encoding="utf-8")
        assert page == document.text(Summary.of(found))
        assert "with changes" in page


@pytest.mark.parametrize("command", ["explore --quick", "storm --seconds 1"])
@pytest.mark.timeout(300)
def test_without_git_nothing_is_recorded(command: str) -> None:
    """It is said at once, in one sentence, and not after minutes."""
    with a_copy() as root:
        told = run(root, "app.py", *command.split(), "--record")
        assert told.returncode == 2
        assert told.stderr.startswith("widget store: A run is recorded with its commit")
        assert len(told.stderr.splitlines()) == 1


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A program in that tree."""
    return subprocess.run([sys.executable, *words], cwd=root, check=False, capture_output=True, text=True)


def test_the_command_of_a_storm_is_understood() -> None:
    """As it is recorded."""
    from store.storm.verdict import Plan

    command = Plan(3, 60.0, 2, 7, faults=True, processes=4).command
    assert command == (
        "python app.py storm --shoppers 3 --seconds 60 --kills 2 --seed 7 --faults --processes 4"
    )
    told = run(ROOT, *command.split()[1:], "--help")
    assert told.returncode == 0
