"""Every page and fragment, in every state that an order can be in, as it comes over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest

from store.settings import ROOT
from tests.conftest import NewUrl
from tests.support.gallery import PAYMENT_WINDOW_SECONDS, TICK_SECONDS, Exhibit, catch_orders, catch_sold_out
from tests.support.markup import Markup
from tests.support.shop import Shop
from tests.support.shopper import HTML, Answer, Shopper, eventually, key, timed
from tests.support.standstill import workflows_held

# Back to the store; and, for the presenter, to run it again.
_ENDED = {"GET /", "GET /stage/orders/<id>/again"}
# The heading of each state, what it offers, and which of its parts poll.
_STATES: dict[str, tuple[str, set[str], set[str]]] = {
    "store": ("The Widget", {"POST /buy"}, {"shelf", "recent"}),
    "store, sold out": ("The Widget", set(), {"shelf", "recent"}),
    "store, came too late": ("The Widget", set(), {"shelf", "recent"}),
    "payment, reserving": ("Reserving your widget…", set(), {"payment"}),
    "payment, held": (
        "Your widget is held",
        {"POST /pay/<id> outcome=paid", "POST /pay/<id> outcome=failed", "POST /pay/<id>/more_time"},
        {"payment"},
    ),
    "payment, time up": ("Time is up", set(), {"payment"}),
    "payment, sold out": ("Sold out", set(), {"shelf"}),
    "order, pending": ("Waiting for your payment", {"GET /pay/<id>"}, {"order"}),
    "order, time up": ("Time is up", set(), {"order"}),
    "order, paid": ("Paid. Your widget is on its way", set(), {"order"}),
    "order, dispatched": ("Dispatched", _ENDED, set()),
    "order, declined": ("Payment cancelled", _ENDED, set()),
    "order, expired": ("The payment window closed", _ENDED, set()),
    "order, sold out": ("Sold out", _ENDED, set()),
    "error": ("", {"GET /"}, set()),
}
_FETCHED = frozenset(["src", "href", "action", "formaction", "poster", "srcset", "data", "hx-get", "hx-post"])


@pytest.fixture(scope="module")
def gallery(new_url: NewUrl) -> Iterator[dict[str, Exhibit]]:
    """Every state, caught in two shops: one is held still in the middle of it all, one is empty."""
    shop = Shop(
        new_url(),
        STORE_PAYMENT_WINDOW_SECONDS=PAYMENT_WINDOW_SECONDS,
        STORE_DISPATCH_TICK_SECONDS=TICK_SECONDS,
    )
    empty = Shop(new_url())
    try:
        shown = {**catch_orders(shop), **catch_sold_out(empty)}
        assert shown.keys() == _STATES.keys()
        yield shown
    finally:
        shop.server.close()
        empty.server.close()


@pytest.fixture(params=_STATES)
def state(request: pytest.FixtureRequest) -> str:
    """The name of each state in turn."""
    return str(request.param)


# --- in every state ---------------------------------------------------------------------------


def test_each_state_offers_what_is_legal_and_nothing_else(gallery: dict[str, Exhibit], state: str) -> None:
    """Its heading, its buttons and links; what cannot be done now is not there to be clicked."""
    exhibit, (heading, offers, _) = gallery[state], _STATES[state]
    assert exhibit.page.status == (404 if state == "error" else 200)
    assert exhibit.page.heading == heading or state == "error"
    # A shop that did not open with a hundred units, as the test had it, soon says that its books are red.
    alarm = {"GET /ledger"} if 'class="alarm"' in exhibit.page.text else set()
    assert exhibit.markup.offers - alarm == offers


def test_what_may_change_polls_and_what_is_final_does_not(gallery: dict[str, Exhibit], state: str) -> None:
    """With JavaScript by htmx, without it by a refresh, and neither once nothing can change."""
    markup = gallery[state].markup
    assert set(markup.polled) == _STATES[state][2]
    assert markup.refreshes == bool(markup.polled)
    for element in markup.polled.values():
        assert element.attrs["hx-swap"] == "outerMorph"
        assert element.attrs["hx-status:5xx"] == "swap:none", "a crash leaves what is shown"


def test_a_fragment_is_the_very_piece_of_its_page(gallery: dict[str, Exhibit], state: str) -> None:
    """Keys and counts aside, which may have moved between the two requests."""

    def still(text: str) -> str:
        without_alarm = re.sub(r'<div class="alarm">.*?</div>\s*', "", text, flags=re.DOTALL)
        return re.sub(r'(?<=[="/])[\w-]{22}(?=["/])|\d+', "0", without_alarm).strip()

    exhibit = gallery[state]
    assert bool(exhibit.fragments) == (state != "error")
    for fragment in exhibit.fragments:
        assert fragment.status == 200
        # The window's title comes first, where it changes with the state.
        title, has_title, piece = fragment.text.partition("</title>")
        if not has_title:
            title, piece = "", fragment.text
        assert title in exhibit.page.text
        assert still(piece) in still(exhibit.page.text)


def test_every_page_is_well_formed_and_labelled(gallery: dict[str, Exhibit], state: str) -> None:
    """It parses, has its landmarks and one h1, and everything in it has a name."""
    assert gallery[state].page.text.startswith("<!doctype html>")
    assert list(gallery[state].markup.faults()) == []


def test_every_page_has_one_live_region(gallery: dict[str, Exhibit], state: str) -> None:
    """Two would talk over each other; none would leave a change unsaid."""
    assert len(gallery[state].markup.live_regions) == 1


def test_nothing_is_fetched_from_another_host(gallery: dict[str, Exhibit], state: str) -> None:
    """Every address on the page is one of the shop's own."""
    for element in gallery[state].markup.elements:
        for name in _FETCHED & set(element.attrs):
            assert re.match(r"/(?!/)|#", element.attrs[name]), (
                f"<{element.tag} {name}={element.attrs[name]!r}>"
            )


