"""Webhooks that must be signed, as Standard Webhooks has it: forged, stale and reused ones do nothing."""

from __future__ import annotations

import base64
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from werkzeug.datastructures import Headers

from store import signatures
from store.config import ROOT
from tests.conftest import NewUrl, Shop
from tests.support.refusal import refusal, refuses
from tests.support.shopper import Answer, key

_OLD_KEY, _NEW_KEY = b"the key of last year, 32 bytes..", b"the key of this year, 32 bytes.."
_OLD, _NEW = (base64.b64encode(each).decode() for each in (_OLD_KEY, _NEW_KEY))
_BODY = b'{"type":"payment.paid"}'


@pytest.fixture(scope="module")
def signed_shop(new_url: NewUrl) -> Iterator[Shop]:
    """A shop that is changing its secret, and so knows two."""
    shop = Shop(new_url(), STORE_WEBHOOK_SECRET=f"whsec_{_NEW} {_OLD}")
    shop.server.start()
    yield shop
    shop.server.close()


def signed(
    body: bytes = _BODY, *, by: bytes = _NEW_KEY, message_id: str | None = None, age_seconds: float = 0
) -> dict[str, str]:
    """The headers of a message."""
    message_id = message_id or f"msg_{key()}"
    timestamp = int(time.time() - age_seconds)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures.sign(by, message_id, timestamp, body),
    }


def announce(
    shop: Shop, payment_id: str, headers: dict[str, str], body: bytes = _BODY, *, outcome: str = "paid"
) -> Answer:
    """Call the webhook."""
    return shop.shopper.request("POST", f"/payment_webhook/{payment_id}/{outcome}", body, headers)


