"""Every page in every state that it has, standing still, so that it can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from store.vocabulary import greeting_id
from store.web.every_request import OF_BEFORE
from tests.support.shop import Shop
from tests.support.shopper import eventually, key
from tests.support.standstill import buy_too_late

_SECRET = "whsec_" + "A" * 40 + "="


class View(NamedTuple):
    """One page in one state."""

    shop: Shop
    path: str
    heading: str


VIEWS = (
    "store",
    "store-without-orders",
    "store-sold-out",
    "store-came-too-late",
    "pay",
    "pay-extended",
    "pay-elsewhere",
    "pay-reserving",
    "pay-settling",
    "pay-sold-out",
    "pay-refused",
    "pay-time-is-up",
    "order-pending",
    "order-settling",
    "order-time-is-up",
    "order-paid",
    "order-under-way",
    "order-dispatched",
    "order-declined",
    "order-expired",
    "order-sold-out",
    "order-refunded",
    "guestbook",
    "greeting-signing",
    "greeting-kept-waiting",
    "greeting-signed",
    "greeting-done",
    "greeting-given-up",
    "greeting-refused",
    "lanes",
    "lanes-run",
    "lanes-broken",
    "crash-points",
    "faults",
    "run-again",
    "stage-hands-up",
    "stage-two-shops",
    "stage-choose",
    "stage-every-sale",
    "stage-deploy",
    "stage-notes",
    "storm-none",
    "storm-blowing",
    "reset",
    "sign-in",
    "gone",
    "books",
    "books-late",
    "books-broken",
    "proof",
    "not-found",
    "away",
)
NOT_FOUND_OR_AWAY = "404|410|503"
"""What a browser says by itself of the last two, and of what is gone."""


class Gallery:
    """Shops where nothing moves by itself, with an order in every state."""

    def __init__(self, open_still: Callable[..., Shop], guestbook_url: str) -> None:
        self._shop = open_still(STORE_UNPAID_PER_CLIENT=5)
        # With a secret, a provider says what is paid. Its one order is overdue.
        self._late = open_still(STORE_WEBHOOK_SECRET=_SECRET)
        self._broken_lanes = open_still(STORE_GUESTBOOK_URL=guestbook_url)
        # A database that answers no page: its table of products is away.
        self._away = open_still(STORE_GUESTBOOK_URL="http://127.0.0.1:9")
        self._empty = open_still(STORE_GUESTBOOK_URL=guestbook_url, STORE_AUDIENCE_HOST="192.0.2.7")
        # Nobody buys here; a greeting comes to its end.
        self._new = open_still(STORE_GUESTBOOK_URL=guestbook_url, STORE_DISPATCH_TICK_SECONDS=0.01)
        self._empty.tables.stock(1)
        self._behind_a_password = open_still(STORE_PRESENTER_PASSWORD=key())
        self._reset_long_ago(self._new)
        pending, late = self._shop.shopper.buy(), self._shop.shopper.buy()
        self._change(late, "UPDATE orders SET pay_by_ms = created_at_ms + 1 WHERE payment_id = :id")
        extended = self._shop.shopper.buy()
        self._shop.shopper.submit(f"/pay/{extended}/more_time")
        expired = self._cancelled()
        self._change(expired, "UPDATE orders SET reason = 'expired' WHERE payment_id = :id")
        # A checkout that DBOS knows, and whose order is not there: as it is before `reserve`.
        reserving = self._cancelled()
        self._change(reserving, "DELETE FROM orders WHERE payment_id = :id")
        sold_out = buy_too_late(self._empty)
        heard = self._shop.shopper.buy()
        self._change(
            heard,
            "INSERT INTO payment_notices (payment_id, outcome, received_at_ms) VALUES (:id, 'paid', 1)",
        )
        refunded = self._cancelled()
        self._shop.shopper.confirm(refunded)
        on_its_way = "Paid. Your widget is on its way"
        overdue = self._late.shopper.buy()
        paying_elsewhere = self._late.shopper.buy()
        self._late.tables.change(
            "UPDATE orders SET created_at_ms = 1, pay_by_ms = 2 WHERE payment_id = :id", id=overdue
        )
        self._late.shopper.submit("/stage/crashes/recovery", do="arm")  # it recovers from nothing
        for shop, scene in ((self._shop, 1), (self._late, 5), (self._empty, 6), (self._broken_lanes, 8)):
            for moves in range(scene):
                shop.shopper.submit("/stage", do="go", moves=str(moves))
        self._storm(pending, late)
        kept_waiting = self._kept_waiting()
        run_to_its_end = self._broken_run()
        self._away.tables.change("ALTER TABLE products RENAME TO away")
        self._views = {
            "store": View(self._shop, "/", "The Widget"),
            "store-without-orders": View(self._new, "/", "The Widget"),
            "store-sold-out": View(self._empty, "/", "The Widget"),
            "store-came-too-late": View(self._empty, f"/?key={key()}", "The Widget"),
            "pay": View(self._shop, f"/pay/{pending}", "Your widget is held"),
            "pay-extended": View(self._shop, f"/pay/{extended}", "Your widget is held"),
            "pay-elsewhere": View(self._late, f"/pay/{paying_elsewhere}", "Your widget is held"),
            "pay-settling": View(self._shop, f"/pay/{heard}", "Settling your payment…"),
            "pay-reserving": View(self._shop, f"/pay/{reserving}", "Reserving your widget…"),
            "pay-sold-out": View(self._empty, f"/pay/{sold_out}", "Sold out"),
            "pay-time-is-up": View(self._shop, f"/pay/{late}", "Time is up"),
            "crash-points": View(self._late, "/stage/crashes", "Where to crash"),
            "faults": View(self._late, "/stage/faults", "Faults and shelf"),
            "run-again": View(self._shop, f"/stage/orders/{expired}/again", "Run it again"),
            "stage-hands-up": View(self._new, "/stage", "Who has lost an order to a crash?"),
            "stage-two-shops": View(self._shop, "/stage", "Two shops, the same sale."),
            "stage-choose": View(self._late, "/stage", "You choose: where shall it die?"),
            "stage-every-sale": View(self._empty, "/stage", "Now every sale is a crash."),
            "stage-deploy": View(self._broken_lanes, "/stage", "New code, in the middle of an order."),
            "stage-notes": View(self._late, "/stage/notes", "You choose: where shall it die?"),
            "storm-none": View(self._new, "/stage/storm", "The storm"),
            "storm-blowing": View(self._shop, "/stage/storm", "The storm"),
            "sign-in": View(self._behind_a_password, "/stage/sign_in", "Sign in"),
            "gone": View(self._new, f"/orders/{key()}", OF_BEFORE),
            "reset": View(self._shop, "/stage/reset", "Begin anew"),
            "order-declined": View(self._shop, f"/orders/{self._cancelled()}", "Payment cancelled"),
            "order-expired": View(self._shop, f"/orders/{expired}", "The payment window closed"),
            "order-dispatched": View(self._shop, f"/orders/{self._paid(10)}", "Dispatched"),
            "order-under-way": View(self._shop, f"/orders/{self._paid(4)}", on_its_way),
            "order-paid": View(self._shop, f"/orders/{self._paid(0)}", on_its_way),
            "order-time-is-up": View(self._shop, f"/orders/{late}", "Time is up"),
            "order-sold-out": View(self._empty, f"/orders/{sold_out}", "Sold out"),
            "order-refunded": View(self._shop, f"/orders/{refunded}", "Payment cancelled"),
            "order-pending": View(self._shop, f"/orders/{pending}", "Waiting for your payment"),
            "order-settling": View(self._shop, f"/orders/{heard}", "Settling your payment…"),
            "guestbook": View(self._new, "/guestbook", "The guestbook"),
            "greeting-done": View(self._new, f"/greetings/{self._greeted()}", "Thank you for being awesome"),
            "greeting-signing": self._greeting("Grace Hopper", "Signing the online guestbook…"),
            "greeting-signed": self._greeting(
                "Alan Turing", "Signed in the online guestbook, not yet in ours", signature=7
            ),
            "greeting-given-up": self._greeting(
                "Edsger Dijkstra", "The guestbook did not answer in time", outcome="given_up"
            ),
            "greeting-refused": self._greeting(
                "Barbara Liskov", "The guestbook refused your name", outcome="refused"
            ),
            "greeting-kept-waiting": View(
                self._away, f"/greetings/{kept_waiting}", "The guestbook keeps you waiting"
            ),
            "lanes": View(self._new, "/lanes", "Side by side"),
            "lanes-run": View(self._empty, f"/lanes/{self._run()}", "Side by side"),
            "lanes-broken": View(self._broken_lanes, f"/lanes/{run_to_its_end}", "Side by side"),
            "books": View(self._empty, "/ledger", "The books"),
            "books-late": View(self._late, "/ledger", "The books"),
            # What is arranged above, no shop would do.
            "books-broken": View(self._shop, "/ledger", "The books"),
            "proof": View(self._new, "/proof", "Proof"),
            "not-found": View(self._shop, "/nowhere", "There is nothing at this address"),
            "away": View(self._away, "/", "The shop is catching its breath"),
        }
        # The three above hold a unit each, and after this one there is none left for whoever has them.
        self._shop.shopper.buy()
        refused = self._shop.shopper.buy()
        self._views["pay-refused"] = View(self._shop, f"/pay/{refused}", "Too many unpaid orders")
        assert set(self._views) == set(VIEWS)

    def __getitem__(self, name: str) -> View:
        """The view of that name."""
        return self._views[name]

    @staticmethod
    def _reset_long_ago(shop: Shop) -> None:
        """A server that sees a reset ends, so it is not there meanwhile."""
        shop.server.stop()
        shop.tables.change("INSERT INTO last_reset (only_row, at_ms, guestbook_kept) VALUES (1, 1, '')")
        shop.server.restart()

    def close(self) -> None:
        """Close its shops."""
        for shop in (
            self._behind_a_password,
            self._shop,
            self._late,
            self._broken_lanes,
            self._away,
            self._empty,
            self._new,
        ):
            shop.server.close()

    def _greeted(self) -> str:
        one_key = key()
        self._new.shopper.submit("/guestbook", key=one_key, name="Ada Lovelace")
        eventually(
            lambda: self._new.shopper.page(f"/greetings/{one_key}").text,
            lambda text: "Thank you for being awesome" in text,
        )
        return one_key

    def _kept_waiting(self) -> str:
        one_key = key()
        self._away.shopper.submit("/guestbook", key=one_key, name="Margaret Hamilton")
        eventually(
            lambda: self._away.shopper.page(f"/greetings/{one_key}").heading,
            lambda heading: heading == "The guestbook keeps you waiting",
        )
        return one_key

    def _greeting(self, name: str, heading: str, *, signature: int = 0, outcome: str | None = None) -> View:
        """One that stands where no workflow will move it."""
        one_key = key()
        self._empty.tables.change(
            "INSERT INTO greeting_requests"
            " (greeting_id, name, client, asked_at_ms, give_up_at_ms, outcome, reason)"
            " VALUES (:id, :name, '', 1, 2, :outcome, :reason)",
            id=greeting_id(one_key),
            name=name,
            outcome=outcome,
            reason="The guestbook cannot be reached." if outcome else None,
        )
        if signature:
            self._empty.tables.change(
                "INSERT INTO greetings (greeting_id, name, signature, recorded_at_ms)"
                " VALUES (:id, :name, :signature, 1)",
                id=greeting_id(one_key),
                name=name,
                signature=signature,
            )
        return View(self._empty, f"/greetings/{one_key}", heading)

    def _run(self, shop: Shop | None = None) -> str:
        shop = shop or self._empty
        one_key = shop.shopper.page("/lanes").key
        shop.shopper.submit("/lanes", key=one_key)
        return one_key

    def _broken_run(self) -> str:
        """One whose server has died: the durable lane came to its end, and the naive one to none."""
        shop = self._broken_lanes
        one_key = self._run(shop)
        shop.shopper.wait_for(one_key, "Paid. Your widget is on its way")
        eventually(lambda: shop.tables.rows("SELECT 1 FROM naive_orders"), bool)
        shop.tables.change("INSERT INTO naive_payments SELECT payment_id, 9999 FROM naive_orders")
        shop.tables.change("UPDATE naive_orders SET status = 'paid', progress = 3")
        move(shop, one_key, 10)
        eventually(lambda: shop.tables.rows("SELECT 1 FROM greeting_requests"), bool)
        shop.tables.change("UPDATE greeting_requests SET outcome = 'greeted'")
        shop.tables.change(
            "INSERT INTO executors (number, executor_id, machine, pid, started_at_ms)"
            " SELECT number + 1, executor_id || '.next', machine, pid, started_at_ms FROM executors"
        )
        return one_key

    def _storm(self, *payment_ids: str) -> None:
        """One that blows and has no process: the first shoppers have these orders, the others none."""
        self._shop.tables.change(
            "INSERT INTO storms (number, secret, shoppers, seconds, kills, seed, phase, is_on, asked_at_ms,"
            " began_at_ms, heard_at_ms, killed, answered, sent_again, refused, unanswered)"
            " VALUES (1, 'secret', 12, 60, 15, 1, 'blowing', 1, 1, 1, 9000000000000, 3, 40, 2, 0, 0)"
        )
        for shopper, payment_id in enumerate(payment_ids):
            self._shop.tables.change(
                "INSERT INTO storm_sales (storm, shopper, sale, payment_id) VALUES (1, :shopper, 1, :id)",
                shopper=shopper,
                id=payment_id,
            )

    def _cancelled(self) -> str:
        payment_id = self._shop.shopper.buy()
        self._shop.shopper.cancel(payment_id)
        self._shop.shopper.wait_for(payment_id, "Payment cancelled")
        return payment_id

    def _paid(self, progress: int) -> str:
        payment_id = self._shop.shopper.buy()
        self._shop.shopper.confirm(payment_id)
        self._shop.shopper.wait_for(payment_id, "Paid. Your widget is on its way")
        if progress:
            move(self._shop, payment_id, progress)
        return payment_id

    def _change(self, payment_id: str, statement: str) -> None:
        self._shop.tables.change(statement, id=payment_id)


def move(shop: Shop, payment_id: str, progress: int) -> None:
    """Write an order's progress into its row, as a tick of its dispatch does."""
    shop.tables.change(
        "UPDATE orders SET progress = :progress, status = :status WHERE payment_id = :payment_id",
        progress=progress,
        status="dispatched" if progress == 10 else "paid",
        payment_id=payment_id,
    )


def row(shop: Shop, payment_id: str) -> Any:
    """An order as its table has it."""
    return shop.tables.rows("SELECT * FROM orders WHERE payment_id = :id", id=payment_id)[0]
