"""Tables that were edited by hand: the ledger is red and names the order, or the edit leaves no evidence.

The latter are listed in docs/ledger.md as not claimed, and a test holds the two together.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from store.settings import ROOT
from tests.support.closings import audit_of, close, sealed_rows
from tests.support.specimen import NEWEST, Specimen, edit, ledger_of

_EDITS = re.findall(
    r"^-- (?P<name>[^>\n]+?)(?: -> (?P<named>.+))?\n(?P<statements>(?:(?!--).+\n)+)",
    Path(__file__).with_name("ledger_edits.sql").read_text(encoding="utf-8"),
    re.MULTILINE,
)
_RED = {name: (named, statements) for name, named, statements in _EDITS if named}
_RED_STATEMENTS = {name: statements for name, (_, statements) in _RED.items()}
_NOT_CLAIMED = {name: statements for name, named, statements in _EDITS if not named}


def test_the_specimen_is_in_order(copied: str, specimen: Specimen) -> None:
    """Green before anything is edited, with an order of each kind; and all edits were found in their file."""
    ledger = ledger_of(copied, specimen.their_book)
    assert ledger.faults == ()
    assert [line.name for line in ledger.lines if not line.ok] == []
    assert {name: value for line in ledger.lines for name, value in line.figures.items()}["orders"] == NEWEST
    assert (len(_RED), len(_NOT_CLAIMED)) == (71, 10)


@pytest.mark.sampled(20)
@pytest.mark.parametrize("name", _RED)
def test_an_edit_is_red_and_names_its_order(copied: str, specimen: Specimen, name: str) -> None:
    """Whatever was changed, the line that is about it says which order, or by how much."""
    named, statements = _RED[name]
    edit(copied, statements)
    ledger = ledger_of(copied, specimen.their_book)
    assert not ledger.balanced
    said = [fault.subject for fault in ledger.faults] + [line.off for line in ledger.lines]
    assert [text for text in said if re.match(rf"{re.escape(named)}(?!\d)", text)], said


@pytest.mark.sampled(20)
@pytest.mark.parametrize("name", [*_RED, *_NOT_CLAIMED])
def test_an_edit_behind_a_closing_is_found(copied: str, specimen: Specimen, name: str) -> None:
    """The audit finds it if it has changed anything that is sealed, and the ledger is red as it was."""
    assert close(copied) == 1
    before = sealed_rows(copied)
    edit(copied, (_RED_STATEMENTS | _NOT_CLAIMED)[name])
    assert audit_of(copied).agrees is (sealed_rows(copied) == before)
    assert ledger_of(copied, specimen.their_book).balanced is (name in _NOT_CLAIMED)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", _NOT_CLAIMED)
def test_an_edit_without_evidence_is_listed_as_not_claimed(
    copied: str, specimen: Specimen, name: str
) -> None:
    """Nothing remembers it otherwise, so the ledger is green; the document says so."""
    edit(copied, _NOT_CLAIMED[name])
    assert ledger_of(copied, specimen.their_book).balanced
    assert f"- {name}" in (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
