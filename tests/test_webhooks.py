"""Signed webhooks, after Standard Webhooks: forged, stale and misdirected ones do nothing."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from werkzeug.datastructures import Headers

from store.settings import ROOT
from store.web import webhook_signatures
from tests.conftest import NewUrl
from tests.support.refusal import refusal, refuses
from tests.support.shop import Shop
from tests.support.shopper import Answer, key

_OLD_KEY, _NEW_KEY = b"the key of last year, 32 bytes..", b"the key of this year, 32 bytes.."
_OLD, _NEW = (base64.b64encode(each).decode() for each in (_OLD_KEY, _NEW_KEY))


@pytest.fixture(scope="module")
def signed_shop(new_url: NewUrl) -> Iterator[Shop]:
    """A shop that is changing its secret, and so knows two."""
    shop = Shop(new_url(), STORE_WEBHOOK_SECRET=f"whsec_{_NEW} {_OLD}")
    shop.server.start()
    yield shop
    shop.server.close()


def about(payment_id: str, status: str = "paid", **more: object) -> bytes:
    """The body of a message."""
    return json.dumps({"payment_id": payment_id, "status": status, **more}).encode()


def signed(body: bytes, *, by: bytes = _NEW_KEY, age_seconds: float = 0) -> dict[str, str]:
    """The headers of a message."""
    message_id = f"msg_{key()}"
    timestamp = int(time.time() - age_seconds)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": webhook_signatures.sign(by, message_id, timestamp, body),
    }


def send(
    shop: Shop, payment_id: str, body: bytes, headers: dict[str, str] | None = None, *, status: str = "paid"
) -> Answer:
    """Call the webhook of a payment with a body, signed unless there are other headers."""
    path = f"/payment_webhook/{payment_id}/{status}"
    return shop.shopper.request("POST", path, body, signed(body) if headers is None else headers)


def announce(shop: Shop, payment_id: str, status: str = "paid") -> Answer:
    """Call the webhook as a provider does."""
    return send(shop, payment_id, about(payment_id, status), status=status)


def test_a_signature_is_what_the_specification_makes() -> None:
    """The example that its libraries are tested with."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = webhook_signatures.sign(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signed_webhook_settles_and_may_be_repeated(signed_shop: Shop) -> None:
    """The same message again, now or by many at once, is the same answer, one charge and one order."""
    payment_id = signed_shop.shopper.hold(key())
    body = about(payment_id, type="payment.paid", data={"amounts": [9999]})
    message = signed(body)
    first = send(signed_shop, payment_id, body, message)
    assert (first.status, first.text.isdigit()) == (200, True), first
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda _: send(signed_shop, payment_id, body, message), range(24)))
    assert {(answer.status, answer.text) for answer in again} == {(200, first.text)}
    assert announce(signed_shop, payment_id).text == first.text
    assert not signed_shop.tables.faults()


@pytest.mark.parametrize("by", [_OLD_KEY, _NEW_KEY])
def test_either_secret_is_good_while_one_replaces_the_other(signed_shop: Shop, by: bytes) -> None:
    """And a sender that signs with both, or with a version of tomorrow too, is understood."""
    payment_id = signed_shop.shopper.hold(key())
    body = about(payment_id)
    message = signed(body, by=by)
    other = signed(body, by=b"a key that nobody here has ever seen")["webhook-signature"]
    message["webhook-signature"] = f"v1a,AAAA {other} v1,not-base64 {message['webhook-signature']}"
    assert send(signed_shop, payment_id, body, message).status == 200


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
    payment_id = signed_shop.shopper.hold(key())
    body = about(payment_id)
    message: dict[str, str | None] = {**signed(body), **changed} if changed else {}
    headers = {name: text for name, text in message.items() if text is not None}
    assert refuses(send(signed_shop, payment_id, body, headers), 401)
    assert signed_shop.tables.orders()[payment_id] == "pending"


