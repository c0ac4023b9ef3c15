"""The code of both lanes, read from the running program: whole, or the lines that matter and which runs."""

from __future__ import annotations

import difflib
import inspect
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from store import workflows
from store.reads.timeline import Fate, Timeline
from store.stage import naive
from store.vocabulary import DISPATCH, DISPATCH_TICKS, Status, StepName


class Mark(StrEnum):
    """How a line stands."""

    PLAIN = ""
    """It does nothing by itself, or has not been reached."""
    RUNNING = "running"
    DONE = "done"
    REMEMBERED = "remembered"
    """It was done before a crash, and not run again after it."""
    STOPPED = "stopped"
    """It was running when the server died, and never will again."""


_DONE_BY = (
    ("reserve", r"= reserve\("),
    ("wait", r"= wait_for_notice\("),
    ("settle", r"= settle\("),
    ("start", r"start_workflow\(dispatch\b|^\s+dispatch\("),
    ("ticks", r"= advance\(.*progress"),
)
"""What is done in which line, in the order of a sale."""
_SHOWN = re.compile("|".join([r"^@DBOS\.workflow", r"^def ", *(pattern for _, pattern in _DONE_BY)]))


@dataclass(frozen=True)
class CodeLine:
    """One line, with its first argument for all of them: what follows is the same in both lanes, and long.

    It is indented by two levels at most, so that it is seen whole.
    """

    text: str
    does: str
    """What is done in it, by its name in `_DONE_BY`; nothing where it only begins a function."""
    is_only_here: bool
    """Whether the other lane has nothing like it."""
    mark: Mark = Mark.PLAIN


@cache
def lines_of(lane: str) -> tuple[CodeLine, ...]:
    """The lines that matter of the `durable` or the `naive` lane."""
    functions: dict[str, tuple[Any, ...]] = {
        "durable": (workflows.checkout, workflows.dispatch),
        "naive": (naive.checkout, naive.dispatch),
    }
    return tuple(line for function in functions[lane] for line in _lines_that_matter(function))


def _lines_that_matter(function: Any) -> list[CodeLine]:
    return [
        CodeLine(_short(text, function), _what_it_does(text), bool(re.search(r"DBOS\.", text)))
        for text in inspect.getsource(function).splitlines()
        if _SHOWN.search(text)
    ]


def _short(text: str, function: Any) -> str:
    if text.startswith("def "):  # without its types, and as it would stand in one line
        text = f"def {function.__name__}({', '.join(inspect.signature(function).parameters)}):"
    text = re.sub(r"^ {8} +", " " * 8, text)
    return re.sub(r"\(([^,()]+), .*\)", r"(\1, …)", text)


def _what_it_does(text: str) -> str:
    return next((name for name, pattern in _DONE_BY if re.search(pattern, text)), "")


def durable(story: Timeline | None, status: Status | None) -> tuple[CodeLine, ...]:
    """The durable lane's lines, by what DBOS has recorded of a sale; unmarked without one."""
    fates: dict[str, Fate] = {}
    for step in story.steps if story else ():
        does = _STEPS.get(step.name.rstrip(" 0123456789"))
        if does is None:
            continue
        if does == "settle" and isinstance(step.output, dict) and step.output.get("status") == Status.PENDING:
            continue  # it has decided nothing yet
        fates[does] = step.fate
    ticks = sum(step.name.startswith(f"{StepName.TICK} ") for step in story.steps) if story else 0
    done = {does for does in fates if does != "ticks" or ticks == DISPATCH_TICKS}
    return _marked(
        lines_of("durable"),
        done=done,
        remembered={does for does, fate in fates.items() if fate is Fate.REMEMBERED and does in done},
        is_running=story is not None and status not in {Status.CANCELLED, Status.DISPATCHED},
    )


_STEPS = {
    StepName.RESERVE.value: "reserve",
    "DBOS.recv": "wait",
    StepName.SETTLE.value: "settle",
    DISPATCH: "start",
    StepName.TICK.value: "ticks",
}
"""Which line a step belongs to, by what DBOS calls the step without its number."""


def ordinary(status: str | None, progress: int, *, is_charged: bool, is_dead: bool) -> tuple[CodeLine, ...]:
    """The naive lane's lines, by what it has left in its tables."""
    done = {"reserve"} if status else set()
    if is_charged:
        done |= {"wait", "settle"}
    if progress:
        done |= {"start"}
    if status == Status.DISPATCHED:
        done |= {"ticks"}
    return _marked(lines_of("naive"), done=done, remembered=set(), is_running=True, is_dead=is_dead)


def _marked(
    lines: tuple[CodeLine, ...],
    *,
    done: set[str],
    remembered: set[str],
    is_running: bool,
    is_dead: bool = False,
) -> tuple[CodeLine, ...]:
    """The lines with their marks: the first that is not done is running, or stopped for ever."""
    order = [line.does for line in lines if line.does]
    # What comes before something that is done is done, or was not needed.
    done = set(order[: max((order.index(does) + 1 for does in done), default=0)])
    current = next((does for does in order if does not in done), "")

    def mark(line: CodeLine) -> Mark:
        if line.does in remembered:
            return Mark.REMEMBERED
        if line.does in done:
            return Mark.DONE
        if line.does and line.does == current and is_running:
            return Mark.STOPPED if is_dead else Mark.RUNNING
        return Mark.PLAIN

    return tuple(CodeLine(line.text, line.does, line.is_only_here, mark(line)) for line in lines)


@dataclass(frozen=True)
class Code:
    """The functions of one lane, whole: each line, and whether the other lane has it not."""

    name: str
    lines: list[tuple[str, bool]]


@cache
def code() -> tuple[Code, Code]:
    """The business of the durable lane and of the naive one, as they stand in their files."""
    durable, ordinary = Code("workflows.py", []), Code("naive.py", [])
    for pair in (
        (workflows.dispatch, naive.dispatch),
        (workflows.greet, naive.greet),
        (workflows.checkout, naive.checkout),
    ):
        ours, theirs = (inspect.getsource(each).splitlines() for each in pair)
        durable.lines.extend([*_beside(ours, theirs), ("", False)])
        ordinary.lines.extend([*_beside(theirs, ours), ("", False)])
    return durable, ordinary


def _beside(lines: list[str], others: list[str]) -> list[tuple[str, bool]]:
    """Each line, and whether the other function has it not. Comments explain, and are not marked."""
    matcher = difflib.SequenceMatcher(
        None, [each.strip() for each in lines], [each.strip() for each in others], autojunk=False
    )
    same = {block.a + offset for block in matcher.get_matching_blocks() for offset in range(block.size)}
    return [
        (line, number not in same and line.strip()[:1] not in {"", "#"}) for number, line in enumerate(lines)
    ]
