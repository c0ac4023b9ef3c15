"""The end of a storm: every order is looked at, and held against what its shopper was shown."""

from __future__ import annotations

from collections import Counter
from typing import Any

from store.storm.notes import Notes, Purchase
from store.storm.shoppers import Shopper
from store.vocabulary import LIVE


def look_at_every_order(observer: Shopper, notes: Notes) -> list[Purchase]:
    """Complain where a purchase is not one order, with one number, that ended as its shopper was shown.

    Returns the purchases that are to have made an order.
    """
    for purchase in notes.purchases:
        ending = observer.look(purchase)
        if ending is None and (purchase.may_be_gone or not purchase.is_taken):
            continue  # the shelf was empty, or the click was lost with its checkpoints: no order was made
        if ending is None or ending in LIVE:
            notes.complain(f"order No. {purchase.number} has not ended")
        elif ending not in purchase.may_end_as:
            notes.complain(f"order No. {purchase.number} ended as {ending}, which its shopper did not do")
    made = [
        purchase
        for purchase in notes.purchases
        if (purchase.is_taken and not purchase.may_be_gone) or purchase.number is not None
    ]
    for number, purchases in Counter(_numbers(made)).items():
        if purchases > 1:
            notes.complain(f"order No. {number} was shown to {purchases} shoppers")
    return made


def count_lost(made: list[Purchase]) -> int:
    """Of these, how many did not end as their shopper was shown."""
    return sum(not each.seen or each.seen[-1] not in each.may_end_as for each in made)


def count_doubled(made: list[Purchase]) -> int:
    """How many share an order with another one. Whether one was charged twice, the ledger says."""
    numbers = _numbers(made)
    return len(numbers) - len(set(numbers))


def _numbers(made: list[Purchase]) -> list[int]:
    """Of the orders that were seen; one that never was is lost, and no double of another."""
    return [each.number for each in made if each.number is not None]


def endings_of(notes: Notes) -> dict[str, int]:
    """Orders by what became of them, the most frequent first."""
    return dict(Counter(str(each.seen[-1]) for each in notes.purchases if each.seen).most_common())


def figure(ledger: dict[str, Any], name: str) -> int | None:
    """The last figure of this name in the ledger, if they could be read."""
    found = [line["figures"][name] for line in ledger["lines"] if name in line["figures"]]
    return int(found[-1]) if found else None
