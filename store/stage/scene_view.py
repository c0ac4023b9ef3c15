"""What one scene shows, read from the database: on the projector, and in the presenter's own window."""

from __future__ import annotations

from dataclasses import dataclass

from flask import request

from store.ledger.invariants import Ledger
from store.stage import deploy, lanes, listing, shortest_losses, storm_page, talk_state
from store.stage.crash_page import PointView, points
from store.stage.deploy import ServerCode
from store.stage.lanes import Run
from store.stage.listing import CodeLine
from store.stage.naive import PRICE_CENTS
from store.stage.presenter_bar import Running, access, running
from store.stage.qr import audience_address
from store.stage.script import LIMITS, SCENES, Act, Scene
from store.stage.shortest_losses import Loss
from store.stage.storm_state import Plan
from store.stage.storm_view import StormView
from store.stage.talk_state import Place
from store.vocabulary import Status
from store.web.shop import queries, the_shop
from store.web.track import Track
from store.web.waterfall import Waterfall

EVERY_SALE = "reserve"
"""The crash point of the scene in which every sale is a crash."""
_ACT_WORDS = {
    Act.SELL: "Sell one",
    Act.SELL_AND_CRASH: "Sell one, and crash",
    Act.SELL_AND_DEPLOY: "Sell one, and deploy",
}
_ENDINGS = {
    Status.PENDING: "held, not paid yet",
    Status.PAID: "paid, being shipped",
    Status.DISPATCHED: "paid and shipped",
    Status.CANCELLED: "cancelled",
}
_LEFT = {
    "charged_for_nothing": "paid, and never shipped",
    "held_for_ever": "reserved, never charged",
    "nothing": "the click had no effect",
}
"""What a dead server has left of an ordinary sale."""


@dataclass(frozen=True)
class LaneView:
    """One lane as the audience sees it."""

    name: str
    title: str
    track: Track
    ending: str
    """What has become of this sale, in a few words; nothing without one."""
    cheated: int
    """Customers who have paid and will get nothing, of all sales that this lane has had."""
    cheated_cents: int
    code: tuple[CodeLine, ...]


@dataclass(frozen=True)
class Counts:
    """What the ledger says of all sales and all crashes since the shop began."""

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
class SceneView:
    """What every window shows of a scene."""

    scene: Scene
    place: Place
    servers: tuple[ServerCode, ...]
    """Which code the newest servers run, where the scene is about that."""

    @property
    def number(self) -> int:
        """Of the scene, from 1 up."""
        return SCENES.index(self.scene) + 1

    @property
    def of(self) -> int:
        """How many there are."""
        return len(SCENES)

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


@dataclass(frozen=True)
class NotesView(SceneView):
    """The same with what the presenter may say."""

    is_signed_in: bool
    """Whether this browser has a session, which it may end."""
    lacks_address: bool
    """Whether the scene asks phones to come, and they can reach no address."""


@dataclass(frozen=True)
class StageView(SceneView):
    """All that one scene shows on the projector."""

    lanes: tuple[LaneView, ...]
    counts: Counts
    running: Running
    points: list[PointView]
    is_every_sale_a_crash: bool
    journal: Waterfall | None
    audience_address: str
    """Where phones find the shop, in the scene that asks them to; empty where none can."""
    storm: StormView | None
    shortest_way: Loss | None
    limits: tuple[str, ...] = LIMITS
    usual_storm: Plan = storm_page.USUAL


def scene_of(place: Place) -> Scene:
    """The scene that the talk has come to."""
    return SCENES[min(place.scene, len(SCENES) - 1)]


def notes_view() -> NotesView:
    """What the presenter may say now."""
    place = talk_state.read(queries())
    scene = scene_of(place)
    return NotesView(
        scene=scene,
        place=place,
        servers=_servers(scene),
        is_signed_in=access().is_signed_in(request),
        lacks_address=scene.name == "every-sale" and not audience_address(),
    )


def stage_view() -> StageView:
    """The scene as it stands now."""
    place = talk_state.read(queries())
    scene = scene_of(place)
    run = lanes.find(place.run_key) if place.run_key and scene.lanes else None
    ledger = the_shop().ledger.latest()
    has_journal = place.run_key and scene.name == "journal"
    return StageView(
        scene=scene,
        place=place,
        lanes=tuple(_LANES[name](run, place.run_key, ledger) for name in scene.lanes),
        counts=_counts(ledger),
        running=running(),
        points=points(run.crashes if run else ()) if scene.name == "choose" else [],
        is_every_sale_a_crash=EVERY_SALE in crash_points_for_every(),
        audience_address=audience_address() if scene.name == "every-sale" else "",
        servers=_servers(scene),
        storm=storm_page.view() if scene.name == "storm" else None,
        shortest_way=shortest_losses.of_a_sale() if scene.tells_shortest_way else None,
        journal=Waterfall.of(queries().timeline(place.run_key)).in_short() if has_journal else None,
    )


def prepare() -> None:
    """Read the code that is shown now, because its file may be another one by then."""
    for name in _LANES:
        listing.lines_of(name)


def crash_points_for_every() -> set[str]:
    """The names of the points that are armed for every order that passes."""
    return {row.point for row in queries().rows("SELECT point FROM armed_crashes WHERE is_for_every = 1")}


def _servers(scene: Scene) -> tuple[ServerCode, ...]:
    return deploy.servers(queries()) if scene.name == "deploy" else ()


def _durable(run: Run | None, key: str, ledger: Ledger) -> LaneView:
    story = queries().timeline(key) if run and run.order else None
    track = run.track if run else Track.of("the durable order", 0)
    track = track.with_deploys(story.deploys) if story else track
    status = run.order.status if run and run.order else None
    cheated = len({fault.key for line in ledger.invariants for fault in line.faults})
    ending = _ENDINGS[status] if status else ""
    return LaneView("durable", "Durable", track, ending, cheated, 0, listing.durable(story, status))


def _naive(run: Run | None, _key: str, ledger: Ledger) -> LaneView:
    track, code, ending = Track.of("the ordinary order", 0), listing.lines_of("naive"), ""
    if run is not None:
        left = run.naive
        track = left.track
        ending = _LEFT.get(left.sale, "") or (_ENDINGS[Status(left.status)] if left.status else "")
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
