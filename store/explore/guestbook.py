"""The online guestbook of an explored shop: it signs once for each key, and may die before or after."""

from __future__ import annotations

from store.clients import guestbook
from store.explore.world import World


class Book:
    """Has the names of `store.clients.guestbook` that the workflows use."""

    Unavailable = guestbook.Unavailable
    Refused = guestbook.Refused

    def __init__(self) -> None:
        self.world: World
        self.fate = ""
        """What happens to the next request: nothing, or its death `before` or `after` it has signed."""
        self.asked = 0

    def sign(self, _url: str, name: str, key: str | None) -> guestbook.Signature:
        """Sign it; a key that has signed gets the same number again.

        Raises:
            Unavailable: it has died over it.
        """
        self.asked += 1
        if self.fate == "before":
            raise guestbook.Unavailable("The guestbook cannot be reached.")
        number = self.world.book.setdefault(
            key or f"unkeyed {len(self.world.book)}", len(self.world.book) + 1
        )
        if self.fate == "after":
            raise guestbook.Unavailable("The guestbook cannot be reached.")
        return guestbook.Signature(number, name)
