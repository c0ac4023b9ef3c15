"""Every transaction may run again, after any other one, and changes nothing that is done.

A step that commits and dies before its checkpoint runs again, and meanwhile anything else may have
happened. So: from each state that a shop can be in, each transaction runs, then any other one, then the
first again. What it returns must be what is true then, and the books must be right after each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import schema, workflows
from store.settings import Settings
from store.step_results import LOST, REFUSED, PaymentRefused, TooManyGreetings, greeting_now, order_now
from store.terms_of_sale import Terms, terms
from store.vocabulary import DISPATCH_TICKS, GreetingOutcome, Outcome, Reason
from tests.conftest import NewUrl
from tests.support.tables import FAULTS
from tests.support.transactions import plain

PAYMENT, OTHER, GREETING = "payment", "other", "visitor.greeting"
Change = Callable[[Session], Any]


def refused(call: Callable[[], Any]) -> Any:
    """What it returns, or the refusal that it raises."""
    try:
        return call()
    except (PaymentRefused, TooManyGreetings) as refusal:
        return type(refusal).__name__


def notice(outcome: Outcome) -> Change:
    """Word of the payment."""
    return lambda session: refused(lambda: plain(workflows.record_notice)(session, PAYMENT, outcome))


def tick(number: int) -> Change:
    """One tick of the dispatch."""
    return lambda session: workflows._record_tick(session, PAYMENT, number)


CHANGES: Mapping[str, Change] = {
    "reserve": lambda session: plain(workflows.reserve)(session, PAYMENT, "client"),
    "reserve, known to be paid": lambda session: plain(workflows.reserve)(
        session, PAYMENT, None, Outcome.PAID
    ),
    "reserve for another": lambda session: plain(workflows.reserve)(session, OTHER, "client"),
    "notice: paid": notice(Outcome.PAID),
    "notice: failed": notice(Outcome.FAILED),
    "settle": lambda session: plain(workflows.settle)(session, PAYMENT, None),
    "settle by a message": lambda session: plain(workflows.settle)(session, PAYMENT, Outcome.PAID),
    "extend the window": lambda session: plain(workflows.extend_window)(session, PAYMENT),
    **{f"tick {number}": tick(number) for number in (1, 2, DISPATCH_TICKS)},
    "close the books": lambda session: plain(workflows.close)(session, 1),
    "restock": lambda session: plain(workflows.fill_shelf)(session, "restock"),
    "request a greeting": lambda session: refused(
        lambda: plain(workflows.request_greeting)(session, GREETING, "Ada", "client")
    ),
    "begin the greeting": lambda session: plain(workflows.begin_greeting)(session, GREETING, "Ada"),
    "record the greeting": lambda session: (
        plain(workflows.begin_greeting)(session, GREETING, "Ada"),
        plain(workflows.record_greeting)(session, GREETING, "Ada", 7),
    )[1],
    "give the greeting up": lambda session: (
        plain(workflows.begin_greeting)(session, GREETING, "Ada"),
        plain(workflows.end_greeting)(session, GREETING, "Ada", GreetingOutcome.GIVEN_UP, "It is away."),
    )[1],
}
"""The transactions of workflows.py by name; those that a greeting's row must precede, with it."""

STATES: Mapping[str, tuple[str, ...]] = {
    "nothing yet": (),
    "heard of before it is reserved": ("notice: paid",),
    "held": ("reserve",),
    "held for longer": ("reserve", "extend the window"),
    "time is up": ("reserve", "time is up"),
    "heard to be paid": ("reserve", "notice: paid"),
    "heard to have failed, then to be paid": ("reserve", "notice: failed", "notice: paid"),
    "paid": ("reserve", "notice: paid", "settle"),
    "on its way": ("reserve", "notice: paid", "settle", "tick 1"),
    "dispatched": (
        "reserve", "notice: paid", "settle", *["next tick"] * DISPATCH_TICKS,
    ),
    "declined": ("reserve", "notice: failed", "settle"),
    "expired": ("reserve", "time is up", "settle"),
    "expired and paid late": ("reserve", "time is up", "settle", "notice: paid"),
    "sold out": ("empty the shelf", "reserve"),
    "refused": ("one unit each", "reserve for another", "reserve"),
    "greeted": ("record the greeting",),
    "greeting given up": ("give the greeting up",),
}  # fmt: skip
"""How each is come to."""


def next_tick(session: Session) -> None:
    """One more of the dispatch."""
    order = order_now(session, PAYMENT)
    workflows._record_tick(session, PAYMENT, order["progress"] + 1)


def execute(*statements: str) -> Change:
    """Arrange what no transaction of the shop does."""

    def run(session: Session) -> None:
        for statement in statements:
            session.execute(sa.text(statement))

    return run


ARRANGEMENTS: Mapping[str, Change] = {
    "time is up": execute("UPDATE orders SET created_at_ms = 1, pay_by_ms = 2"),
    "empty the shelf": execute(
        "UPDATE products SET on_hand = 0", "UPDATE stock_movements SET units = 0 WHERE cause = 'opening'"
    ),
    "one unit each": lambda _: terms.set(Terms(unpaid_per_client=1)),
    "next tick": next_tick,
}