def test_no_page_is_kept_by_a_cache(gallery: dict[str, Exhibit], state: str) -> None:
    """Going back in the history asks the shop, and finds a new key."""
    for answer in (gallery[state].page, *gallery[state].fragments):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


# --- how it is served -------------------------------------------------------------------------


def test_nothing_static_asks_another_host() -> None:
    """No import, font or picture from elsewhere in what is served."""
    for path in (ROOT / "static").rglob("*"):
        if path.suffix in {".css", ".svg", ".js"}:
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
            assert re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]{2,}\S*", text) == [], path.name


def test_static_files_are_kept_for_a_year_under_their_fingerprint(shopper: Shopper) -> None:
    """All that the page names is there, at an address that changes with its content."""
    tags = Markup(shopper.page("/").text).all("script", "link", "img", "use")
    addresses = {each.attrs.get("src") or each.attrs["href"] for each in tags}
    assert len(addresses) >= 5
    for address in addresses:
        assert re.fullmatch(r"/static/\S+\?v=[0-9a-f]{12}(#\w+)?", address), address
        answer = shopper.get(address.partition("#")[0])
        assert answer.status == 200
        assert "max-age=31536000" in answer.headers["Cache-Control"]
        assert "no-store" not in answer.headers["Cache-Control"]


@pytest.mark.parametrize("part", ["payment", "progress of an order", "newest orders", "shelf"])
def test_an_unchanged_poll_is_answered_with_nothing(shopper: Shopper, part: str) -> None:
    """304 to whoever shows it already, the whole fragment to whoever shows something else."""
    payment_id = shopper.buy()
    path = {
        "payment": f"/pay/{payment_id}/status",
        "progress of an order": f"/orders/{payment_id}/progress",
        "newest orders": "/recent",
        "shelf": f"/shelf?key={key()}",
    }[part]

    def poll() -> tuple[Answer, Answer, Answer]:
        fresh = shopper.get(path)
        tags = (fresh.headers["Hx-Ptag"], "of something else")
        again, other = (shopper.get(path, **{"HX-PTag": tag}) for tag in tags)
        return fresh, again, other

    # Somebody else's order may move between two of them; and what is left to pay in goes on.
    fresh, again, other = eventually(
        poll, lambda answers: answers[1].status == 304 and _still(answers[2]) == _still(answers[0])
    )
    assert (fresh.status, again.text, other.status) == (200, "", 200)
    assert again.headers["Hx-Ptag"] == fresh.headers["Hx-Ptag"]


def _still(answer: Answer) -> str:
    """What it says, but for the time that is left."""
    return re.sub(r'data-left-ms="\d+">[\d:]+|value="\d+" max|\d+ seconds left', "", answer.text)


def test_more_time_is_told_at_once_to_whoever_counts_down(shopper: Shopper) -> None:
    """A poll of the payment page is answered with nothing until something changes that it cannot know."""
    payment_id = shopper.buy()
    tag = shopper.get(f"/pay/{payment_id}/status").headers["Hx-Ptag"]
    shopper.submit(f"/pay/{payment_id}/more_time")
    told = eventually(
        lambda: shopper.get(f"/pay/{payment_id}/status", **{"HX-PTag": tag}),
        lambda answer: "You have had more time once." in answer.text,
    )
    assert (told.status, told.headers["Hx-Ptag"] != tag) == (200, True)


def test_the_steps_of_an_order_are_read_for_whoever_opens_them(shopper: Shopper) -> None:
    """A page that htmx brought asks for them then; one that came without JavaScript has them."""
    payment_id = shopper.buy()
    address = f"/orders/{payment_id}"
    brought = shopper.get(address, **{"HX-Request": "true"}).text
    assert f'hx-get="{address}/timeline"' in brought
    assert 'class="timeline"' not in brought
    assert "One moment: it is being read." in brought
    assert 'class="timeline"' in shopper.get(address).text


