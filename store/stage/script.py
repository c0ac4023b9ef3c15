"""The talk, scene by scene: what the audience reads, what the presenter does there, and what they may say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Act(StrEnum):
    """What going on does in a scene, before it leads to the next one."""

    SELL = "sell"
    """The same sale in both lanes."""
    SELL_AND_CRASH = "sell_and_crash"
    """The same, and the server dies at tick 5."""
    SELL_AND_DEPLOY = "sell_and_deploy"
    """The same, and the server is replaced at tick 5, in good order, by the code that is on the disk then."""


@dataclass(frozen=True)
class Term:
    """A word that a scene uses, and what it means."""

    word: str
    meaning: str


_TICK = Term("tick", "one of the ten beads: a second of shipping, counted in the order's row")
_CHECKPOINT = Term("checkpoint", "the row that says that a step is done")


@dataclass(frozen=True)
class Scene:
    """One scene."""

    name: str
    sentence: str
    """What the audience reads."""
    note: str
    """What the presenter may say, for their own screen."""
    act: Act | None = None
    lanes: tuple[str, ...] = ()
    """Whose track and code are shown: `durable`, `naive`, or both."""
    terms: tuple[Term, ...] = ()
    """What is explained there: the scene uses it first, or those before it may be left out."""
    tells_shortest_way: bool = False
    """Whether it says in how few steps the ordinary shop loses money."""


SCENES: tuple[Scene, ...] = (
    Scene(
        "hands-up",
        "Who has lost an order to a crash?",
        "Hands up. Then ask who could prove that they have not. Money is taken in one system and goods leave"
        " from another; between the two stands a process that may die.",
    ),
    Scene(
        "calm",
        "Two shops, the same sale.",
        "Go on, and one click buys in both. The code below is read from the running program: the left one is"
        " durable, the right one is written the ordinary way. Let them see how little differs.",
        Act.SELL,
        ("durable", "naive"),
        (_TICK,),
    ),
    Scene(
        "naive",
        "The ordinary shop takes the money, and never ships.",
        "Go on, and the server is killed at tick 5, the fifth bead: SIGKILL, not an exception. Nobody is"
        " there any more who knows what was to be done next. The customer has paid.",
        Act.SELL_AND_CRASH,
        ("naive",),
        tells_shortest_way=True,
    ),
    Scene(
        "durable",
        "The same crash, durable: it ships.",
        "It is the same run and the same dead process. The crack in the track is as wide as the shop was"
        " dark. The grey lines were remembered and not run again; the lit one is where it went on.",
        None,
        ("durable",),
    ),
    Scene(
        "journal",
        "What it remembers is in the database.",
        "Each step left a row, its checkpoint, before the next one began. One step was done and had no"
        " checkpoint yet when the server died: it was run again, and its guard made it the same.",
        terms=(_CHECKPOINT,),
    ),
    Scene(
        "choose",
        "You choose: where shall it die?",
        "Let the audience pick. Press its number, then go on: the sale runs, its server dies exactly there,"
        " and the place stays marked. Between the charge and its checkpoint is the one that engineers ask"
        " for: the money is taken, and the row that says so to the workflow is not there yet. A sale passes"
        " the first four and the sixth; a cancellation the fifth; only a crash the seventh.",
        Act.SELL,
        ("durable", "naive"),
        (_CHECKPOINT, Term("tick", "one of the ten beads")),
    ),
    Scene(
        "every-sale",
        "Now every sale is a crash.",
        "Press E to begin and to end. Each Buy Now of anybody kills the server after the unit is reserved."
        " Let them buy on their phones, and watch the last two numbers.",
    ),
    Scene(
        "storm",
        "A storm over this very shop.",
        "Press B. Thirty shoppers buy for a minute, and the server is killed fifteen times. The ordinary shop"
        " has the same sales and the same kills. At the end every order is looked at, and held against what"
        " its shopper was shown.",
    ),
    Scene(
        "deploy",
        "New code, in the middle of an order.",
        "First change a line of the shop in your editor, and save: a word on a page will do. Go on, and at"
        " tick 5, the fifth bead, the server is stopped in good order, and the new code starts. Nobody died,"
        " so it is no crash and leaves no crack: a flag says that from here the new code went on. Where two"
        " servers have the same code, nothing was changed, and there is no flag.",
        Act.SELL_AND_DEPLOY,
        ("durable",),
    ),
    Scene(
        "books",
        "And the books balance.",
        "Every unit and every cent is counted from rows that are only ever added, and compared with what the"
        " workflows remember.",
    ),
    Scene(
        "limits",
        "What it does not do.",
        "Be honest, and they will believe the rest.",
    ),
)

LIMITS: tuple[str, ...] = (
    "A bug is still a bug: what a wrong step has done is done.",
    "Another service must know a repeated request, or it acts on it twice.",
    "Lose the database, and you lose the shop: back it up.",
    "While every server is down, customers wait.",
)
"""Of the last scene."""
