"""The projector's page, its second window for the presenter's notes, and what moves them on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from flask_htmx import make_response
from werkzeug.wrappers import Response as AnyResponse

from store import commands
from store.durable.deadlines import call_with_deadline
from store.ledger.invariants import Ledger
from store.serving import requests
from store.settings import Settings
from store.stage import crash_points, deploy, lanes, listing, storm_page, talk_state
from store.stage.crash_page import PointView, change_what_is_armed, points
from store.stage.deploy import ServerCode
from store.stage.lanes import Run
from store.stage.listing import CodeLine
from store.stage.naive import PRICE_CENTS
from store.stage.qr import audience_address
from store.stage.script import LIMITS, SCENES, Act, Scene
from store.stage.storm_state import Plan
from store.stage.storm_view import StormView
from store.stage.talk_state import Place
from store.stage.tools import Running, is_meant_for_this_server, presenter, running
from store.vocabulary import Status, dispatch_id, new_key
from store.web.every_request import fragment, htmx, page
from store.web.origin import client_of
from store.web.shop import queries, the_shop
from store.web.track import Track
from store.web.waterfall import Waterfall

_ACT_WORDS = {
    Act.SELL: "Sell one",
    Act.SELL_AND_CRASH: "Sell one, and crash",
    Act.SELL_AND_DEPLOY: "Sell one, and deploy",
}
_ARMED_BY = {Act.SELL_AND_CRASH: "tick", Act.SELL_AND_DEPLOY: "deploy"}
"""The point at which what an act does comes, for its own sale alone."""
_ENDINGS = {
    Status.PENDING: "held, not paid yet",
    Status.PAID: "paid, being shipped",
    Status.DISPATCHED: "paid and shipped",
    Status.CANCELLED: "cancelled",
}
_DIGITS = 9
"""Of a number of moves."""
_EVERY_SALE = "reserve"
"""The crash point of the scene in which every sale is a crash."""


@dataclass(frozen=True)
class LaneView:
    """One lane as the audience sees it."""

    name: str
    title: str
    track: Track
    ending: str
    """What has become of the sale, in a few words; nothing without one."""
    cheated: int
    """Customers who have paid and will get nothing, of all that this lane has had."""
    cheated_cents: int
    code: tuple[CodeLine, ...]


@dataclass(frozen=True)
class Counts:
    """What the ledger says of all sales and all crashes."""

    sales: int
    crashes: int
    lost: int
    doubled: int
    cheated: int
    """Customers of the ordinary shop, who have paid and will get nothing."""
    ledger: Ledger

    @property
    def cheated_cents(self) -> int:
        """What they have paid."""
        return self.cheated * PRICE_CENTS


@dataclass(frozen=True)
class StageView:
    """All that one scene shows."""

    scene: Scene
    number: int
    """Of the scene, from 1 up."""
    place: Place
    lanes: tuple[LaneView, ...]
    counts: Counts
    running: Running
    points: list[PointView]
    is_every_sale_a_crash: bool
    journal: Waterfall | None
    audience_address: str
    """Where phones find the shop, in the scene that asks them to; empty where none can."""
    servers: tuple[ServerCode, ...]
    """Which code the newest servers run, where the scene is about that."""
    storm: StormView | None
    limits: tuple[str, ...] = LIMITS
    of: int = len(SCENES)
    usual_storm: Plan = storm_page.USUAL

    @property
    def acts(self) -> bool:
        """Whether going on does what the scene does, and not yet leads to the next one."""
        return self.scene.act is not None and not self.place.has_acted

    @property
    def act_words(self) -> str:
        """What the scene does, on its button."""
        return _ACT_WORDS[self.scene.act] if self.scene.act else ""

    @property
    def sentence(self) -> str:
        """What the audience reads; a deploy of the code that was there says so."""
        is_same = self.servers and self.servers[-2:-1] and not self.servers[-1].differs
        if self.scene.act is Act.SELL_AND_DEPLOY and self.place.has_acted and is_same:
            return "A new server in mid-order. Its code is the same."
        return self.scene.sentence


def prepare(app: Flask, settings: Settings) -> None:
    """Let storms in; and read the code that is shown now, because its file may be another one by then."""
    storm_page.prepare(app, settings)
    for name in _LANES:
        listing.lines_of(name)


@presenter.get("/stage")
def stage() -> str:
    """Show the projector's page."""
    return page("stage.html", with_tools=False, stage=_view())


@presenter.get("/stage/now")
def stage_now() -> Response:
    """The scene as it stands now."""
    return fragment("_stage.html", stage=_view())


