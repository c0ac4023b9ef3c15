"""What the presenter's tools show of the shop, read once for all pages that are asked for together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from store.durable import runtime
from store.reads.cached import CachedRead
from store.reads.orders import BOARD_SECONDS
from store.reads.records import Executor
from store.stage import faults
from store.web.shop import queries

_NAME = "tools status"


@dataclass(frozen=True)
class ToolsStatus:
    """The server that answers, and what is prepared against it."""

    executor: Executor
    crashes: int
    """How many there were before."""
    armed_points: frozenset[str]
    """By name, where the next crash is to come."""
    fault: str
    """Which is on and for how long, in words; nothing if none is."""


def prepare(app: Flask) -> None:
    """Keep the reading with `app`."""
    app.extensions[_NAME] = CachedRead(_read, BOARD_SECONDS)


def forget() -> None:
    """Have the next look read again: the presenter has just done something."""
    _reading().forget()


def tools_status() -> ToolsStatus:
    """The status, at most `BOARD_SECONDS` old.

    Raises:
        DeadlineExceeded: the database does not answer.
    """
    return _reading().get()


def armed_points() -> frozenset[str]:
    """The names of the crash points that are armed now, whichever process was told so.

    Raises:
        DeadlineExceeded: the database does not answer.
    """
    return frozenset(row.point for row in queries().rows("SELECT point FROM armed_crashes"))


def _reading() -> CachedRead[ToolsStatus]:
    return cast(CachedRead[ToolsStatus], current_app.extensions[_NAME])


def _read() -> ToolsStatus:
    armed = armed_points()
    executor, crashes = queries().executor(runtime.executor_number()), queries().count_crashes()
    return ToolsStatus(executor, crashes, armed, faults.latest(queries()).says)
