"""A first and a second visit: what a browser fetches, in requests, bytes and time."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from statistics import median

from bench import load
from bench.figures import Bench, Figure
from bench.polls import get
from bench.servers import STORE, Server

GROUP = "visits"
# No browser on a desk fetches the picture for the start page of a telephone.
_FILE = re.compile(rb'(?<!apple-touch-icon" )(?:href|src)="(/static/[^"#]+)')
_PAGES = ("/", "/guestbook", "/ledger")


def steps(bench: Bench) -> int:
    """How often `run` says what it does next."""
    return 1 + bench.scale.rounds


def run(bench: Bench) -> None:
    """Measure it on the first database: a visit does not tell one from the other."""
    kind = bench.databases[0]
    bench.say(f"visits: opening on {kind}")
    with bench.place.serving(STORE, bench.place.new_database(kind)) as store:
        load.buy(store, shoppers=2, count=10)
        visits: dict[str, list[_Visit]] = {}
        for turn in range(bench.scale.rounds):
            bench.say(f"visits: round {turn + 1}")
            for page in _PAGES:
                browser = _Browser(store)
                for name in ("a first visit", "a second visit"):
                    visits.setdefault(f"{name} to {page}", []).append(browser.visit(page))
    for case, seen in visits.items():
        bench.add(Figure(GROUP, case, "requests", median(each.requests for each in seen), "requests"))
        bench.add(Figure(GROUP, case, "bytes received", median(each.size for each in seen), "bytes"))
        bench.add(Figure(GROUP, case, "one after the other", median(each.ms for each in seen), "ms"))


@dataclass
class _Visit:
    requests: int = 0
    size: int = 0
    ms: float = 0


@dataclass
class _Browser:
    """Keeps what it may, as a browser does."""

    store: Server
    kept: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)

    def visit(self, page: str) -> _Visit:
        """The page, and the files that it names and the browser does not have."""
        visit = _Visit()
        plain = get(self.store, page, {"Accept-Encoding": "identity"}).body  # to be read, not counted
        self._fetch(page, visit)
        for path in dict.fromkeys(found.decode() for found in _FILE.findall(plain)):
            if path not in self.kept:
                self._fetch(path, visit)
        return visit

    def _fetch(self, path: str, visit: _Visit) -> None:
        headers = {"If-None-Match": self.tags[path]} if path in self.tags else {}
        began_at = time.monotonic()
        reply = get(self.store, path, headers)
        visit.ms += (time.monotonic() - began_at) * 1000
        visit.requests += 1
        visit.size += reply.size
        if "immutable" in reply.headers.get("cache-control", ""):
            self.kept.add(path)
        elif "etag" in reply.headers:
            self.tags[path] = reply.headers["etag"]


def about() -> str:
    """What one must know to read these."""
    return "Compressed, heads included; immutable files are not requested again."
