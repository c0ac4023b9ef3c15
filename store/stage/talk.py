"""The projector's page, its second window for the presenter's notes, and what moves them on."""

from __future__ import annotations

from functools import partial

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from flask_htmx import make_response
from werkzeug.wrappers import Response as AnyResponse

from store import commands
from store.durable.deadlines import call_with_deadline
from store.serving import requests
from store.settings import Settings
from store.stage import crash_points, lanes, scene_view, storm_page, talk_state
from store.stage.crash_page import change_what_is_armed
from store.stage.presenter_bar import is_meant_for_this_server, presenter
from store.stage.scene_view import EVERY_SALE, notes_view, scene_of, stage_view
from store.stage.script import SCENES, Act
from store.vocabulary import dispatch_id, new_key
from store.web.every_request import fragment, htmx, page
from store.web.origin import client_of

_ARMED_BY = {Act.SELL_AND_CRASH: "tick", Act.SELL_AND_DEPLOY: "deploy"}
"""The point at which what an act does comes, for its own sale alone."""
_DIGITS = 9
"""Of a number of moves."""


def prepare(app: Flask, settings: Settings) -> None:
    """Let storms in; and read the code that is shown now, because its file may be another one by then."""
    storm_page.prepare(app, settings)
    scene_view.prepare()


@presenter.get("/stage")
def stage() -> str:
    """Show the projector's page."""
    return page("stage.html", with_tools=False, stage=stage_view())


@presenter.get("/stage/now")
def stage_now() -> Response:
    """The scene as it stands now."""
    return fragment("_stage.html", stage=stage_view())


@presenter.get("/stage/notes")
def notes() -> str:
    """Show what the presenter may say."""
    return page("stage_notes.html", with_tools=False, notes=notes_view())


@presenter.get("/stage/notes/now")
def notes_now() -> Response:
    """What they may say now."""
    return fragment("_stage_notes.html", notes=notes_view())


@presenter.post("/stage")
def move() -> AnyResponse:
    """Go on, go back, or do what the scene does: once for each place that the talk has come to."""
    moves, do = request.form.get("moves", ""), request.form.get("do", "")
    if not moves.isdecimal() or len(moves) > _DIGITS or do not in {"go", "back", "act"}:
        abort(400, "That press cannot be understood: load the stage again.")
    place = call_with_deadline(lambda: talk_state.begin(new_key()))
    scene = scene_of(place)
    if int(moves) != place.moves or (do == "act" and scene.act is None):
        return _moved_meanwhile()
    if do == "act":
        # The sale first: pressed again after a crash, it is the same one.
        if scene.act is Act.SELL_AND_DEPLOY and (why_not := requests.why_not()):
            abort(409, why_not)
        if not _sell(place.next_key, _ARMED_BY.get(scene.act) if scene.act else None):
            call_with_deadline(lambda: talk_state.renew_key(place.moves, new_key()))
            abort(409, "That sale was refused: fill the shelf, or pay for what is held, and sell again.")
        has_moved = call_with_deadline(lambda: talk_state.show_sale(place.moves, new_key()))
    else:
        number = (place.scene + 1) % len(SCENES) if do == "go" else max(0, place.scene - 1)
        has_moved = call_with_deadline(lambda: talk_state.go(place.moves, number))
    return _as_it_is() if has_moved else _moved_meanwhile()


def _moved_meanwhile() -> AnyResponse:
    """For a press that came twice, or from a window that was behind: htmx is shown where the talk is."""
    if not htmx:
        abort(409, "The talk has moved on in another window: load the stage again.")
    return _as_it_is()


def _as_it_is() -> AnyResponse:
    if htmx:
        answer: AnyResponse = make_response(render_template("_stage.html", stage=stage_view()))
        return answer
    return redirect(url_for(".stage"), 303)


@presenter.post("/stage/every_sale")
def every_sale() -> AnyResponse:
    """Have every sale be a crash, or no longer."""
    change = {"begin": crash_points.arm_for_every, "end": crash_points.disarm}.get(request.form.get("do", ""))
    if change is None:
        abort(400, "Every sale is a crash, or none: go back and choose one of the two.")

    if is_meant_for_this_server():
        change_what_is_armed(partial(change, EVERY_SALE))
    return redirect(url_for(".stage"), 303)


def _sell(key: str, point: str | None) -> bool:
    """Sell one in both lanes, once for each key; False if the shop refuses. A point is armed for it alone."""
    if point and lanes.find(key) is None:  # or a press that is sent again would arm another crash
        # A checkpoint has the id of its workflow; a tick itself, that of its payment.
        only_key = dispatch_id(key) if point == "deploy" else key
        change_what_is_armed(partial(crash_points.arm, point, only_key))
    try:
        lanes.start(key, client_of(request))
    except (commands.KeyTaken, commands.TooManyUnpaid, commands.UnknownPayment):
        if point:
            change_what_is_armed(partial(crash_points.disarm, point))
        return False
    return True
