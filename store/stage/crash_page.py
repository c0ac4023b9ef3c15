"""The presenter's page of the points at which a crash can be armed, and what arms them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from flask import Response, abort, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from store.durable import runtime
from store.durable.deadlines import call_with_deadline
from store.reads.crashes import Crash
from store.settings import Settings
from store.stage import crash_points
from store.stage.crash_points import CRASH_POINTS
from store.stage.presenter_bar import is_meant_for_this_server, presenter
from store.stage.tools_status import armed_points
from store.web.every_request import fragment, page
from store.web.shop import queries


@dataclass(frozen=True)
class PointView:
    """One point, and whether the next workflow that passes it takes its server down."""

    name: str
    words: str
    is_armed: bool
    died: int = 0
    """The number of the server that died there over the sale that is shown; 0 if none did."""


def prepare(settings: Settings) -> None:
    """Have something that looks out for crashes, if anybody may arm one."""
    if settings.offers_presenter_tools:
        crash_points.armed.set(crash_points.Armed(settings))


@presenter.get("/stage/crashes")
def crashes() -> str:
    """Show where a crash can be armed."""
    return page("crash_points.html", points=points(), executor=runtime.executor_number())


@presenter.get("/stage/crashes/now")
def crashes_now() -> Response:
    """The same as it stands now."""
    return fragment("_crash_points.html", points=points(), executor=runtime.executor_number())


@presenter.post("/stage/crashes/<name>")
def change_crash(name: str) -> AnyResponse:
    """Arm one point, or disarm it."""
    changes: dict[str, Callable[[str], object]] = {"arm": crash_points.arm, "disarm": crash_points.disarm}
    if name not in CRASH_POINTS:
        abort(404, f"There is no such crash point: it is one of {', '.join(CRASH_POINTS)}.")
    change = changes.get(request.form.get("do", ""))
    if change is None:
        abort(400, "A crash point is either armed or disarmed: go back and choose one of the two.")

    # Sent again after the crash that it has armed, it is not meant to arm another one.
    if is_meant_for_this_server():
        change_what_is_armed(partial(change, name))
    return redirect(url_for(".crashes"), 303)


def change_what_is_armed(change: Callable[[], object]) -> None:
    """Arm or disarm, and look out for what is armed then.

    Raises:
        DeadlineExceeded: the database does not answer.
    """
    call_with_deadline(change)
    call_with_deadline(crash_points.armed().look_out)


def points(met: Iterable[Crash] = ()) -> list[PointView]:
    """Every point, in the order of a sale; `met` are the crashes of the one that is shown."""
    armed, died_at = armed_points(), crash_points.died_at(queries())
    died = {died_at[crash.dead]: crash.dead for crash in met if crash.dead in died_at}
    return [
        PointView(name, point.words, name in armed, died.get(name, 0)) for name, point in CRASH_POINTS.items()
    ]
