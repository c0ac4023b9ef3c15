"""The programs that a parent keeps up."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from store.settings import ROOT


@dataclass(frozen=True)
class Program:
    """What is kept up."""

    name: str
    """What events call it."""
    command: Sequence[str]
    """What starts it; where it listens is added."""
    probe_path: str
    """A path that it answers without its database: one whose database is away is up."""
    successor: Sequence[str] = ()
    """Added to the command once one has answered."""
    is_told_of_deaths: bool = False
    """Whether each has a name of its own, `--token <name>`, and is told `--died <name>@<ms since 1970>` of
    each that died lately."""
    can_be_forked: bool = False
    """Whether it understands `--fork-server <socket>`; see `fork_client`."""
    may_ask: bool = False
    """Whether `--requests <socket>` is added, on which it may ask us for something; see `requests`."""


_APP = (sys.executable, str(ROOT / "app.py"), "server")
# Without its database the first one refuses to start; from then on, visitors are told that it is away.
SERVER = Program(
    "Server",
    _APP,
    "/static/favicon.svg",
    successor=("--wait-for-database",),
    is_told_of_deaths=True,
    can_be_forked=True,
    may_ask=True,
)
GUESTBOOK = Program("Guestbook", (sys.executable, str(ROOT / "guestbook_service.py")), "/health")
