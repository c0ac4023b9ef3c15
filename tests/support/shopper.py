"""Somebody who shops over HTTP, without JavaScript, as a browser's forms do."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

T = TypeVar("T")
TIMEOUT_SECONDS = 20.0
HTML = {"Accept": "text/html"}


@dataclass(frozen=True)
class Answer:
    """One answer, redirects not followed."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)

    @property
    def location(self) -> str:
        """Where it redirects to."""
        return self.headers["Location"]

    @property
    def key(self) -> str:
        """The key of the Buy Now on the page."""
        found = re.search(r'name="key" value="([^"]+)"', self.text)
        assert found, "there is no Buy Now on this page:\n" + self.text
        return found[1]

    @property
    def alert(self) -> str:
        """What the page says is wrong: in its heading, or beside a field."""
        found = re.search(r"role=\"alert\"[^>]*>\s*(?:<h1[^>]*>)?(.*?)<", self.text, re.DOTALL)
        assert found, "there is no alert on this page:\n" + self.text
        return found[1].strip()

    @property
    def heading(self) -> str:
        """The text of the page's first heading."""
        found = re.search(r"<h1[^>]*>(.*?)</h1>", self.text, re.DOTALL)
        assert found, "there is no heading on this page:\n" + self.text
        return found[1].strip()


class Client:
    """Requests to one shop, from the address `source` of this machine, or from any."""

    def __init__(self, url: str, source: str = "") -> None:
        self.url = url
        self._source = (source, 0) if source else None

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(
            urlsplit(self.url).netloc, timeout=TIMEOUT_SECONDS, source_address=self._source
        )
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            answer, told = response.read(), dict(response.getheaders())
            if told.get("Content-Encoding") == "gzip":
                answer = gzip.decompress(answer)
            is_picture = told.get("Content-Type", "").startswith("image/png")
            return Answer(response.status, told, "" if is_picture else answer.decode())
        finally:
            connection.close()

    def is_open(self) -> bool:
        """Whether anybody answers."""
        try:
            return self.get("/health").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str, **headers: str) -> Answer:
        """GET as an API client does."""
        return self.request("GET", path, headers={"Accept": "*/*", **headers})

    def post(self, path: str) -> Answer:
        """POST as an API client does: no body."""
        return self.request("POST", path, headers={"Accept": "*/*"})

    def page(self, path: str) -> Answer:
        """GET as a browser does."""
        return self.request("GET", path, headers=HTML)

    def poll(self, path: str) -> Answer:
        """GET as a page that is open does."""
        return self.request("GET", path, headers={**HTML, "HX-Request": "true"})

    def submit(self, path: str, **form: str) -> Answer:
        """Submit a form as a browser does."""
        headers = {**HTML, "Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", path, urlencode(form), headers)


class Shopper(Client):
    """Clicks through the shop."""

    def buy(self, key: str | None = None) -> str:
        """Click Buy Now on the store page (or with a key of one's own); the payment id."""
        key = key or self.page("/").key
        answer = self.submit("/buy", key=key)
        assert answer.status == 303, answer
        assert answer.location == f"/pay/{key}", answer
        return key

    def hold(self, key: str | None = None) -> str:
        """Buy, and wait until it is decided what came of it; the payment id.

        Buy Now answers after a second or so at most, whether there is an order by then or not.
        """
        payment_id = self.buy(key)
        eventually(
            lambda: self.page(f"/pay/{payment_id}"),
            lambda answer: answer.status != 200 or not answer.heading.startswith("Reserving"),
        )
        return payment_id

    def confirm(self, payment_id: str) -> Answer:
        """Click Confirm payment."""
        return self.submit(f"/pay/{payment_id}", outcome="paid")

    def cancel(self, payment_id: str) -> Answer:
        """Click Cancel."""
        return self.submit(f"/pay/{payment_id}", outcome="failed")

    def order(self, payment_id: str) -> Answer:
        """Open the order's page."""
        return self.page(f"/orders/{payment_id}")

    def wait_for(self, payment_id: str, heading: str) -> Answer:
        """Reload the order's page until it says so."""
        return eventually(
            lambda: self.order(payment_id),
            lambda answer: answer.status == 200 and answer.heading == heading,
        )


def timed(ask: Callable[[], Answer]) -> tuple[Answer, float]:
    """An answer, and how long it took."""
    asked_at = time.monotonic()
    return ask(), time.monotonic() - asked_at


def key() -> str:
    """A key of one's own, as an API client makes it."""
    return secrets.token_urlsafe(16)


def eventually(
    look: Callable[[], T], wanted: Callable[[T], bool], *, timeout_seconds: float = TIMEOUT_SECONDS
) -> T:
    """Look again and again until what is seen is what is wanted; then return it."""
    began = time.monotonic()
    while True:
        seen = look()
        if wanted(seen):
            return seen
        waited = time.monotonic() - began
        assert waited < timeout_seconds, f"waited {timeout_seconds:g} seconds, and it is still {seen!r}"
        # Between two looks, so that looking does not slow down what is looked at: on Postgres each is a new
        # process of its server. Longer where the wait is long, and late by a tenth of it at most.
        time.sleep(min(max(0.02, waited / 10), 0.1))
