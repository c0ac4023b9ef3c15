"""Somebody who shops with a browser: one window, and all that it asked for and complained of."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, Response, Route, expect

from tests.browser.gallery import View
from tests.support.shop import Shop

PATIENCE_MS = 30_000

# What Chromium itself writes to the console when a request is not answered.
NO_ANSWER = (
    r"ERR_(EMPTY_RESPONSE|CONTENT_LENGTH_|CONNECTION_|SOCKET_|INCOMPLETE_)|Failed to fetch"
    r"|NetworkError|50[234]"
)


class Visitor:
    """One window on one shop."""

    def __init__(self, page: Page, shop: Shop) -> None:
        self.page = page
        self.shop = shop
        self._homes = {shop.server.url}
        self.requests: list[Request] = []
        self.responses: list[Response] = []
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", self._asks)
        page.on("response", self._is_answered)
        page.on("console", self._complains)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asks(self, request: Request) -> None:
        self.requests.append(request)

    def _is_answered(self, response: Response) -> None:
        self.responses.append(response)

    def _complains(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def hold_forms_back(self) -> list[Route]:
        """Keep every form that is submitted from the shop, and hand over what was kept."""
        return self.hold_back("**", method="POST")

    def hold_back(self, address: str, method: str = "GET") -> list[Route]:
        """Keep every such request from the shop, and hand over what was kept."""
        held: list[Route] = []

        def hold(route: Route) -> None:
            if route.request.method == method:
                held.append(route)
            else:
                route.fallback()

        self.page.route(address, hold)
        return held

    def lose_the_first_answer_to_a_form(self) -> None:
        """Have the shop get the first form that is submitted, and the window never its answer."""
        lost: list[Route] = []

        def lose(route: Route) -> None:
            if lost or route.request.method != "POST":
                route.fallback()
            else:
                lost.append(route)
                route.fetch(max_redirects=0)

        self.page.route("**", lose)

    # --- going somewhere --------------------------------------------------------------

    def open(self, path: str = "/") -> Visitor:
        """Type an address."""
        self.page.goto(self.shop.server.url + path)
        return self

    def look_at(self, view: View) -> None:
        """Type the address of a view, which may be in another shop, and see that it is the one."""
        self.shop = view.shop
        self._homes.add(view.shop.server.url)
        self.open(view.path).sees(view.heading)

    def buy(self) -> str:
        """Click Buy Now, and see that a widget is held; the payment id."""
        self.buy_now.click()
        self.sees("Your widget is held")
        return self.payment_id

    def place_of(self, button: Locator) -> tuple[float, float]:
        """Where to click to hit a button, for when the window is too busy to be asked."""
        box = button.bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def pay(self) -> None:
        """Click Confirm, and see that it is paid, or on a busy machine what comes of that."""
        self.confirm.click()
        expect(self.heading).to_contain_text(re.compile("Paid. Your widget is on its way|Dispatched"))

    # --- what the window shows ----------------------------------------------------------

    def sees(self, heading: str) -> None:
        """Wait until the page says so."""
        expect(self.heading).to_contain_text(heading)

    def wait_until(self, what: Callable[[], bool]) -> None:
        """Wait, with the window alive meanwhile, until something is so."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not what():
            assert time.monotonic() < deadline, "it is still not so"
            self.page.wait_for_timeout(20)  # between two looks; the window's events come in meanwhile

    @property
    def path(self) -> str:
        """Where the address bar says that it is."""
        return self.page.url.removeprefix(self.shop.server.url)

    @property
    def payment_id(self) -> str:
        """Of the order that the address bar names."""
        found = re.fullmatch(r"/(?:pay|orders)/([^/]+)", self.path)
        assert found, f"{self.path} names no order"
        return found[1]

    @property
    def heading(self) -> Locator:
        """What the page says first."""
        return self.page.locator("h1")

    @property
    def bar(self) -> Locator:
        """The bar of the order's page."""
        return self.page.locator("#order progress")

    @property
    def shelf(self) -> Locator:
        """How many are on the shelf."""
        return self.page.locator("#shelf .count")

    @property
    def buy_now(self) -> Locator:
        """The button."""
        return self.page.get_by_role("button", name="Buy Now")

    @property
    def confirm(self) -> Locator:
        """The button."""
        return self.page.get_by_role("button", name="Confirm payment")

    @property
    def cancel(self) -> Locator:
        """The button."""
        return self.page.get_by_role("button", name="Cancel")

    @property
    def key(self) -> str:
        """The key that Buy Now carries."""
        return self.page.locator("#shelf input[name=key]").input_value()

    @property
    def progress(self) -> int:
        """How far the bar of the order's page is."""
        return int(self.bar.get_attribute("value") or 0)

    @property
    def seconds_to_pay(self) -> int:
        """What the countdown says."""
        minutes, seconds = self.page.get_by_role("timer").inner_text().split(":")
        return int(minutes) * 60 + int(seconds)

    # --- what it asked for --------------------------------------------------------------

    def asked(self, part: str, method: str = "GET") -> int:
        """How many requests so far had `part` in their address."""
        return sum(part in each.url and each.method == method for each in self.requests)

    def asked_for_the_shopper(self, since: int) -> list[str]:
        """What it asked for since then; the presenter's tools, which have no end, left out."""
        tools = ("/presenter/tools", "/again/now")
        return [each.url for each in self.requests[since:] if not each.url.endswith(tools)]

    def loads(self) -> int:
        """How many times so far the whole page was loaded, rather than changed."""
        return sum(each.resource_type == "document" for each in self.requests)

    def next_answer(self, part: str) -> Response:
        """Wait for an answer from an address with `part` in it."""
        with self.page.expect_response(lambda response: part in response.url) as answer:
            pass
        return answer.value

    def let_pass(self, seconds: int) -> None:
        """Turn the window's clock on, and wait for whatever the window does at once because of it.

        Only after `page.clock.install()`, which must come before the page is opened.
        """
        self.page.clock.run_for(seconds * 1000)
        # A request of its own, which comes after all those; and its answer, after most of theirs.
        self.page.evaluate("fetch('/health').then(answer => answer.text())")

    def leave(self) -> None:
        """Close the window."""
        self.page.context.close()

    def faults(self, tolerated: str | None) -> list[str]:
        """Requests that left for another host, and complaints other than `tolerated` ones."""
        homes = tuple(f"{url}/" for url in self._homes)
        elsewhere = [f"asked for {each.url}" for each in self.requests if not each.url.startswith(homes)]
        return elsewhere + [
            each for each in self.complaints if tolerated is None or not re.search(tolerated, each)
        ]


def mark(element: Locator) -> None:
    """Put a mark on an element, which only that very element has."""
    element.evaluate("element => { element.marked = true }")


def is_marked(element: Locator) -> bool:
    """Whether it is the very element that was marked."""
    return bool(element.evaluate("element => element.marked === true"))


def has_focus(element: Locator) -> bool:
    """Whether the keyboard is on it."""
    return bool(element.evaluate("element => document.activeElement === element"))
