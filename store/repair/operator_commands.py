"""`app.py stuck` and `app.py mend`, for operators, beside a server or without one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient

from store import terms_of_sale
from store.durable import offline, runtime
from store.repair import reconciler, stuck_finder
from store.repair.stuck_rules import Lateness, Stuck
from store.settings import Settings

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Shop:
    """An open shop, beside the one that sells."""

    store: sa.Connection
    client: DBOSClient
    checkpoints: sa.Engine
    terms: Lateness


def show(settings: Settings, said: argparse.Namespace, say: Say) -> int:
    """List what is stuck; 1 if anything is, else 0."""
    with _opened(settings) as shop:
        found = list(stuck_finder.find_all(shop.store, shop.client, shop.terms))
    if said.json:
        say(json.dumps([_as_json(each) for each in found], indent=2))
    elif not found:
        say("Nothing is stuck.")
    for each in () if said.json else found:
        say(_sentence(each))
    return 1 if found else 0


def mend(settings: Settings, said: argparse.Namespace, say: Say) -> int:
    """Run again what is stuck, or one order of it; 1 if what was asked for is not stuck, else 0."""
    with _opened(settings) as shop:
        found = [
            each
            for each in stuck_finder.find_all(shop.store, shop.client, shop.terms)
            if said.order in {None, str(each.order_id), each.workflow_id, *each.arguments[:1]}
        ]
        if not said.dry_run:
            for each in found:
                reconciler.mend(shop.client, shop.checkpoints, each)
    if said.json:
        say(json.dumps([{**_as_json(each), "mended": not said.dry_run} for each in found], indent=2))
        return 0 if found or said.order is None else 1
    for each in found:
        say(f"{'Would run' if said.dry_run else 'Running'} again: {_sentence(each)}")
    if not found:
        say("Nothing is stuck." if said.order is None else f"Order {said.order} is not stuck.")
    elif not said.dry_run:
        say("A server does it within a second or two, or as soon as one is started.")
    return 0 if found or said.order is None else 1


@contextmanager
def _opened(settings: Settings) -> Iterator[_Shop]:
    """A shop as these commands need it."""
    with offline.opened(settings) as databases:
        terms_of_sale.terms.set(terms_of_sale.Terms.of(settings))
        client = runtime.client_of(settings)
        with databases.reader.connect() as connection:
            yield _Shop(connection, client, databases.system, _terms(settings))
        client.destroy()


def _terms(settings: Settings) -> Lateness:
    # Whoever asks has waited: what is late now is stuck.
    long_ms = 3_600_000
    return Lateness(long_ms, round(settings.dispatch_tick_seconds * 1000), runtime.APPLICATION_VERSION)


def _sentence(each: Stuck) -> str:
    since = datetime.fromtimestamp(each.since_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
    tried = f"; run again {each.tries} times before" if each.tries else ""
    ended = f" It said: {each.detail}" if each.detail else ""
    return f"{each.subject}, since {since}{tried}: {each.why}{ended}"


def _as_json(each: Stuck) -> dict[str, Any]:
    return {
        "workflow_id": each.workflow_id,
        "workflow": each.workflow_name,
        "order_id": each.order_id,
        "subject": each.subject,
        "since": datetime.fromtimestamp(each.since_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "why": each.why,
        "detail": each.detail,
        "tries": each.tries,
    }
