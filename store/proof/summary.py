"""What a page shows of the record: runs, totals, and who caught which planted bug."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from store.proof.claims import CLAIMS, NOT_CLAIMED, Claim
from store.proof.record import GREEN, BadRecord, Run, read

_NAMES = {"explore": "Every schedule", "storm": "Storm", "planted": "Planted bugs"}
CHECKS = ("explorer", "storm", "suite")
"""Who may catch a planted bug."""
NOT_TRIED = "not tried"


def has_caught(said: str) -> bool:
    """Whether a check that said this of a planted bug has caught it."""
    return said not in {"", NOT_TRIED}


@dataclass(frozen=True)
class Shown:
    """One run, in words."""

    name: str
    date: str
    verdict: str
    counts: str
    seconds: str
    commit: str
    command: str
    machine: str
    wrong: tuple[str, ...]
    """The first things that were wrong."""

    @property
    def state(self) -> str:
        """How it is marked."""
        return "holds" if self.verdict == GREEN else "broken"


@dataclass(frozen=True)
class Planted:
    """One planted bug, and what each check said of it, in the order of `CHECKS`."""

    name: str
    said: tuple[str, ...]

    @property
    def catchers(self) -> str:
        """Who has caught it."""
        found = [check for check, said in zip(CHECKS, self.said, strict=True) if has_caught(said)]
        return " and ".join(found) if found else "nobody"

    @property
    def evidence(self) -> Iterator[tuple[str, str]]:
        """Each check and what it said, for people."""
        for check, said in zip(CHECKS, self.said, strict=True):
            yield check, said or "did not catch it"


@dataclass(frozen=True)
class Summary:
    """The record, as pages show it."""

    trouble: str
    """Why it cannot be read; nothing if it can."""
    runs: tuple[Shown, ...]
    """The newest first."""
    totals: Mapping[str, int]
    planted: tuple[Planted, ...]
    """Of the newest run that planted any."""
    claims: tuple[Claim, ...] = CLAIMS
    not_claimed: tuple[str, ...] = NOT_CLAIMED

    @classmethod
    def of(cls, runs: tuple[Run, ...]) -> Summary:
        """What these runs come to."""
        planted = [run for run in runs if run.kind == "planted"]
        return cls("", tuple(map(_shown, reversed(runs))), _totals(runs), _planted(planted[-1:]))


def load() -> Summary:
    """The record as it is now."""
    try:
        return Summary.of(read())
    except BadRecord as trouble:  # a shop opens though its record cannot be read, and says so
        return Summary(str(trouble), (), {}, ())


def _planted(newest: list[Run]) -> tuple[Planted, ...]:
    return tuple(
        Planted(each["bug"], tuple(each.get(check, NOT_TRIED) for check in CHECKS))
        for run in newest
        for each in run.caught
    )


def _totals(runs: tuple[Run, ...]) -> dict[str, int]:
    def total(kind: str, count: str) -> int:
        return sum(run.counts.get(count, 0) for run in runs if run.kind == kind)

    return {
        "runs on record": len(runs),
        "of them not green": sum(run.verdict != GREEN for run in runs),
        "kills": total("storm", "kills"),
        "orders in storms": total("storm", "orders"),
        "states explored": total("explore", "states"),
    }


def _counted(count: int, name: str) -> str:
    """As one says it, where the name is of several: "1 postmaster killed" of `postmasters_killed`."""
    words = name.replace("_", " ")
    if count == 1:
        words = re.sub(r"^(\w+)s\b", r"\1", words)
    return f"{count:,} {words}"


def _shown(run: Run) -> Shown:
    machine = run.machine
    load = "" if run.load is None else f" under a load of {run.load:g}"
    return Shown(
        name=f"{_NAMES.get(run.kind, run.kind)}, {run.database}",
        date=run.date.replace("T", " ").replace("+00:00", " UTC"),
        verdict=run.verdict,
        counts=", ".join(_counted(count, name) for name, count in run.counts.items()),
        seconds=f"{run.seconds:,.0f} s",
        commit=run.commit[:10] + (" with changes" if run.has_changes else ""),
        command=run.command,
        machine=f"{machine.cores} cores{load}, {machine.processor}, {machine.system}, "
        f"Python {machine.python}",
        wrong=run.wrong,
    )
