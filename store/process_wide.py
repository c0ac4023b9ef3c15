"""What a process is given once, before its workflows run.

DBOS finds workflows by the name of a function, so they are functions of a module and not methods of an
object: what they need besides their arguments cannot be passed to them. It is kept here, as one frozen
value.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class ProcessWide(Generic[T]):
    """One value of this process, by what it is called."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values: list[T] = []

    def set(self, value: T) -> None:
        """Give it; what was given before is replaced."""
        self._values[:] = [value]

    def __call__(self) -> T:
        """The value.

        Raises:
            RuntimeError: nothing has been given yet.
        """
        if not self._values:
            raise RuntimeError(f"{self._name} is asked for before it was given")
        return self._values[0]

    @property
    def is_set(self) -> bool:
        """Whether it has been given."""
        return bool(self._values)
