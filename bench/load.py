"""The shoppers of the benchmark: one process with many connections, whose own cost is nobody's.

`python -m bench.load` reads one plan from standard input, as JSON, does it, and writes what it saw. Whether
orders are dispatched it reads from the database, all of them at once: as many polls of as many pages would be
most of what is measured.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.watcher import LOOK_SECONDS, Watcher
from bench.wire import ANSWER_SECONDS, Line, Reply

_NUMBER = re.compile(rb"Order No\. (\d+)")
_KEY = re.compile(rb'name="key" value="([^"]+)"')
_PAY = b'name="outcome" value="paid"'
_HTML = {"Accept": "text/html"}
BROWSER = {**_HTML, "Accept-Encoding": "gzip"}
_FORM = {**_HTML, "Content-Type": "application/x-www-form-urlencoded"}


_BUSY = frozenset({503, 504})
_AGAIN_SECONDS = 0.2
"""Before a busy shop is asked again."""


class BadAnswer(RuntimeError):
    """The shop said something that does not sell a widget."""


@dataclass
class Purchase:
    """What one whole order took, in seconds."""

    buy: float = 0.0
    confirm: float = 0.0
    whole: float = 0.0


async def submit(line: Line, path: str, form: str) -> tuple[Reply, float]:
    """Submit a form until the shop has done it, as its pages do; the answer, and the seconds it all took.

    A shop that is busy says 503 or 504: what was asked for may have been done, and asking again does no harm.
    """
    began_at = time.monotonic()
    while True:
        reply = await line.ask("POST", path, _FORM, form)
        took = time.monotonic() - began_at
        if reply.status not in _BUSY or took > ANSWER_SECONDS:
            return reply, took
        await asyncio.sleep(_AGAIN_SECONDS)


async def hold(line: Line) -> tuple[str, int, float]:
    """Take a Buy Now from the store page, click it, and wait for the payment page; key, number, seconds."""
    page = await line.ask("GET", "/", _HTML)
    while page.status in _BUSY:
        await asyncio.sleep(_AGAIN_SECONDS)
        page = await line.ask("GET", "/", _HTML)
    found = _KEY.search(page.body)
    if found is None:
        raise BadAnswer(f"GET / answered {page.status} and has no Buy Now")
    key = found[1].decode()
    bought, took = await submit(line, "/buy", f"key={key}")
    if bought.status != 303 or "/pay/" not in bought.headers.get("location", ""):
        raise BadAnswer(f"POST /buy answered {bought.status}")
    while True:
        page = await line.ask("GET", f"/pay/{key}", _HTML)
        if number := _NUMBER.search(page.body):
            return key, int(number[1]), took
        if page.status not in {200, *_BUSY}:
            raise BadAnswer(f"the payment page answered {page.status}")
        await asyncio.sleep(LOOK_SECONDS)


async def pay(line: Line, key: str) -> float:
    """Confirm the payment; the seconds that took."""
    paid, took = await submit(line, f"/pay/{key}", "outcome=paid")
    if paid.status != 303:
        raise BadAnswer(f"POST /pay answered {paid.status}")
    return took


async def buy_whole(line: Line, watcher: Watcher) -> Purchase:
    """One whole order, from the store page until it is dispatched."""
    began_at = time.monotonic()
    key, number, buy = await hold(line)
    confirm = await pay(line, key)
    await watcher.dispatched(number)
    return Purchase(buy, confirm, time.monotonic() - began_at)


async def orders(plan: dict[str, Any]) -> dict[str, Any]:
    """Whole orders by so many shoppers, for some seconds or until there are so many."""
    done: list[Purchase] = []
    failed: list[str] = []
    watcher = Watcher(plan["database"])
    began_at = time.monotonic()
    begun = 0

    def may_begin() -> bool:
        if "count" in plan:
            return begun < int(plan["count"])
        return time.monotonic() - began_at < float(plan["seconds"])

    async def shop(line: Line) -> None:
        nonlocal begun
        while may_begin():
            begun += 1
            with _noted(failed):
                done.append(await buy_whole(line, watcher))

    await _together(plan, int(plan["shoppers"]), shop)
    return {
        "elapsed": time.monotonic() - began_at,
        "failed": failed,
        **{what: [getattr(each, what) for each in done] for what in ("buy", "confirm", "whole")},
    }


async def holds(plan: dict[str, Any]) -> dict[str, Any]:
    """So many orders that wait for their payment, or that are paid and wait for nothing more."""
    keys: list[str] = []
    numbers: list[int] = []
    left = iter(range(int(plan["count"])))

    async def shop(line: Line) -> None:
        for _ in left:
            key, number, _ = await hold(line)
            if plan.get("is_paid"):
                await pay(line, key)
            keys.append(key)
            numbers.append(number)

    await _together(plan, min(16, int(plan["count"])), shop)
    return {"keys": keys, "numbers": numbers}


async def rush(plan: dict[str, Any]) -> dict[str, Any]:
    """So many shoppers who press Buy Now in one moment; who finds a unit pays."""
    buy: list[float] = []
    confirm: list[float] = []
    failed: list[str] = []
    began_at = time.monotonic()

    async def shop(line: Line) -> None:
        with _noted(failed):
            key, asked_at = new_key(), time.monotonic()
            bought, _ = await submit(line, "/buy", f"key={key}")
            if bought.status != 303:
                raise BadAnswer(f"POST /buy answered {bought.status}")
            has_a_unit = await _see_what_comes_next(line, bought.headers["location"])
            buy.append(time.monotonic() - asked_at)
            if has_a_unit:
                confirm.append(await pay(line, key))

    await _together(plan, int(plan["shoppers"]), shop)
    return {"elapsed": time.monotonic() - began_at, "buy": buy, "confirm": confirm, "failed": failed}


async def _see_what_comes_next(line: Line, path: str) -> bool:
    """Follow a Buy Now to the page that says how it went; whether it has taken a unit."""
    while True:
        page = await line.ask("GET", path, _HTML)
        if page.status == 303:
            path = page.headers["location"]
        elif page.status not in {200, *_BUSY}:
            raise BadAnswer(f"the page after Buy Now answered {page.status}")
        elif page.status == 200 and (not path.startswith("/pay/") or _NUMBER.search(page.body)):
            return _PAY in page.body  # otherwise another buyer has the last unit
        else:
            await asyncio.sleep(_AGAIN_SECONDS)


async def asks(plan: dict[str, Any]) -> dict[str, Any]:
    """The same GETs again and again, over kept connections; `every` spaces those of one connection.

    With `as_pages`, each connection asks as an open page does: for one path, and with the tag of what it was
    sent last, so that what has not changed is not sent again.
    """
    took: list[float] = []
    statuses: dict[str, int] = {}
    paths: list[str] = plan["paths"]
    is_page = bool(plan.get("as_pages"))
    numbers = iter(range(int(plan["connections"])))
    began_at = time.monotonic()

    async def look(line: Line) -> None:
        index, every = next(numbers), float(plan.get("every", 0))
        headers = dict(BROWSER)
        await asyncio.sleep(every * index / int(plan["connections"]))
        for turn in range(int(plan.get("count", 1_000_000_000))):
            asked_at = time.monotonic()
            if asked_at - began_at > float(plan["seconds"]):
                return
            reply = await line.ask("GET", paths[(index + (0 if is_page else turn)) % len(paths)], headers)
            took.append(time.monotonic() - asked_at)
            statuses[str(reply.status)] = statuses.get(str(reply.status), 0) + 1
            if is_page and "hx-ptag" in reply.headers:
                headers["HX-PTag"] = reply.headers["hx-ptag"]
            await asyncio.sleep(max(0.0, every - took[-1]) if every else 0)

    await _together(plan, int(plan["connections"]), look)
    return {"elapsed": time.monotonic() - began_at, "took": took, "statuses": statuses}


@contextmanager
def _noted(failed: list[str]) -> Iterator[None]:
    """What makes a shopper give up is written down, and ends nothing else."""
    try:
        yield
    except (BadAnswer, OSError, EOFError, TimeoutError) as trouble:
        failed.append(f"{type(trouble).__name__}: {trouble}")


async def _together(plan: dict[str, Any], count: int, work: Callable[[Line], Awaitable[None]]) -> None:
    lines = [Line(plan["host"], int(plan["port"])) for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        for line in lines:
            group.create_task(_all_of(work, line))
    for line in lines:
        line.close()


async def _all_of(work: Callable[[Line], Awaitable[None]], line: Line) -> None:
    await work(line)


def start(kind: str, address: tuple[str, int], **plan: object) -> subprocess.Popen[str]:
    """Start a process of shoppers with a plan."""
    host, port = address
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load"],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    json.dump({"kind": kind, "host": host, "port": port, **plan}, process.stdin)
    process.stdin.close()
    return process


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What they saw.

    Raises:
        RuntimeError: they could not go on; why is on standard error.
    """
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    with process.stdout as stream:
        said = stream.read()
    if process.wait():
        raise RuntimeError("The shoppers of the benchmark could not go on.")
    seen: dict[str, Any] = json.loads(said)
    return seen


def run(kind: str, address: tuple[str, int], **plan: object) -> dict[str, Any]:
    """Start them, and wait for what they see."""
    return finish(start(kind, address, **plan))


class Shop(Protocol):
    """Where orders are made."""

    database_url: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""


def buy(shop: Shop, **plan: object) -> dict[str, Any]:
    """Whole orders; see `orders`."""
    return run("orders", shop.address, database=shop.database_url, **plan)


_KINDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "orders": orders,
    "holds": holds,
    "rush": rush,
    "asks": asks,
}


def main() -> None:
    """Do the plan on standard input."""
    plan = json.load(sys.stdin)
    with suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    json.dump(asyncio.run(_KINDS[plan["kind"]](plan)), sys.stdout)


def new_key() -> str:
    """A key of one's own, as the shop makes it."""
    return secrets.token_urlsafe(16)


if __name__ == "__main__":
    main()
