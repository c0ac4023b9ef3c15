"""Each planted bug is caught; `python -m tests.planted` prints by whom."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from store.settings import ROOT
from tests.planted.catchers import a_copy, catch
from tests.planted.mistakes import ALL, Change, Mistake


@pytest.mark.quick
def test_each_bug_fits_the_code_and_is_tried_by_somebody(tmp_path: Path) -> None:
    """A text that the code has no more plants nothing, and would be taken for a bug that nobody catches."""
    assert len(ALL) >= 12
    assert len({mistake.name for mistake in ALL}) == len(ALL)
    for mistake in ALL:
        assert mistake.scenario or mistake.tests
        assert bool(mistake.scenario) == bool(mistake.said)
        for file in {change.file for change in mistake.changes}:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tmp_path / file)
        for change in mistake.changes:
            before = (tmp_path / change.file).read_text(encoding="utf-8")
            change.apply(tmp_path)
            after = (tmp_path / change.file).read_text(encoding="utf-8")
            assert after != before
            compile(after, change.file, "exec")


@pytest.mark.quick
def test_a_text_that_is_not_there_is_no_bug(tmp_path: Path) -> None:
    """Nor one that is there twice, or in another function."""
    (tmp_path / "code.py").write_text("def one():\n    return 1\n\ndef two():\n    return 2 + 2\n")
    for function, right in (("one", "2"), ("two", "2"), ("three", "1")):
        with pytest.raises(ValueError, match=function):
            Change(function, right, "0", "code.py").apply(tmp_path)


@pytest.mark.timeout(900)
@pytest.mark.sampled(2)
@pytest.mark.parametrize("mistake", ALL, ids=lambda mistake: mistake.name)
def test_a_planted_bug_is_caught(mistake: Mistake) -> None:
    """By the explorer where its stand-in has such a thing, or by a test of the suite."""
    assert catch(mistake).by_anybody


@pytest.mark.quick
def test_the_copy_has_all_that_a_page_needs() -> None:
    """Without one of its files every page would be an error, and a storm over it would be quiet."""
    with a_copy() as root:
        for folder in ("static", "templates", "store", "docs"):
            ours = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
            ours = {path for path in ours if "__pycache__" not in path.parts}
            assert ours == {path.relative_to(root) for path in (root / folder).rglob("*") if path.is_file()}
