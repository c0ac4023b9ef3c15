"""The transactions of `workflows.py`, without DBOS around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def plain(step: Any) -> Callable[..., Any]:
    """The transaction that a step runs."""
    change: Callable[..., Any] = step.__wrapped__
    return change
