"""The shortest ways to lose something in the ordinary shop, as `python app.py explore --naive` finds them.

That search takes seconds, so what it has found is kept in a file, which it writes itself with `--record`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache

from store.settings import ROOT

FILE = ROOT / "docs" / "shortest_losses.json"
CHARGED = "charged_and_never_shipped"
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ACTOR = re.compile(r"^([A-Z]): (.)")


@dataclass(frozen=True)
class Loss:
    """Something that is lost, and the shortest way to it."""

    name: str
    """As the ledger calls it, or `sold_twice`."""
    what: str
    """"lose $99.99"."""
    steps: tuple[str, ...]
    """In words; whoever takes one stands before it, as in "A: Buy Now is clicked"."""

    @property
    def title(self) -> str:
        """As in "The shortest way to lose $99.99: four steps"."""
        count = len(self.steps)
        number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
        return f"The shortest way to {self.what}: {number} steps"

    @property
    def told(self) -> tuple[str, ...]:
        """The steps; without the name where only one shopper takes any."""
        if len({found[1] for step in self.steps if (found := _ACTOR.match(step))}) > 1:
            return self.steps
        return tuple(_ACTOR.sub(lambda found: found[2].upper(), step) for step in self.steps)


def record(losses: Iterable[Loss]) -> None:
    """Keep what was found.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps([asdict(loss) for loss in losses], indent=2)
    FILE.write_text(f"{text}\n", encoding="utf-8")


@lru_cache(maxsize=1)
def recorded() -> tuple[Loss, ...]:
    """What was found last, the shortest way first."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(Loss(each["name"], each["what"], tuple(each["steps"])) for each in kept)


def of_a_sale() -> Loss:
    """How money is taken, and nothing shipped."""
    [charged] = [loss for loss in recorded() if loss.name == CHARGED]
    return charged
