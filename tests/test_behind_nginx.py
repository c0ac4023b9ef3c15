"""The shop behind a real nginx, set up as docs/operators.md says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.settings import ROOT
from tests.conftest import NewUrl
from tests.support.ports import free_port
from tests.support.shop import Shop, SupervisedShop
from tests.support.shopper import HTML, Answer, Shopper, eventually, key

_NAME = "widgets.example"
_FORM = {**HTML, "Content-Type": "application/x-www-form-urlencoded", "Host": _NAME}


@pytest.fixture(scope="module")
def kept(new_url: NewUrl) -> Iterator[SupervisedShop]:
    """The shop, told of its proxy."""
    shop = SupervisedShop(
        new_url(), STORE_TRUSTED_PROXIES=1, STORE_TRUSTED_HOSTS=_NAME, STORE_UNPAID_PER_CLIENT=3
    )
    yield shop
    shop.parent.close()


@pytest.fixture(scope="module")
def proxy(kept: SupervisedShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shopper]:
    """Somebody who comes through nginx, set up as docs/operators.md says."""
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    block = re.search(r"```nginx\n(.*?)```", page, re.DOTALL)
    assert block
    assert "http://127.0.0.1:8000" in block[1]
    yield from _through_nginx(
        tmp_path_factory.mktemp("nginx"), block[1].replace("http://127.0.0.1:8000", kept.parent.url)
    )


@pytest.fixture
def bare_proxy(shop: Shop, tmp_path: Path) -> Iterator[Shopper]:
    """Somebody who comes through an nginx that the shop was not told of, and that adds nothing."""
    yield from _through_nginx(tmp_path, f"location / {{ proxy_pass {shop.server.url}; }}")


def _through_nginx(folder: Path, block: str) -> Iterator[Shopper]:
    """Run nginx; without one here a skip, or a failure where it is required."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        if os.environ.get("WIDGET_STORE_REQUIRE_ALL") == "1":
            pytest.fail("no nginx on this machine")
        pytest.skip("no nginx on this machine")
    port = free_port()
    settings = _settings(folder, port, block)
    nginx = subprocess.Popen([program, "-p", folder, "-e", folder / "error.log", "-c", settings])
    shopper = Shopper(f"http://127.0.0.1:{port}")
    try:
        eventually(shopper.is_open, bool)
        yield shopper
    finally:
        nginx.terminate()
        nginx.wait()


def _settings(folder: Path, port: int, block: str) -> Path:
    """A block of settings, in the least that nginx needs around it."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    path = folder / "nginx.conf"
    path.write_text(
        "daemon off; worker_processes 1; pid nginx.pid; events {}\n"
        "http { access_log off;\n"
        + "".join(f"{kind}_temp_path {kind};\n" for kind in kinds)
        + f"server {{ listen 127.0.0.1:{port}; {block} }} }}\n",
        encoding="utf-8",
    )
    return path


def buy(visitor: Shopper, **headers: str) -> Answer:
    """Buy, as a form of the page does."""
    return visitor.request("POST", "/buy", f"key={key()}", {**_FORM, **headers})


def test_a_purchase_goes_through_the_proxy(kept: SupervisedShop, proxy: Shopper) -> None:
    """Under the public name, from a form of that origin and from no other."""
    origin = {"Origin": f"http://{_NAME}"}
    bought = buy(proxy, **origin)
    assert bought.status == 303
    paid = proxy.request("POST", bought.location, "outcome=paid", {**_FORM, **origin})
    assert (paid.status, paid.location) == (303, bought.location.replace("/pay/", "/orders/"))
    assert buy(proxy, Origin=kept.parent.url).status == 403
    assert buy(proxy, Origin="http://evil.example").status == 403
    assert buy(proxy, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert buy(proxy, Host="evil.example").status == 400
    # Or the next test would find a unit held.
    eventually(kept.tables.orders, lambda orders: "pending" not in orders.values())
    assert not kept.tables.faults()


def test_what_a_visitor_says_of_themselves_is_not_believed(kept: SupervisedShop, proxy: Shopper) -> None:
    """Nobody gets the presenter's tools, or more units, by headers of their own."""
    for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
        page = proxy.request("GET", "/", headers={**HTML, "Host": _NAME, header: "127.0.0.1"})
        assert (page.status, "Crash" in page.text) == (200, False)
        crash = proxy.request("POST", "/crash_application", headers={"Host": _NAME, header: "127.0.0.1"})
        assert crash.status == 404
    answers = [
        proxy.request(
            "POST", f"/checkout/{key()}", headers={"Host": _NAME, "X-Forwarded-For": f"192.0.2.{number}"}
        )
        for number in range(5)
    ]
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 429, 429]
    for answer in answers[:3]:  # make room for the other tests
        kept.shopper.post(f"/payment_webhook/{answer.text}/failed")


def test_a_crash_behind_the_proxy_is_a_pause(kept: SupervisedShop, proxy: Shopper) -> None:
    """Nginx waits in the socket's backlog as everybody does, but for a 502 to whoever was being answered."""
    os.kill(kept.server_pid, signal.SIGKILL)
    page = eventually(
        lambda: proxy.request("GET", "/", headers={**HTML, "Host": _NAME}), lambda page: page.status != 502
    )
    assert page.status == 200
    kept.wait_for_deaths(1)


def test_behind_a_bare_proxy_nobody_gets_the_tools(shop: Shop, bare_proxy: Shopper) -> None:
    """Neither by a page nor by a program, whatever name they ask for; on the machine itself they stay."""
    for headers in ({}, {"Host": _NAME}, {"Host": "127.0.0.1"}):
        assert "Crash" not in bare_proxy.request("GET", "/", headers={**HTML, **headers}).text
        for path in ("/crash_application", "/restock"):
            assert bare_proxy.request("POST", path, headers=headers).status == 404
    assert "Crash" in shop.shopper.page("/").text