def test_what_was_signed_is_the_body_and_by_whom(signed_shop: Shop) -> None:
    """Another body, or another key, is another message."""
    payment_id = signed_shop.shopper.hold(key())
    body = about(payment_id)
    assert refuses(send(signed_shop, payment_id, body + b" ", signed(body)), 401)
    assert refuses(send(signed_shop, payment_id, b"", signed(body)), 401)
    assert refuses(send(signed_shop, payment_id, body, signed(body, by=b"x" * 32)), 401)
    assert refuses(send(signed_shop, payment_id, body, signed(body, by=b"")), 401)
    assert signed_shop.tables.orders()[payment_id] == "pending"
    assert send(signed_shop, payment_id, body).status == 200


@pytest.mark.parametrize("age_seconds", [301 + 5, -301 - 5])
def test_a_stale_webhook_is_refused(signed_shop: Shop, age_seconds: int) -> None:
    """Five minutes either way, and no more."""
    payment_id = signed_shop.shopper.hold(key())
    body = about(payment_id)
    answer = send(signed_shop, payment_id, body, signed(body, age_seconds=age_seconds))
    assert refuses(answer, 401)
    assert "five minutes" in answer.text
    assert signed_shop.tables.orders()[payment_id] == "pending"
    in_time = signed(body, age_seconds=age_seconds / 306 * 290)
    assert send(signed_shop, payment_id, body, in_time).status == 200


def test_the_tolerance_is_five_minutes_to_the_second() -> None:
    """Of the clock, and not of how long the test takes."""
    body = about("some-order")
    message = Headers(signed(body))
    sent_at = int(message["webhook-timestamp"])
    for now in (sent_at - 300, sent_at, sent_at + 300):
        webhook_signatures.verify([_NEW_KEY], message, body, now)
    for now in (sent_at - 301, sent_at + 301):
        with pytest.raises(webhook_signatures.BadSignature):
            webhook_signatures.verify([_NEW_KEY], message, body, now)


def test_a_message_that_was_overheard_is_good_for_nothing_else(signed_shop: Shop) -> None:
    """Neither for another payment nor for another outcome, though it was never delivered; then it is."""
    mine, other, declined = (signed_shop.shopper.hold(key()) for _ in range(3))
    message, no_message = about(mine), about(declined, "failed")
    headers, no_headers = signed(message), signed(no_message)
    assert refuses(send(signed_shop, other, message, headers), 400)
    assert refuses(send(signed_shop, declined, message, headers, status="failed"), 400)
    assert refuses(send(signed_shop, declined, no_message, no_headers), 400)
    assert {signed_shop.tables.orders()[each] for each in (mine, other, declined)} == {"pending"}
    assert send(signed_shop, mine, message, headers).status == 200
    assert send(signed_shop, declined, no_message, no_headers, status="failed").status == 200
    orders = signed_shop.tables.orders()
    assert (orders[other], orders[declined]) == ("pending", "declined")
    assert not signed_shop.tables.rows("SELECT * FROM payments WHERE payment_id = :id", id=declined)


