"""Releases of the shop whose workflows have other steps than this one's: copies of the checkout, changed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.server import SERVER, Server
from tests.support.shop import Shop
from tests.support.started import ROOT

_NEEDED = ("app.py", "guestbook_service.py", "schema.sql", "migrations", "static", "store", "templates")
_CHECKOUT = '    DBOS.set_event(Event.HELD, order["status"])\n'
_DISPATCH = "    order = advance(payment_id, 1, paid_at_ms)\n"
_STEPS = {_CHECKOUT: "thank", _DISPATCH: "pack"}
"""A step that the other release has before each of these lines."""

THIS: dict[str, str] = {}
"""Of each line that another release has changed, what it is there. Here: none."""
OTHERWISE = {line: f'    step("{name}", lambda: None)\n{line}' for line, name in _STEPS.items()}
"""Steps were added or taken away, and nobody thought of the orders that are under way."""
PATCHED = {
    line: f'    if DBOS.patch("{name}"):\n        step("{name}", lambda: None)\n{line}'
    for line, name in _STEPS.items()
}
"""The same steps were added as they ought to be."""


def make_release(folder: Path, changes: dict[str, str]) -> Path:
    """A checkout of that release in this folder, which is new."""
    folder.mkdir()
    for name in _NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy2(ROOT / name, folder / name)
    change_release(folder, changes)
    return folder


def change_release(folder: Path, changes: dict[str, str]) -> None:
    """Have that release there from now on, for servers that start."""
    workflows = (ROOT / "store" / "workflows.py").read_text(encoding="utf-8")
    for line, changed in changes.items():
        assert workflows.count(line) == 1, f"the workflows have no such line any more: {line}"
        workflows = workflows.replace(line, changed)
    (folder / "store" / "workflows.py").write_text(workflows, encoding="utf-8")


class ReleasedShop(Shop):
    """A shop of the release in that folder, open from the beginning."""

    def __init__(
        self, folder: Path, database_url: str, *, script: tuple[str, ...] = SERVER, **settings: object
    ) -> None:
        super().__init__(database_url)
        self.server = Server(database_url, settings, script=script, folder=folder)
        self.server.start()
