"""The presenter's page of the storm on the open shop: what starts it, what stops it, what it came to."""

from __future__ import annotations

import subprocess
import sys
import threading

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from flask_htmx import make_response
from werkzeug.wrappers import Response as AnyResponse

from store.durable.deadlines import call_with_deadline
from store.process_wide import ProcessWide
from store.serving import requests
from store.settings import ROOT, Settings
from store.stage import storm_requests, storm_state, storm_view
from store.stage.presenter_bar import presenter
from store.stage.storm_picture import DARK, LIGHT, Picture
from store.stage.storm_state import Plan, Storm
from store.stage.storm_view import StormView
from store.vocabulary import new_key
from store.web.every_request import fragment, htmx, page
from store.web.shop import queries

MOST = Plan(shoppers=200, seconds=300, kills=100, seed=999_999)
"""The largest storm."""
_LEAST = Plan(shoppers=1, seconds=5, kills=0, seed=0)
USUAL = Plan(shoppers=30, seconds=60, kills=15, seed=0)
"""What the page offers; the seed is the number of the storm."""
_DIGITS = 9


_settings: ProcessWide[Settings] = ProcessWide("what a storm that this server starts is to know")


def prepare(app: Flask, settings: Settings) -> None:
    """Let storms in, if anybody may start one. Only a parent can have its server killed again and again."""
    if settings.offers_presenter_tools:
        _settings.set(settings)
        storm_requests.prepare(app)


def view() -> StormView:
    """The newest storm, as it stands now."""
    return storm_view.read(_why_not())


@presenter.get("/stage/storm")
def show_storm() -> str:
    """Show the storm, on a page of its own."""
    return page("storm.html", with_tools=False, storm=view(), usual=USUAL, most=MOST, least=_LEAST)


@presenter.get("/stage/storm/now")
def storm_now() -> Response:
    """The storm as it stands now."""
    return fragment("_storm_now.html", storm=view())


@presenter.post("/stage/storm")
def start_or_stop() -> AnyResponse:
    """Start the storm that the form describes, once for each number; or stop the one that is on."""
    do = request.form.get("do", "")
    if do == "stop":
        call_with_deadline(storm_state.stop)
    elif do == "start":
        _start(_whole("number", 1, 10**_DIGITS - 1), _plan())
    else:
        abort(400, "A storm is started or stopped: go back and choose one of the two.")
    if htmx:
        answer: AnyResponse = make_response("")
        return answer
    # A press that comes before htmx is there is an ordinary form, and leads back to where it was.
    return redirect(url_for(".stage" if "on_stage" in request.form else ".show_storm"), 303)


@presenter.get("/stage/storm/<int:number>.svg")
def storm_picture(number: int) -> Response:
    """The verdict of a storm as a picture that stands alone."""
    storm = storm_state.find(queries().rows, number)
    if storm is None or storm.verdict is None:
        abort(404, "There is no verdict of that storm: wait until it has ended, or choose another one.")
    colours = DARK if request.args.get("colours") == "dark" else LIGHT
    picture = Picture.of(storm_view.result_of(storm), colours)
    drawn = render_template("storm.svg", picture=picture, is_chart=request.args.get("part") == "chart")
    response = Response(drawn, mimetype="image/svg+xml")
    if "download" in request.args:
        response.headers["Content-Disposition"] = f'attachment; filename="storm-{number}.svg"'
    return response


@presenter.get("/stage/storm/newest.svg")
def newest_picture() -> AnyResponse:
    """Save the picture of the newest storm."""
    storm = storm_state.newest(queries().rows)
    return redirect(url_for(".storm_picture", number=storm.number if storm else 0, download=""), 303)


def _why_not() -> str:
    """Why this shop cannot have a storm; empty if it can."""
    if why_not := requests.why_not():
        return why_not
    if not _settings().can_pay_here:
        return "Shoppers of a storm pay on the page: open the shop without STORE_WEBHOOK_SECRET."
    return ""


def _plan() -> Plan:
    return Plan(
        **{
            name: _whole(name, getattr(_LEAST, name), getattr(MOST, name))
            for name in ("shoppers", "seconds", "kills", "seed")
        }
    )


def _whole(name: str, least: int, most: int) -> int:
    text = request.form.get(name, "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and least <= int(text) <= most):
        abort(
            400, f"The {name} of a storm must be a whole number from {least} to {most}: choose another one."
        )
    return int(text)


def _start(number: int, plan: Plan) -> None:
    if why_not := _why_not():
        abort(409, why_not)
    storm = call_with_deadline(lambda: storm_state.ask(number, new_key(), plan))
    if storm is None:
        abort(409, "Another storm blows now, or that is not the next one: load the page of the storm again.")
    if storm.plan != plan:  # somebody else's: one that is sent again is the same
        abort(409, "Another storm was started before yours: look at it, and start yours when it is over.")
    if storm.is_on and storm.began_at_ms is None:
        _run(storm)


def _run(storm: Storm) -> None:
    """Start its process, which ends at once if there is one already."""
    settings = _settings()
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "store.storm.shop_storm", str(storm.number), _address(settings)],
        cwd=ROOT,
        env=settings.environment(),
        # It ends with the parent, and asks that to kill.
        stdin=requests.parents_socket(),
        start_new_session=True,
    )
    threading.Thread(target=process.wait, name="storm", daemon=True).start()  # or it stayed as a zombie


def _address(settings: Settings) -> str:
    """Where this server listens, whatever the visitor calls it."""
    own = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared
    return f"http://[{host}]:{own['SERVER_PORT']}" if ":" in host else f"http://{host}:{own['SERVER_PORT']}"