_NO_BODIES = {
    "nothing": "",
    "no JSON": "paid",
    "two objects": '{"payment_id": "ID", "status": "paid"}' * 2,
    "a list": '[{"payment_id": "ID", "status": "paid"}]',
    "a string": '"ID"',
    "null": "null",
    "no members": "{}",
    "no payment": '{"status": "paid"}',
    "no status": '{"payment_id": "ID"}',
    "names in capitals": '{"Payment_ID": "ID", "STATUS": "paid"}',
    "a number for a payment": '{"payment_id": 7, "status": "paid"}',
    "a list for a payment": '{"payment_id": ["ID"], "status": "paid"}',
    "nothing for a payment": '{"payment_id": null, "status": "paid"}',
    "another payment": '{"payment_id": "another-order", "status": "paid"}',
    "a payment with a space": '{"payment_id": "ID ", "status": "paid"}',
    "half a character": '{"payment_id": "\\ud800", "status": "paid"}',
    "true for a status": '{"payment_id": "ID", "status": true}',
    "an object for a status": '{"payment_id": "ID", "status": {"paid": "paid"}}',
    "a list for a status": '{"payment_id": "ID", "status": ["paid"]}',
    "another status": '{"payment_id": "ID", "status": "failed"}',
    "a status that is none": '{"payment_id": "ID", "status": "PAID"}',
    "one level deeper": '{"data": {"payment_id": "ID", "status": "paid"}}',
    "two payments": '{"payment_id": "another-order", "payment_id": "ID", "status": "paid"}',
    "the same payment twice": '{"payment_id": "ID", "status": "paid", "payment_id": "ID"}',
    "no number of JSON": '{"payment_id": "ID", "status": "paid", "amount": NaN}',
    "two statuses": '{"payment_id": "ID", "status": "failed", "status": "paid"}',
    "two of another member": '{"payment_id": "ID", "status": "paid", "data": {"a": 1, "a": 2}}',
    "deeply nested": '{"payment_id": "ID", "status": "paid", "data": ' + "[" * 30_000 + "]" * 30_000 + "}",
    "deeply nested objects": '{"a":' * 12_000,
    "a very long number": '{"payment_id": "ID", "status": "paid", "data": ' + "9" * 60_000 + "}",
    "a mark of byte order": '\ufeff{"payment_id": "ID", "status": "paid"}',
}


@pytest.mark.parametrize("text", _NO_BODIES.values(), ids=_NO_BODIES)
def test_a_signed_body_must_name_what_the_path_names(signed_shop: Shop, text: str) -> None:
    """400 in one sentence, and the order still awaits its payment."""
    payment_id = signed_shop.shopper.hold(key())
    assert refuses(send(signed_shop, payment_id, text.replace("ID", payment_id).encode()), 400)
    assert signed_shop.tables.orders()[payment_id] == "pending"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_a_body_is_utf8(signed_shop: Shop, encoding: str) -> None:
    """Other encodings, which some readers of JSON guess, are no body."""
    payment_id = signed_shop.shopper.hold(key())
    text = f'{{"payment_id": "{payment_id}", "status": "paid", "by": "Ä"}}'
    assert refuses(send(signed_shop, payment_id, text.encode(encoding)), 400)
    assert send(signed_shop, payment_id, text.encode()).status == 200


def test_a_signature_comes_before_every_other_question(signed_shop: Shop) -> None:
    """Whoever has no secret learns nothing of which payments there are, nor of how a body is read."""
    for path in ("/payment_webhook/no-such-order/paid", "/payment_webhook/no-such-order/soon"):
        assert refuses(signed_shop.shopper.post(path), 401)
    assert refuses(send(signed_shop, "no-such-order", b"[" * 60_000, signed(b"", by=b"x" * 32)), 401)
    assert refuses(announce(signed_shop, "no-such-order"), 404)
    assert refuses(announce(signed_shop, "no-such-order", "soon"), 400)


@pytest.mark.parametrize("body", [b"", b"[" * 60_000, about("another-order", "failed")])
def test_without_a_secret_the_body_says_nothing(shop: Shop, body: bytes) -> None:
    """As other front ends call it."""
    payment_id = shop.shopper.hold(key())
    assert send(shop, payment_id, body, {}).status == 200
    assert shop.tables.orders()[payment_id] != "pending"


# --- the pages of a shop with a secret -------------------------------------------------------------


def test_the_page_takes_no_payment_where_there_is_a_secret(signed_shop: Shop, shop: Shop) -> None:
    """It offers none, goes on polling, and refuses what is posted all the same; the webhook pays."""
    payment_id = signed_shop.shopper.hold(key())
    for path in (f"/pay/{payment_id}", f"/pay/{payment_id}/status"):
        page = signed_shop.shopper.page(path)
        assert page.heading == "Your widget is held"
        assert 'value="paid"' not in page.text
        assert "Confirm" not in page.text
        assert re.search(r'value="failed"[^>]*>Cancel<', page.text)
        assert "The payment provider tells this shop" in page.text
        assert f'hx-get="/pay/{payment_id}/status" hx-trigger="every 1s"' in page.text
    for known in (payment_id, "no-such-order"):
        assert refuses(signed_shop.shopper.confirm(known), 403)
    assert signed_shop.tables.orders()[payment_id] == "pending"
    assert not signed_shop.tables.rows("SELECT * FROM payment_notices WHERE payment_id = :id", id=payment_id)
    assert announce(signed_shop, payment_id).status == 200
    signed_shop.shopper.wait_for(payment_id, "Dispatched")
    elsewhere = shop.shopper.page(f"/pay/{shop.shopper.hold(key())}")
    assert re.search(r'value="paid"[^>]*>Confirm payment<', elsewhere.text)


