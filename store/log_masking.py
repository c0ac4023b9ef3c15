"""Masks payment ids in the log, because anyone who has one can pay for its order.

A payment id is the id of a workflow, and DBOS names workflows in some of its lines and errors.
"""

from __future__ import annotations

import logging
import re
import traceback

_SHOWN = 4
"""Characters of an id that stay: enough to find it in the database, too few to guess it."""
_WORDS_OF_DBOS = frozenset({"function", "functions", "invocation", "execution", "executions", "statuses"})
# "workflow x", "Workflow ID x", "workflow(s): ['x', 'y']", "the same ID (x)", "Cannot rewind x (".
_NAMED = re.compile(
    r"(?P<before>\b(?:workflow(?:s|\(s\))?(?: ID)?|the same ID|rewind)[:=]?[ (\[]+['\"]?)"
    r"(?P<id>[A-Za-z0-9_-]{8,64}(?:\.\w+)?)(?P<more>(?:', '[A-Za-z0-9_.-]+)*)",
    re.IGNORECASE,
)


def mask(text: str) -> str:
    """`text`, with every workflow id in it cut short."""

    def cut(found: re.Match[str]) -> str:
        if found["id"] in _WORDS_OF_DBOS:
            return found[0]
        return f"{found['before']}{found['id'][:_SHOWN]}…" + (", …" if found["more"] else "")

    return _NAMED.sub(cut, text)


class MaskWorkflowIds(logging.Filter):
    """Cuts the workflow ids in a record short, those of its traceback too."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, masked."""
        record.msg, record.args = mask(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = mask("".join(traceback.format_exception(record.exc_info[1]))).rstrip()
        return True