def test_every_post_ends_at_an_address_that_can_be_reloaded(shop: Shop, shopper: Shopper) -> None:
    """303, never a page: reloading sends nothing again, and what was settled stays settled."""
    one_key = shopper.page("/").key
    for path, form, leads_to in (
        ("/buy", {"key": one_key}, f"/pay/{one_key}"),
        (f"/pay/{one_key}", {"outcome": "paid"}, f"/orders/{one_key}"),
        (f"/pay/{one_key}", {"outcome": "failed"}, f"/orders/{one_key}"),
        ("/buy", {"key": one_key}, f"/pay/{one_key}"),
        ("/restock", {}, "/"),
    ):
        answer = shopper.submit(path, **form)
        assert (answer.status, answer.location) == (303, leads_to)
        assert shopper.page(leads_to).status in {200, 303}
    assert shop.tables.orders()[one_key] in {"paid", "dispatched"}


@pytest.mark.parametrize("outcome", ["paid", "failed"])
def test_the_payment_page_of_a_settled_order_leads_to_the_order(shopper: Shopper, outcome: str) -> None:
    """For a bookmark, for the back button, and for the poll of a page that was left open."""
    payment_id = shopper.buy()
    shopper.submit(f"/pay/{payment_id}", outcome=outcome)
    page = eventually(lambda: shopper.page(f"/pay/{payment_id}"), lambda page: page.status == 303)
    assert page.location == f"/orders/{payment_id}"
    poll = shopper.page(f"/pay/{payment_id}/status")
    assert (poll.status, poll.text) == (200, "")
    assert json.loads(poll.headers["Hx-Location"]) == {
        "path": f"/orders/{payment_id}",
        "target": "body",
        "replace": "true",
    }


def test_nobody_learns_the_payment_ids_of_others(shop: Shop, shopper: Shopper) -> None:
    """Whoever knows one can pay or cancel: what all can see names orders by number alone."""
    payment_id = shopper.hold()
    order_id = shop.tables.rows("SELECT order_id FROM orders WHERE payment_id = :id", id=payment_id)[0][0]
    ids = shop.tables.orders()
    assert payment_id in ids
    for path in ("/", "/recent", "/orders", f"/order/{order_id}", "/product", f"/shelf?key={key()}"):
        seen = shopper.get(path).text
        assert not [each for each in ids if each in seen], path
    assert f"No. {order_id}" in shopper.page("/").text


def test_every_visit_to_the_store_has_a_key_of_its_own(shopper: Shopper) -> None:
    """128 bits that nobody can guess; the poll of the shelf keeps those of its page."""
    keys = {shopper.page("/").key for _ in range(5)}
    assert len(keys) == 5
    for one_key in keys:
        assert len(one_key) == 22
        assert shopper.page(f"/shelf?key={one_key}").key == one_key


@pytest.mark.parametrize(
    ("headers", "whole"),
    [({}, True), ({"HX-Request": "true", "HX-Boosted": "true"}, True), ({"HX-Request": "true"}, False)],
    ids=["browser", "boosted link", "fragment"],
)
def test_an_error_comes_in_two_sizes(shopper: Shopper, headers: dict[str, str], whole: bool) -> None:
    """A whole page where a page was asked for, the sentence alone where a fragment was.

    Only an open page asks for a fragment, so what is not there was there before: gone.
    """
    answer = shopper.request("GET", f"/orders/{key()}", headers={**HTML, **headers})
    assert answer.status == (404 if whole else 410)
    assert ("<html" in answer.text) == whole
    assert answer.heading


def test_the_page_shows_what_the_database_remembers(shopper: Shopper) -> None:
    """The checkpoints of both workflows, oldest first, the same on the page and in its fragment."""
    payment_id = shopper.buy()
    shopper.confirm(payment_id)

    def steps(path: str) -> list[str]:
        return re.findall(r'<span class="what">.*? <code>(.*?)</code></span>', shopper.page(path).text)

    told = eventually(lambda: steps(f"/orders/{payment_id}/timeline"), lambda steps: "tick 10" in steps)
    assert steps(f"/orders/{payment_id}") == told
    ticks = [f"tick {tick}" for tick in range(1, 11)]
    assert [step for step in told if not step.startswith("DBOS.")] == [
        "reserve",
        "settle",
        "dispatch",
        *ticks,
    ]


def test_a_page_of_trouble_asks_again_at_an_address_that_answers(open_shop: Callable[..., Shop]) -> None:
    """Without JavaScript it refreshes by GET, also where the trouble came of a POST."""
    shop = open_shop()
    with workflows_held(shop.database_url):
        # On a busy machine one may take longer than the two seconds that a page waits at most.
        answer, _ = eventually(
            lambda: timed(lambda: shop.shopper.submit("/buy", key=key())), lambda told: told[1] < 3
        )
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    assert not Markup(answer.text).refreshes or shop.shopper.page("/buy").status != 405
