"""Nobody learns a payment id from the log."""

from __future__ import annotations

import io
import logging

import pytest
from dbos import error

from store.log_masking import MaskWorkflowIds

pytestmark = pytest.mark.quick

PAYMENT = "Zk3-9_aQwertyuiopASDFG"
DISPATCH = f"{PAYMENT}.dispatch"

_MESSAGES = [
    f"Exception encountered when recovering workflow {PAYMENT}:",
    f"Error executing workflow {DISPATCH}: no such table",
    f"Deleting workflow(s): ['{PAYMENT}', '{DISPATCH}']",
    f"Resuming workflows: ['{PAYMENT}']",
    f"Warning: input object could not be deserialized for workflow {PAYMENT}, returning as string: x",
    f"Cannot rewind {PAYMENT} (PENDING): only a workflow in a terminal state can be rewound",
    f"Rewinding workflow: {PAYMENT} to step 1",
]
_ERRORS = [
    error.DBOSUnexpectedStepError(PAYMENT, 3, "settle", "charge"),
    error.DBOSConflictingWorkflowError(PAYMENT, "it is another one"),
    error.DBOSWorkflowConflictIDError(PAYMENT),
    error.DBOSNonExistentWorkflowError("target", PAYMENT),
]


def logged(message: str, trouble: Exception | None = None) -> str:
    """What comes of a record in a log like that of DBOS."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(MaskWorkflowIds())
    log = logging.getLogger("a log like that of DBOS")
    log.handlers.clear()
    log.propagate = False
    log.addHandler(handler)
    log.error(message, exc_info=trouble)
    return stream.getvalue()


@pytest.mark.parametrize("message", _MESSAGES)
def test_a_message_names_no_payment(message: str) -> None:
    """Its first four characters stay, so that its order can be found by whoever has the database."""
    shown = logged(message)
    assert PAYMENT[:4] in shown
    assert PAYMENT[:6] not in shown


@pytest.mark.parametrize("trouble", _ERRORS, ids=lambda trouble: type(trouble).__name__)
def test_a_traceback_names_none(trouble: Exception) -> None:
    """Nor does an error that a workflow has met."""
    shown = logged("Exception encountered in background workflow:", trouble)
    assert type(trouble).__name__ in shown
    assert PAYMENT[:6] not in shown


def test_other_words_stay() -> None:
    """A sentence about workflows is left as it is."""
    sentence = "DBOS workflow function 'greet' is registered twice; 3 workflows remain active\n"
    assert logged(sentence.strip()) == sentence
