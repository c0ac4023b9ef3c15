"""What all pages share is read again after who has changed something, and after nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.started import ROOT

_VISIT = """
import os
import sqlalchemy as sa
import store.reads.orders
store.reads.orders.BOARD_SECONDS = 3600  # so that no reading is renewed because of its age
import app

statements = []
sa.event.listen(sa.Engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
browser = app.create_app().test_client()


def are_read():
    statements.clear()
    assert browser.get("/").status_code == 200
    marks = {"board": "shelf_product_id", "tools": "FROM stage_faults"}
    return [name for name, mark in marks.items() if any(mark in each for each in statements)]


print("a first page:", *are_read())
for says, path, form in (
    ("a purchase:", "/buy", {"key": "first"}),
    ("the presenter:", "/stage/sell_out", {}),
    ("an empty shelf:", "/buy", {"key": "second"}),
):
    assert browser.post(path, data=form).status_code == 303, path
    print(says, *are_read())
print(flush=True)
os._exit(0)
"""


@pytest.mark.quick
def test_who_changes_something_has_it_read_again(tmp_path: Path) -> None:
    """The board by a purchase, also the tools by the presenter, and neither by a click that gets nothing."""
    said = subprocess.run(
        [sys.executable, "-c", _VISIT],
        cwd=ROOT,
        env=os.environ | {"DBOS_DATABASE_URL": f"sqlite:///{tmp_path}/store.sqlite3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout.splitlines()[:4] == [
        "a first page: board tools",
        "a purchase: board",
        "the presenter: board tools",
        "an empty shelf:",
    ], said.stderr