@presenter.get("/stage/notes")
def notes() -> str:
    """Show what the presenter may say."""
    return page("stage_notes.html", with_tools=False, stage=_view())


@presenter.get("/stage/notes/now")
def notes_now() -> Response:
    """What they may say now."""
    return fragment("_stage_notes.html", stage=_view())


@presenter.post("/stage")
def move() -> AnyResponse:
    """Go on, go back, or do what the scene does: once for each place that the talk has come to."""
    moves, do = request.form.get("moves", ""), request.form.get("do", "")
    if not moves.isdecimal() or len(moves) > _DIGITS or do not in {"go", "back", "act"}:
        abort(400, "That press cannot be understood: load the stage again.")
    place = call_with_deadline(lambda: talk_state.begin(new_key()))
    scene = _scene_of(place)
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
        answer: AnyResponse = make_response(render_template("_stage.html", stage=_view()))
        return answer
    return redirect(url_for(".stage"), 303)


@presenter.post("/stage/every_sale")
def every_sale() -> AnyResponse:
    """Have every sale be a crash, or no longer."""
    change = {"begin": crash_points.arm_for_every, "end": crash_points.disarm}.get(request.form.get("do", ""))
    if change is None:
        abort(400, "Every sale is a crash, or none: go back and choose one of the two.")

    if is_meant_for_this_server():
        change_what_is_armed(partial(change, _EVERY_SALE))
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


def _scene_of(place: Place) -> Scene:
    return SCENES[min(place.scene, len(SCENES) - 1)]


def _view() -> StageView:
    place = talk_state.read(queries())
    scene = _scene_of(place)
    run = lanes.find(place.run_key) if place.run_key and scene.lanes else None
    ledger = the_shop().ledger.latest()
    has_journal = place.run_key and scene.name == "journal"
    return StageView(
        scene=scene,
        number=SCENES.index(scene) + 1,
        place=place,
        lanes=tuple(_LANES[name](run, place.run_key, ledger) for name in scene.lanes),
        counts=_counts(ledger),
        running=running(),
        points=points() if scene.name == "choose" else [],
        is_every_sale_a_crash=_EVERY_SALE in crash_points_for_every(),
        audience_address=audience_address() if scene.name == "every-sale" else "",
        servers=deploy.servers(queries()) if scene.name == "deploy" else (),
        storm=storm_page.view() if scene.name == "storm" else None,
        journal=Waterfall.of(queries().timeline(place.run_key)).in_short() if has_journal else None,
    )


def crash_points_for_every() -> set[str]:
    """The names of the points that are armed for every order that passes."""
    return {row.point for row in queries().rows("SELECT point FROM armed_crashes WHERE is_for_every = 1")}


def _durable(run: Run | None, key: str, ledger: Ledger) -> LaneView:
    track = run.track if run else Track.of("the durable order", 0)
    story = queries().timeline(key) if run and run.order else None
    status = run.order.status if run and run.order else None
    cheated = len({fault.key for line in ledger.invariants for fault in line.faults})
    ending = _ENDINGS[status] if status else ""
    return LaneView("durable", "Durable", track, ending, cheated, 0, listing.durable(story, status))


def _naive(run: Run | None, _key: str, ledger: Ledger) -> LaneView:
    track, code, ending = Track.of("the ordinary order", 0), listing.lines_of("naive"), ""
    if run is not None:
        left = run.naive
        track = left.track
        ending = _ENDINGS[Status(left.status)] if left.status else ""
        if left.is_dead and left.status != Status.DISPATCHED:
            ending = "paid, and never shipped" if left.is_charged else "reserved, and forgotten"
        code = listing.ordinary(left.status, left.progress, is_charged=left.is_charged, is_dead=left.is_dead)
    cheated = _cheated(ledger)
    return LaneView("naive", "Ordinary", track, ending, cheated, cheated * PRICE_CENTS, code)


def _cheated(ledger: Ledger) -> int:
    return ledger.damage.get("charged_and_never_shipped", 0)


_LANES = {"durable": _durable, "naive": _naive}


def _counts(ledger: Ledger) -> Counts:
    figures = {name: figure for line in ledger.lines for name, figure in line.figures.items()}
    faults = [fault for line in ledger.invariants for fault in line.faults]
    doubled = {fault.key for fault in faults if fault.line == "charges"}
    return Counts(
        sales=figures["sold"],
        crashes=figures["crashes"],
        lost=len({fault.key for fault in faults} - doubled),
        doubled=len(doubled),
        cheated=_cheated(ledger),
        ledger=ledger,
    )
