"""The judges of the other tests, each shown red once: a check that cannot fail proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import schema, workflows
from store.settings import Settings
from store.terms_of_sale import Terms, terms
from store.vocabulary import DISPATCH_TICKS, Outcome
from tests.support.markup import Markup
from tests.support.refusal import is_one_sentence, secrets_told
from tests.support.shopper import Answer
from tests.support.tables import FAULTS, Tables
from tests.support.transactions import plain

pytestmark = pytest.mark.quick

_PLANTED = {
    "an order paid or dispatched without exactly one charge and no refund": (
        "DELETE FROM payments WHERE payment_id = 'dispatched'"
    ),
    "an order pending or cancelled and charged, without a refund": (
        "INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms)"
        " VALUES ('charge', 'pending', 9999, 1)"
    ),
    "a charge that is not the price": "UPDATE payments SET amount_cents = 1",
    "an order that took no unit and should have, or the reverse": (
        "DELETE FROM stock_movements WHERE cause = 'pending'"
    ),
    "an order that ended and kept its unit, or has not and gave it back": (
        "INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms)"
        " VALUES ('release', 'pending', 1, 1, 1)"
    ),
    "units stocked that are not on hand, held or sold": "UPDATE products SET on_hand = on_hand + 1",
    "a shelf that the movements do not add up to": "UPDATE products SET on_hand = on_hand - 1",
    "a unit counted as held for a client, by an order that holds none": (
        "INSERT INTO holds (payment_id, client) VALUES ('dispatched', 'somebody')"
    ),
    "order numbers with a gap": "UPDATE orders SET order_id = 7 WHERE payment_id = 'pending'",
}


@pytest.fixture
def books(tmp_path: Path) -> Tables:
    """Those of a shop with an order that is pending, one that was declined, and one that is dispatched."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    settings = Settings.from_env({"DBOS_DATABASE_URL": url})
    databases = schema.connect(settings)
    terms.set(Terms.of(settings))  # also where a test before this one left others
    reserve, settle = plain(workflows.reserve), plain(workflows.settle)
    with Session(databases.store) as session, session.begin():
        session.connection()
        for payment_id in ("pending", "declined", "dispatched"):
            reserve(session, payment_id, "client")
        settle(session, "declined", Outcome.FAILED)
        settle(session, "dispatched", Outcome.PAID)
        session.execute(
            sa.text("UPDATE orders SET status = 'dispatched', progress = :all WHERE status = 'paid'"),
            {"all": DISPATCH_TICKS},
        )
    databases.close()
    return Tables(url)


def test_the_books_are_right_before_anything_is_planted(books: Tables) -> None:
    """So that what is found below is what was planted; and there is something to plant for each."""
    assert not books.faults()
    assert set(_PLANTED) == set(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(books: Tables, fault: str) -> None:
    """Each by the check that is about it."""
    books.change(_PLANTED[fault])
    assert fault in books.faults()


_PAGE = (
    '<!doctype html><html lang="en"><head><title>A page</title></head><body><header></header>'
    "<main><h1>A page</h1>{}</main><footer></footer></body></html>"
)


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("<p>", "never closed"),
        ("</p>", "closes nothing"),
        ('<p id="a"></p><p id="a"></p>', "twice"),
        ('<p class="a" class="b"></p>', "attribute twice"),
        ("<button></button>", "says nothing"),
        ('<a href="/"></a>', "says nothing"),
        ('<input type="text">', "no label"),
        ("<progress></progress>", "no label"),
        ('<progress aria-label="a" value="11" max="10"></progress>', "stands at 11 of 10"),
        ('<img src="a">', "no alt"),
        ("<svg></svg>", "read aloud"),
        ('<label for="nobody">a</label>', "nobody is nowhere"),
        ('<h2 role="alert">a</h2>', "takes <h2> off"),
        ("<h1>again</h1>", "2 <h1>"),
    ],
)
def test_a_planted_fault_of_a_page_is_found(planted: str, said: str) -> None:
    """By the reader of markup; and a page without one is in order."""
    assert list(Markup(_PAGE.format("<p>a</p>")).faults()) == []
    assert [fault for fault in Markup(_PAGE.format(planted)).faults() if said in fault]


@pytest.mark.parametrize(
    "text", ["No full stop", "Two. Sentences.", "A line\nand another.", "", "What? Indeed.", "Really!"]
)
def test_what_is_not_one_sentence_is_found(text: str) -> None:
    """Or else a refusal could be anything."""
    assert is_one_sentence("One sentence, of version 3.11, is here.")
    assert not is_one_sentence(text)


@pytest.mark.parametrize("told", ["Traceback (most recent call last)", 'File "a.py"', "sqlite3", "SELECT 1"])
def test_a_secret_that_is_told_is_found(told: str) -> None:
    """Or else an error could tell a shopper how the shop is made."""
    assert secrets_told(Answer(500, {}, f"<p>{told}</p>"))
    assert not secrets_told(Answer(500, {}, "<p>Something went wrong on our side.</p>"))
