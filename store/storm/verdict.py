"""What a storm is told, what it tells, and its verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from store.serving.supervised_programs import Program
from store.serving.supervisor import Supervisor
from store.stage import storm_state
from store.stage.storm_picture import Death, Result
from store.stage.storm_state import Request
from store.storm.adoptions import Adoptions
from store.storm.notes import Notes

_KILLS_FOR_A_POINT = 5
"""With fewer kills for each, chance may well leave one out."""


class Landed(StrEnum):
    """What may be done to a shop."""

    SERVER_KILLED = "server killed"
    MACHINE_KILLED = "machine killed"
    SERVER_FROZEN = "server frozen past its lease"
    MACHINE_FROZEN = "machine frozen past its lease"
    POSTMASTER_KILLED = "postmaster killed"


@dataclass(frozen=True)
class Plan:
    """What is to happen in it. The same seed makes the same choices; what they meet is up to the machine."""

    shoppers: int
    seconds: float
    kills: int
    seed: int
    faults: bool = False
    """Whether other things happen beside the kills."""
    processes: int = 1
    """Servers on each machine that share its requests; of several, some stand still past their lease."""
    machines: int = 1
    """Of several, whole ones are killed and frozen, too."""
    kills_postmaster: bool = False
    """Whether the first process of the storm's own Postgres is killed, once."""

    @property
    def command(self) -> str:
        """What makes the same choices again; it does not name the database."""
        return (
            f"python app.py storm --shoppers {self.shoppers} --seconds {self.seconds:g} --kills {self.kills}"
            f" --seed {self.seed}"
            + (" --faults" if self.faults else "")
            + (f" --processes {self.processes}" if self.processes > 1 else "")
            + (f" --machines {self.machines}" if self.machines > 1 else "")
            + (" --postmaster" if self.kills_postmaster else "")
        )


@dataclass(frozen=True)
class Progress:
    """How far it is."""

    phase: str
    seconds: float
    kills: int
    orders: int
    longest_pause_seconds: float
    fault: str = ""
    """What else happens at the moment, and for how long."""


class Trouble(Protocol):
    """What happens beside the kills."""

    program: Program
    """The servers that it can do that to."""

    def begin(self, notes: Notes, supervisor: Supervisor) -> None:
        """Begin, now that the shop is open."""

    def is_over(self) -> bool:
        """Whether the last of it is undone."""

    def ended_at(self) -> float:
        """When that was, on the monotonic clock."""

    def now(self) -> str:
        """What happens at the moment, for people."""

    def unrest(self) -> str:
        """What has not come to rest in the shop, beside its orders; nothing if all has."""

    def verdict(self) -> dict[str, Any]:
        """What came of it."""

    def stop(self) -> None:
        """Undo what is on, and do no more."""


def _counted(kind: str) -> str:
    """As it is called after its number: `servers frozen` of `server frozen past its lease`."""
    who, what, *_ = kind.split()
    return f"{who}s {what}"


@dataclass(frozen=True)
class Verdict:
    """What came of it."""

    plan: Plan
    database: str
    endings: dict[str, int]
    """Orders by what became of them."""
    kills: int
    """Of servers, and of whole machines."""
    landed: dict[str, int]
    """How often each kind of death or freeze came, by its name."""
    points: dict[str, int]
    """How many servers died at each point that was aimed at; none in a storm of faults."""
    requests: int
    sent_again: int
    """Requests that the dead server did not answer, and the next one did."""
    refused: int
    """Connections that nobody took."""
    usual_pause_seconds: float | None
    """The median of what shoppers waited for an answer that a death had cost them; None if it cost none."""
    longest_pause_seconds: float
    """The longest that any shopper waited for any answer, several deaths in a row included."""
    longest_dark_seconds: float
    """The longest time in which nobody at all was answered."""
    seconds_to_rest: float
    """From the last fault, or from when the last shopper left, until nothing moved any more."""
    ledger: dict[str, Any]
    """`/ledger.json` once the shop had come to rest."""
    complaints: list[str]
    """What shoppers were shown that was not so."""
    faults: dict[str, Any]
    """What else happened, if it was to; see `fault_storm`."""
    lost: int
    """Orders that did not end as their shopper was shown."""
    doubled: int
    """Clicks that share an order with another one."""
    adoptions: dict[str, Adoptions] = field(default_factory=dict)
    """On Postgres, how long the work of the dead waited, by how they had ended."""
    requests_made: tuple[Request, ...] = ()
    deaths: tuple[Death, ...] = ()
    """Both for the picture, and left out of the JSON."""
    server_log: tuple[str, ...] = ()
    """The last that the servers said, where something is wrong."""

    @property
    def never_landed(self) -> list[str]:
        """What was to happen and did not, each a sentence: the shop was not at the risk that was meant."""
        plan, said = self.plan, []
        if not self.endings:
            said.append("Nobody bought anything.")
        if self.kills < plan.kills:
            said.append(f"Only {self.kills} of {plan.kills} kills came.")
        if plan.kills_postmaster and not self.landed.get(Landed.POSTMASTER_KILLED):
            said.append("Postgres was not killed.")
        if plan.kills >= _KILLS_FOR_A_POINT * len(self.points):
            said += [
                f"No server died at the point “{name}”." for name, times in self.points.items() if not times
            ]
        given_up = self.faults.get("given_up_before_they_began", {})
        return said + [f"Never came about: {kind}." for kind in given_up if kind not in self.faults["tried"]]

    @property
    def ok(self) -> bool:
        """Whether the books balance and nobody complains."""
        return bool(self.ledger["balanced"]) and not self.complaints and not self.refused

    def as_json(self) -> dict[str, Any]:
        """All of it, for a program."""
        return {
            "ok": self.ok,
            "never_landed": self.never_landed,
            **asdict(replace(self, requests_made=(), deaths=())),
        }

    @property
    def counts(self) -> dict[str, int]:
        """What the public record has of it."""
        return {
            "kills": self.kills,
            **{f"died_at_{name}": times for name, times in self.points.items()},
            **{_counted(kind): times for kind, times in self.landed.items() if len(self.landed) > 1},
            **({"faults": sum(self.faults["tried"].values())} if self.faults else {}),
            "orders": sum(self.endings.values()),
            "requests": self.requests,
            "sent_again": self.sent_again,
            "refused": self.refused,
            "lost": self.lost,
            "doubled": self.doubled,
            "complaints": len(self.complaints),
        }

    @property
    def wrong(self) -> list[str]:
        """What makes it not `ok`, each a sentence; each once."""
        broken = [f"{line['name']}: no" for line in self.ledger["lines"] if not line["ok"]]
        refused = [f"{self.refused} connections were refused"] if self.refused else []
        return list(dict.fromkeys([*broken, *refused, *self.complaints]))

    def as_result(self) -> Result:
        """What its picture shows."""
        plan = self.plan
        return Result(
            plan=storm_state.Plan(plan.shoppers, round(plan.seconds), plan.kills, plan.seed),
            orders=sum(self.endings.values()),
            lost=self.lost,
            doubled=self.doubled,
            is_ok=self.ok,
            requests=self.requests_made,
            deaths=self.deaths,
        )
