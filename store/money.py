"""Money: integer cents, and the one way in which they are shown."""

from __future__ import annotations


def price(cents: int) -> str:
    """Integer cents as shown to a shopper: 9999 is `$99.99`."""
    return f"${cents // 100:,}.{cents % 100:02}"
