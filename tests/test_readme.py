"""What the README tells an API client to send, sent."""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit

from tests.conftest import Shop
from tests.support.server import ROOT
from tests.support.shopper import Shopper


def test_the_requests_in_the_readme_buy_a_widget(shop: Shop, shopper: Shopper) -> None:
    """Each `curl` of the README succeeds, in its order, and together they make a paid order."""
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("curl ")]
    assert len(lines) == 3
    answers = []
    for line in lines:
        words = shlex.split(line)
        address = urlsplit(words[-1])
        method = "POST" if "POST" in words else "GET"
        answers.append(shopper.request(method, f"{address.path}?{address.query}", headers={"Accept": "*/*"}))
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert shop.books.orders()[answers[0].text] in {"paid", "dispatched"}
    assert not shop.books.faults()
