"""How pages show what the store keeps.

A time always has its form for machines. Its text is for people, in UTC; `local_times.js` says it in their
zone.
"""

from __future__ import annotations

from datetime import datetime

from flask import Flask
from markupsafe import Markup

from store.money import price

_TIME = Markup('<time datetime="{}" data-form="{}">{}</time>')


def prepare(app: Flask) -> None:
    """Give the templates of `app` these filters."""
    for show in (price, clock, exact_clock, day_and_clock):
        app.jinja_env.filters[show.__name__] = show


def clock(at: datetime) -> Markup:
    """A time of today, to the second; `at` is in UTC."""
    return _TIME.format(at.isoformat(), "clock", f"{at:%H:%M:%S} UTC")


def exact_clock(at: datetime) -> Markup:
    """The same to the millisecond, for lists in which the zone would be read thirty times."""
    return _TIME.format(at.isoformat(), "exact", f"{at:%H:%M:%S}.{at.microsecond // 1000:03}")


def day_and_clock(at: datetime) -> Markup:
    """A time of any day."""
    return _TIME.format(at.isoformat(), "day", f"{at.day} {at:%B %Y, %H:%M:%S} UTC")