def test_a_signature_is_what_the_specification_makes() -> None:
    """The example that its libraries are tested with."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signatures.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signed_webhook_settles_and_may_be_repeated(signed_shop: Shop) -> None:
    """The same message again, now or by many at once, is the same answer, one charge and one order."""
    payment_id = signed_shop.shopper.buy(key())
    message = signed()
    first = announce(signed_shop, payment_id, message)
    assert (first.status, first.text.isdigit()) == (200, True), first
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda _: announce(signed_shop, payment_id, message), range(24)))
    assert {(answer.status, answer.text) for answer in again} == {(200, first.text)}
    assert announce(signed_shop, payment_id, signed()).text == first.text
    assert not signed_shop.books.faults()


@pytest.mark.parametrize("by", [_OLD_KEY, _NEW_KEY])
def test_either_secret_is_good_while_one_replaces_the_other(signed_shop: Shop, by: bytes) -> None:
    """And a sender that signs with both, or with a version of tomorrow too, is understood."""
    payment_id = signed_shop.shopper.buy(key())
    message = signed(by=by)
    other = signed(by=b"a key that nobody here has ever seen")["webhook-signature"]
    message["webhook-signature"] = f"v1a,AAAA {other} v1,not-base64 {message['webhook-signature']}"
    assert announce(signed_shop, payment_id, message).status == 200


_FORGED = {
    "without any": {},
    "without an id": {"webhook-id": None},
    "without a timestamp": {"webhook-timestamp": None},
    "without a signature": {"webhook-signature": None},
    "empty": {"webhook-signature": ""},
    "another id": {"webhook-id": "msg_another"},
    "an id with a full stop": {"webhook-id": "msg.another"},
    "another timestamp": {"webhook-timestamp": str(int(time.time()) - 1)},
    "no timestamp": {"webhook-timestamp": "soon"},
    "a timestamp with a fraction": {"webhook-timestamp": "1614265330.5"},
    "a timestamp of other digits": {"webhook-timestamp": "\u0661".encode().decode("latin-1")},
    "another version": {"webhook-signature": "v2,AAAA"},
    "no base64": {"webhook-signature": "v1,%%%"},
    "a prefix": {"webhook-signature": "v1,AAAA"},
    "many": {"webhook-signature": " ".join(["v1,AAAA"] * 300)},
}


@pytest.mark.parametrize("changed", _FORGED.values(), ids=_FORGED)
def test_a_forged_webhook_is_refused(signed_shop: Shop, changed: dict[str, str | None]) -> None:
    """401 in one sentence, and the order still awaits its payment."""
    payment_id = signed_shop.shopper.buy(key())
    message: dict[str, str | None] = {**signed(), **changed} if changed else {}
    headers = {name: text for name, text in message.items() if text is not None}
    assert refuses(announce(signed_shop, payment_id, headers), 401)
    assert signed_shop.books.orders()[payment_id] == "pending"


def test_what_was_signed_is_the_body_and_by_whom(signed_shop: Shop) -> None:
    """Another body, or another key, is another message."""
    payment_id = signed_shop.shopper.buy(key())
    assert refuses(announce(signed_shop, payment_id, signed(), _BODY + b" "), 401)
    assert refuses(announce(signed_shop, payment_id, signed(), b""), 401)
    assert refuses(announce(signed_shop, payment_id, signed(by=b"x" * 32)), 401)
    assert refuses(announce(signed_shop, payment_id, signed(by=b"")), 401)
    assert signed_shop.books.orders()[payment_id] == "pending"
    assert announce(signed_shop, payment_id, signed(b""), b"").status == 200


@pytest.mark.parametrize("age_seconds", [301 + 5, -301 - 5])
def test_a_stale_webhook_is_refused(signed_shop: Shop, age_seconds: int) -> None:
    """Five minutes either way, and no more."""
    payment_id = signed_shop.shopper.buy(key())
    answer = announce(signed_shop, payment_id, signed(age_seconds=age_seconds))
    assert refuses(answer, 401)
    assert "five minutes" in answer.text
    assert signed_shop.books.orders()[payment_id] == "pending"
    assert announce(signed_shop, payment_id, signed(age_seconds=age_seconds / 306 * 290)).status == 200


def test_the_tolerance_is_five_minutes_to_the_second() -> None:
    """Of the clock, and not of how long the test takes."""
    message = Headers(signed())
    sent_at = int(message["webhook-timestamp"])
    for now in (sent_at - 300, sent_at, sent_at + 300):
        assert signatures.verify([_NEW_KEY], message, _BODY, now) == message["webhook-id"]
    for now in (sent_at - 301, sent_at + 301):
        with pytest.raises(signatures.BadSignature):
            signatures.verify([_NEW_KEY], message, _BODY, now)


def test_a_message_that_was_overheard_is_good_for_nothing_else(signed_shop: Shop) -> None:
    """It signs neither payment nor outcome, so the first use of its id decides what it is about."""
    mine, other, declined = (signed_shop.shopper.buy(key()) for _ in range(3))
    message, refusal_of_mine = signed(), signed()
    assert announce(signed_shop, mine, message).status == 200
    assert refuses(announce(signed_shop, other, message), 401)
    assert announce(signed_shop, declined, refusal_of_mine, outcome="failed").status == 200
    assert refuses(announce(signed_shop, declined, refusal_of_mine), 401)
    orders = signed_shop.books.orders()
    assert (orders[other], orders[declined]) == ("pending", "declined")
    assert not signed_shop.books.rows("SELECT * FROM payments WHERE payment_id = :id", id=declined)
    assert announce(signed_shop, mine, message).status == 200


def test_a_signature_comes_before_every_other_question(signed_shop: Shop) -> None:
    """Whoever has no secret learns nothing of which payments there are."""
    for path in ("/payment_webhook/no-such-order/paid", "/payment_webhook/no-such-order/soon"):
        assert refuses(signed_shop.shopper.post(path), 401)
    assert refuses(announce(signed_shop, "no-such-order", signed()), 404)
    assert refuses(announce(signed_shop, "no-such-order", signed(), outcome="soon"), 400)


def test_the_command_in_the_readme_signs(signed_shop: Shop) -> None:
    """Its headers go into curl as they are."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [line] = [line for line in readme.splitlines() if "app.py sign" in line and "|" in line]
    command, sent = (shlex.split(part) for part in line.split("|"))
    assert command[:3] == [".venv/bin/python", "app.py", "sign"]
    assert sent[:5] == ["curl", "-X", "POST", "-H", "@-"]
    told = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=ROOT,
        env={"STORE_WEBHOOK_SECRET": f"whsec_{_NEW} {_OLD}"},
        capture_output=True,
        text=True,
        check=True,
    )
    headers = dict(line.split(": ", 1) for line in told.stdout.splitlines())
    assert set(headers) == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    payment_id = signed_shop.shopper.buy(key())
    assert announce(signed_shop, payment_id, headers, b"").status == 200


def test_signing_without_a_secret_says_what_to_set() -> None:
    """Exit code 2 and one sentence."""
    assert "STORE_WEBHOOK_SECRET" in refusal("app.py", "sign")
