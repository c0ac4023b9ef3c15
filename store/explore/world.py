"""What a state of the explored shop is made of, beside the store's own tables.

`Checkpoints` stands for DBOS's database: what it has, every process sees. The rest is what dies with a
process (runs, requests), what is somebody else's (the guestbook), and what may still happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Workflow:
    """One workflow as DBOS's tables have it."""

    name: str
    arguments: tuple[Any, ...]
    executor: int
    owner: int
    """The token of the run whose checkpoints are taken; that of any other run is refused."""
    status: str = "PENDING"
    steps: list[tuple[str, str]] = field(default_factory=list)
    """What is checkpointed: names and results as JSON, in the order of the operations."""
    output: str | None = None
    """As JSON, once it has ended."""


@dataclass
class Run:
    """An executor at work on a workflow: the function, replayed from what it remembers."""

    executor: int
    workflow_id: str
    owner: int
    memory: list[str] = field(default_factory=list)
    """The results that it has seen, as JSON."""
    unrecorded: tuple[str, str] | None = None
    """The step that has committed and is not checkpointed yet, and its result."""


@dataclass
class Request:
    """A request that a process is answering. Nothing of it is checkpointed."""

    executor: int
    action: int
    """Which of the scenario's."""
    memory: list[str] = field(default_factory=list)


@dataclass
class World:
    """Everything but the store's tables."""

    now_ms: int
    todo: tuple[int, ...]
    """Actions of the scenario that may still come, in any order."""
    crashes: int
    takeovers: int
    guestbook_deaths: int
    mendings: int
    may_forget: bool
    """Whether checkpoints are ever deleted: of a workflow that is run again from its first line."""
    executor: int = 1
    """The newest server process: requests come to it."""
    has_adopted: bool = True
    next_owner: int = 1
    workflows: dict[str, Workflow] = field(default_factory=dict)
    events: dict[tuple[str, str], str] = field(default_factory=dict)
    messages: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """The one message that each workflow was sent, and whether it was received."""
    runs: list[Run] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    book: dict[str, int] = field(default_factory=dict)
    """The online guestbook: signatures by their idempotency key."""

    @property
    def is_calm(self) -> bool:
        """Whether no process dies any more, or works beside its successor.

        Then nobody can come between a commit and its checkpoint, and the two are one transition.
        """
        if self.crashes or self.takeovers or self.mendings or not self.has_adopted:
            return False
        owners = {workflow_id: each.owner for workflow_id, each in self.workflows.items()}
        return all(run.owner == owners.get(run.workflow_id) for run in self.runs)

    def new_owner(self) -> int:
        """A token that no run has had."""
        self.next_owner += 1
        return self.next_owner