def test_a_shopper_may_cancel_and_late_money_is_given_back(signed_shop: Shop) -> None:
    """Whatever the provider says afterwards."""
    payment_id = signed_shop.shopper.hold(key())
    assert signed_shop.shopper.cancel(payment_id).status == 303
    signed_shop.shopper.wait_for(payment_id, "Payment cancelled")
    assert announce(signed_shop, payment_id).status == 200
    payments = signed_shop.tables.rows("SELECT kind FROM payments WHERE payment_id = :id", id=payment_id)
    assert sorted(kind for (kind,) in payments) == ["charge", "refund"]
    assert not signed_shop.tables.faults()


def test_the_presenter_may_run_both_lanes(signed_shop: Shop) -> None:
    """That page pays by itself, and only the presenter has it."""
    wanted = signed_shop.shopper.page("/lanes").key
    signed_shop.shopper.submit(
        "/lanes", key=wanted
    )  # whatever the naive lane makes of a guestbook that is away
    signed_shop.shopper.wait_for(wanted, "Dispatched")


# --- python app.py sign ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--id", 'a"b\\c']], ids=["as it stands", "with an odd id"])
def test_the_line_in_the_documents_pays(signed_shop: Shop, options: list[str]) -> None:
    """A real curl reads what is printed, and the order is paid."""
    if shutil.which("curl") is None:
        if os.environ.get("WIDGET_STORE_REQUIRE_ALL") == "1":
            pytest.fail("no curl on this machine")
        pytest.skip("no curl on this machine")
    document = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    [line] = [line for line in document.splitlines() if "app.py sign" in line]
    payment_id = signed_shop.shopper.hold("my-very-first-order" if not options else key())
    for said, meant in (
        (".venv/bin/python", shlex.quote(sys.executable)),
        ("sign ", f"sign {shlex.join(options)} -- " if options else "sign "),
        ("http://127.0.0.1:8000", signed_shop.server.url),
        ("my-very-first-order", payment_id),
    ):
        assert said in line
        line = line.replace(said, meant)
    told = subprocess.run(
        ["sh", "-c", line],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "STORE_WEBHOOK_SECRET": f"whsec_{_NEW} {_OLD}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.isdigit(), told
    assert signed_shop.tables.orders()[payment_id] in {"paid", "dispatched"}


_NO_SECRET: dict[str, str] = {}
_SECRET = {"STORE_WEBHOOK_SECRET": _NEW}


@pytest.mark.parametrize(
    ("words", "environ", "what"),
    [
        (["some-order", "paid"], _NO_SECRET, "STORE_WEBHOOK_SECRET"),
        (["", "paid"], _SECRET, "payment id"),
        (["an order", "paid"], _SECRET, "payment id"),
        (['"\ndata = "', "paid"], _SECRET, "payment id"),
        (["x" * 65, "paid"], _SECRET, "payment id"),
        (["some-order", "paid", "--id", ""], _SECRET, "id of a message"),
        (["some-order", "paid", "--id", "a.b"], _SECRET, "id of a message"),
        (["some-order", "paid", "--id", "a\nb"], _SECRET, "id of a message"),
        (["some-order", "paid", "--id", "x" * 256], _SECRET, "id of a message"),
    ],
)
def test_what_cannot_be_signed_is_refused(words: list[str], environ: dict[str, str], what: str) -> None:
    """Exit code 2 and one sentence."""
    assert what in refusal("app.py", "sign", *words, **environ)