@pytest.fixture(scope="module")
def engine(new_url: NewUrl) -> Iterator[sa.Engine]:
    """The tables of a new shop."""
    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": new_url()}))
    yield databases.store
    databases.close()


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    """One that is rolled back, so that each test begins with a new shop."""
    terms.set(Terms(unpaid_per_client=0))
    with engine.connect() as connection:
        connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        connection.rollback()
    terms.set(Terms(unpaid_per_client=0))  # "one unit each" is of the test that arranged it


def tables(session: Session) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the shop's tables."""
    names = ("products", "counters", "closings", "orders", "stock_movements", "payments", "payment_notices",
             "holds", "refusals", "greeting_requests", "greetings")  # fmt: skip
    return {
        name: sorted((tuple(row) for row in session.execute(sa.text(f"SELECT * FROM {name}"))), key=repr)  # noqa: S608 - ours
        for name in names
    }


def come_to(session: Session, state: str) -> None:
    for name in STATES[state]:
        ARRANGEMENTS.get(name, CHANGES.get(name, next_tick))(session)


def assert_the_books_are_right(session: Session, story: str) -> None:
    wrong = {
        fault: rows for fault, select in FAULTS.items() if (rows := session.execute(sa.text(select)).all())
    }
    assert not wrong, f"{story}: {wrong}"
    # Only what was paid is ever on its way: by the first word of it, or by a word before it was settled.
    unpaid = session.execute(
        sa.text(
            "SELECT payment_id FROM orders o WHERE status IN ('paid', 'dispatched') AND NOT EXISTS"
            " (SELECT 1 FROM payment_notices n WHERE n.payment_id = o.payment_id AND n.outcome = 'paid')"
        )
    ).all()
    assert not unpaid, story


def assert_it_is_true(session: Session, name: str, returned: Any, story: str) -> None:
    """What a transaction of an order or a greeting returns is what its row says."""
    if name.startswith(("reserve", "settle", "extend", "tick", "notice")) and name != "reserve for another":
        if returned == "PaymentRefused":
            assert order_now(session, PAYMENT)["status"] == REFUSED, story
        else:
            assert returned == order_now(session, PAYMENT), story
    elif "greeting" in name:
        assert returned == greeting_now(session, GREETING), story


@pytest.mark.first_of_all
@pytest.mark.sampled(96)
@pytest.mark.parametrize("first", CHANGES)
@pytest.mark.parametrize("state", STATES)
def test_it_runs_again_after_any_other(session: Session, state: str, first: str) -> None:
    """What each of the three returns is true, and the books are right in the end."""
    come_to(session, state)
    assert_the_books_are_right(session, state)
    for between in CHANGES:
        with session.begin_nested() as savepoint:
            story = f"{state}: {first}, {between}, {first}"
            for name in (first, between, first):
                assert_it_is_true(session, name, CHANGES[name](session), story)
            assert_the_books_are_right(session, story)
            savepoint.rollback()


@pytest.mark.first_of_all
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("state", STATES)
def test_it_changes_nothing_the_second_time(session: Session, state: str, change: str) -> None:
    """Run twice in a row, it is run once: every row of every table is as it was."""
    come_to(session, state)
    CHANGES[change](session)
    once = tables(session)
    CHANGES[change](session)
    assert tables(session) == once


def test_an_order_that_was_cancelled_is_not_paid_by_a_second_run(session: Session) -> None:
    """Expired and committed; then a payment comes; then the step runs again, and says what is true."""
    come_to(session, "expired")
    CHANGES["notice: paid"](session)
    assert CHANGES["settle"](session)["status"] == "cancelled"
    reason = session.execute(sa.text("SELECT reason FROM orders")).scalar_one()
    assert reason == Reason.EXPIRED


def test_the_earliest_word_decides_though_both_came_in_one_millisecond(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with a clock that is set back between them."""
    come_to(session, "held")
    for name, clock_ms in (("notice: failed", 2_000_000_000_000), ("notice: paid", 1_999_999_999_000)):
        monkeypatch.setattr(workflows, "now_ms", lambda clock_ms=clock_ms: clock_ms)
        CHANGES[name](session)
    assert CHANGES["settle"](session)["status"] == "cancelled"


def test_a_tick_of_an_order_that_is_lost_says_so(session: Session) -> None:
    """Zero rows changed is not taken for success."""
    assert CHANGES["tick 1"](session)["status"] == LOST
    assert CHANGES["settle"](session)["status"] == LOST


def test_a_tick_goes_on_from_where_the_order_is(session: Session) -> None:
    """A run that thinks it is at tick 8 of an order that an older copy has at 1 is told so."""
    come_to(session, "on its way")
    assert workflows._record_tick(session, PAYMENT, 8)["progress"] == 1
