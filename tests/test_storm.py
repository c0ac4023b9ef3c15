"""The storm, as it is run from a terminal: short, seeded, and able to say that something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from store.config import REFUSED, ROOT
from store.crowd import Shopper
from store.notes import Notes, Purchase
from store.vocabulary import Reason, Status
from tests.conftest import NewUrl, Shop
from tests.support.books import Books
from tests.support.shopper import key


def storm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python app.py storm`, to its end."""
    return subprocess.run(
        [sys.executable, "app.py", "storm", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(240)  # it must come to rest, and every order be looked at
def test_a_storm_leaves_the_books_balanced(new_url: NewUrl) -> None:
    """Ten shoppers, five kills, ten seconds: everybody has the order that they were shown."""
    url = new_url()
    blown = storm(
        "--shoppers", "10", "--seconds", "10", "--kills", "5", "--seed", "7", "--json", "--database", url
    )
    assert blown.returncode == 0, blown.stdout + blown.stderr
    verdict = json.loads(blown.stdout)
    assert verdict["ok"] is True
    assert verdict["kills"] == 5
    assert verdict["refused"] == 0
    assert verdict["complaints"] == []
    assert verdict["ledger"]["balanced"] is True
    assert sum(verdict["endings"].values()) == len(Books(url).orders()) > 5
    assert not Books(url).faults()

    again = storm("--seconds", "1", "--kills", "0", "--database", url)
    assert again.returncode == REFUSED
    assert (
        again.stderr.strip().splitlines()[-1].startswith("widget store: A storm needs a database of its own")
    )


def test_a_storm_without_a_database_leaves_nothing_behind() -> None:
    """A SQLite file that is thrown away; the verdict is for people, and its progress goes elsewhere."""
    blown = storm("--shoppers", "2", "--seconds", "3", "--kills", "1", "--seed", "1")
    assert blown.returncode == 0, blown.stdout + blown.stderr
    assert "The books balance, and every shopper has the order that they were shown." in blown.stdout
    assert "Longest pause" in blown.stdout
    assert "\x1b" not in blown.stdout, "colours are for terminals"


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
    assert shop.books.orders() == {}
