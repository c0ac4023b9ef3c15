"""What all pages share is read again after a click that may have changed it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.started import ROOT

_VISIT = """
import os
import sys
import traceback
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


try:
    print("a first page:", *are_read())
    for says, path, form in (
        ("a purchase:", "/buy", {"key": "first"}),
        ("the presenter:", "/stage/sell_out", {}),
    ):
        assert browser.post(path, data=form).status_code == 303, path
        print(says, *are_read())
except BaseException:
    traceback.print_exc()
finally:  # what waits to be paid keeps no process from its end
    sys.stdout.flush()
    os._exit(0)
"""


def test_who_changes_something_has_it_read_again(tmp_path: Path) -> None:
    """The board by a purchase, and by the presenter also what the tools show."""
    said = subprocess.run(
        [sys.executable, "-c", _VISIT],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DBOS_DATABASE_URL": f"sqlite:///{tmp_path}/store.sqlite3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout.splitlines() == [
        "a first page: board tools",
        "a purchase: board",
        "the presenter: board tools",
    ], said.stderr
