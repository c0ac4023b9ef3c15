"""What may happen in an explored shop: who clicks what, what the bank says, and how often a server dies."""

from __future__ import annotations

from dataclasses import dataclass

from store.vocabulary import Outcome


@dataclass(frozen=True)
class Action:
    """Something that comes from outside, once, at any time after what it needs."""

    kind: str
    """`buy`, `notice`, `extend`, `restock`, `greet`, or `mend`."""
    key: str
    outcome: Outcome | None = None
    client: str = ""
    after: int | None = None
    """The action that has to have come before, as it would be the same otherwise."""

    @property
    def words(self) -> str:
        """What it is, for people."""
        has_paid = "paid" if self.outcome == Outcome.PAID else "not paid"
        return {
            "buy": f"{self.key} clicks Buy Now" + (" again" if self.after is not None else ""),
            "notice": f"The bank says that {self.key} has {has_paid}",
            "extend": f"{self.key} asks for more time",
            "restock": "The shelf is to be filled",
            "greet": f"{self.key} signs the guestbook",
            "mend": f"An operator has what {self.key} began run again from its first line",
        }[self.kind]


@dataclass(frozen=True)
class Scenario:
    """The scope of one search: everything in it happens in every order, or does not happen."""

    name: str
    actions: tuple[Action, ...]
    units: int = 1
    crashes: int = 0
    takeovers: int = 0
    """Servers that are declared dead and go on beside the next one."""
    guestbook_deaths: int = 0
    mendings: int = 0
    unpaid_per_client: int = 0


def _buy(key: str, **more: object) -> Action:
    return Action("buy", key, client=str(more.get("client", key)))


def _paid(key: str, after: int | None = None) -> Action:
    return Action("notice", key, Outcome.PAID, after=after)


def _failed(key: str) -> Action:
    return Action("notice", key, Outcome.FAILED)


def _again(key: str, first: int) -> Action:
    return Action("buy", key, client=key, after=first)


_ONE = (_buy("A"), _paid("A"), _failed("A"))
_TWO = (_buy("A"), _buy("B"))

ONE_CRASH = Scenario("one order, a crash", _ONE, crashes=1)
"""Paid or declined in every order, or neither: what most mistakes show in."""
BOTH_PAID = Scenario("one unit for two, no crash", (*_TWO, _paid("A"), _paid("B")))
WHOLE = (
    ONE_CRASH,
    Scenario("one order, two crashes", _ONE, crashes=2),
    Scenario("told twice and clicked twice, a crash", (*_ONE, _paid("A", 1), _again("A", 0)), crashes=1),
    Scenario("paid, a zombie", (_buy("A"), _paid("A")), takeovers=1),
    Scenario("paid, a zombie and a crash", (_buy("A"), _paid("A")), crashes=1, takeovers=1),
    Scenario("more time, two crashes", (_buy("A"), _paid("A"), Action("extend", "A")), crashes=2),
    Scenario("more time, a zombie", (_buy("A"), _paid("A"), Action("extend", "A")), takeovers=1),
    Scenario("one unit for two, paid, a crash", (*_TWO, _paid("A")), crashes=1),
    Scenario("one unit for two, declined, a crash", (*_TWO, _failed("A")), crashes=1),
    Scenario("one unit for two, a zombie", _TWO, takeovers=1),
    Scenario("sold out and restocked, a crash", (*_TWO, Action("restock", "R")), crashes=1),
    Scenario(
        "one unpaid unit each, a crash",
        (_buy("A", client="C"), _buy("B", client="C"), _paid("B")),
        units=2,
        crashes=1,
        unpaid_per_client=1,
    ),
    BOTH_PAID,
    Scenario("one unit for two, declined and bought", (*_TWO, _failed("A"), _paid("B"))),
    Scenario("sold out, paid and restocked", (*_TWO, _paid("A"), Action("restock", "R"))),
    Scenario(
        "one unpaid unit each, both paid",
        (_buy("A", client="C"), _buy("B", client="C"), _paid("A"), _paid("B")),
        units=2,
        unpaid_per_client=1,
    ),
    Scenario(
        "a greeting, two crashes",
        (Action("greet", "G"), Action("greet", "G", after=0)),
        crashes=2,
        guestbook_deaths=2,
    ),
    Scenario(
        "a greeting, a zombie and a crash",
        (Action("greet", "G"),),
        takeovers=1,
        crashes=1,
        guestbook_deaths=1,
    ),
    Scenario(
        "a greeting run again from its first line",
        (Action("greet", "G"), Action("mend", "G.greeting")),
        guestbook_deaths=2,
        mendings=1,
    ),
    Scenario("run again from its first line", _ONE, mendings=1, crashes=1),
)
"""All that happens, each with what it can meet, and not everything at once: that would take hours."""
QUICK = (
    Scenario("paid, a crash", (_buy("A"), _paid("A")), crashes=1),
    Scenario("unpaid, a zombie", (_buy("A"),), takeovers=1),
    BOTH_PAID,
    Scenario("a greeting, a crash", (Action("greet", "G"),), crashes=1, guestbook_deaths=1),
    Scenario("a restock, a crash", (_buy("A"), Action("restock", "R")), crashes=1),
    Scenario(
        "one unpaid unit, no crash",
        (_buy("A", client="C"), _buy("B", client="C")),
        units=2,
        unpaid_per_client=1,
    ),
)
BY_NAME = {scenario.name: scenario for scenario in (*QUICK, *WHOLE)}
