"""The online guestbook, by itself: a good neighbour, and in every way a bad one when told so."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from store.settings import ROOT
from tests.support.guestbook import JSON, Guestbook
from tests.support.refusal import is_one_sentence


@pytest.fixture
def guestbook(tmp_path: Path) -> Iterator[Guestbook]:
    """One of one's own."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        yield guestbook


def test_it_keeps_what_is_signed(guestbook: Guestbook) -> None:
    """In its own file, newest first, through a kill."""
    first, second = guestbook.sign("Ada"), guestbook.sign("Ada")
    assert (first.status, first.json["name"]) == (200, "Ada")
    assert (first.json["signature"], second.json["signature"]) == (1, 2)
    guestbook.kill()
    guestbook.start()
    listed = guestbook.get("/signatures").json
    assert listed["total"] == 2
    assert listed["signatures"] == [second.json, first.json]
    assert guestbook.get("/signatures?limit=1").json["signatures"] == [second.json]


def test_the_same_key_is_one_signature(guestbook: Guestbook) -> None:
    """The same answer, by many at once, and after a kill; another name under it is refused."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: guestbook.sign("Grace", key="one-visit"), range(16)))
    assert {(answer.status, answer.text) for answer in answers} == {(200, answers[0].text)}
    guestbook.kill()
    guestbook.start()
    assert guestbook.sign("Grace", key="one-visit").text == answers[0].text
    assert guestbook.sign("Somebody else", key="one-visit").status == 422
    assert guestbook.get("/signatures?key=one-visit").json["signatures"] == [answers[0].json]
    assert guestbook.get("/signatures?key=another").json["signatures"] == []
    assert guestbook.get("/signatures").json["total"] == 1


def test_it_fails_as_often_as_it_was_told(guestbook: Guestbook) -> None:
    """And signs nothing then."""
    guestbook.make_trouble(kind="fail", status=503, times=2)
    assert [guestbook.sign("Ada").status for _ in range(3)] == [503, 503, 200]
    guestbook.make_trouble(kind="rubbish")
    assert guestbook.sign("Ada").text.startswith("<h1>")
    assert guestbook.get("/signatures").json["total"] == 1


def test_it_dies_after_it_recorded_and_before_it_answers(guestbook: Guestbook) -> None:
    """The cruellest moment; once, because its successor remembers that it was told only once."""
    guestbook.make_trouble(kind="die")
    with pytest.raises((OSError, http.client.HTTPException)):
        guestbook.sign("Ada", key="one-visit")
    assert guestbook.wait_for_death() == 1
    guestbook.start()
    assert guestbook.sign("Ada", key="one-visit").json["signature"] == 1
    assert guestbook.get("/signatures").json["total"] == 1


@pytest.mark.parametrize(
    "name", ["Ада Лавлейс", "李", "<script>alert(1)</script>", "O'Brien; DROP TABLE", "👋", "n" * 80]
)
def test_a_name_is_kept_as_it_is(guestbook: Guestbook, name: str) -> None:
    """In any script."""
    assert guestbook.sign(name).json["name"] == name
    assert guestbook.get("/signatures").json["signatures"][0]["name"] == name


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '"Ada"',
        "{}",
        '{"name": ""}',
        '{"name": 7}',
        '{"name": null}',
        json.dumps({"name": "n" * 81}),
    ],
)
def test_what_is_no_name_is_refused(guestbook: Guestbook, body: str) -> None:
    """400 and one sentence."""
    answer = guestbook.request("POST", "/record_greeting", body, JSON)
    assert (answer.status, is_one_sentence(answer.json["error"])) == (400, True)
    assert guestbook.get("/signatures").json["total"] == 0


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"kind": "sulk"},
        {"kind": "slow", "seconds": "long"},
        {"kind": "fail", "status": 200},
        {"kind": "fail", "times": -1},
        {"kind": "fail", "times": True},
    ],
)
def test_trouble_that_there_is_not_is_refused(guestbook: Guestbook, sent: dict[str, Any]) -> None:
    """400 and one sentence; it goes on being good."""
    answer = guestbook.request("POST", "/trouble", json.dumps(sent), JSON)
    assert (answer.status, is_one_sentence(answer.json["error"])) == (400, True)
    assert guestbook.sign("Ada").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/record_greeting", 405),
        ("GET", "/nothing", 404),
        ("GET", "/signatures?limit=0", 400),
        ("GET", "/signatures?limit=101", 400),
        ("GET", "/signatures?limit=x", 400),
    ],
)
def test_what_it_does_not_answer_it_says(guestbook: Guestbook, method: str, path: str, status: int) -> None:
    """As JSON, in one sentence."""
    answer = guestbook.request(method, path)
    assert (answer.status, is_one_sentence(answer.json["error"])) == (status, True)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8001", "127.0.0.1.evil.example", "192.0.2.7", "[2001:db8::1]", "[", ""],
)
def test_a_name_that_is_not_of_this_machine_is_refused(guestbook: Guestbook, host: str) -> None:
    """Somebody's web page may call this machine by a name of its own (DNS rebinding)."""
    for method, path in [("GET", "/signatures"), ("POST", "/record_greeting"), ("POST", "/trouble")]:
        answer = guestbook.request(method, path, '{"name": "Ada", "kind": "die"}', {**JSON, "Host": host})
        assert (answer.status, is_one_sentence(answer.json["error"])) == (400, True)
    assert guestbook.get("/signatures").json["total"] == 0


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8001", "127.0.0.1:1", "127.0.0.2", "[::1]:8001"])
def test_every_name_of_this_machine_will_do(guestbook: Guestbook, host: str) -> None:
    """And what names nobody, as programs that speak HTTP/1.0, is no web page."""
    assert guestbook.get("/signatures", Host=host).status == 200


def test_it_runs_by_itself() -> None:
    """With the command at its top; and says where it is."""
    said = (ROOT / "guestbook_service.py").read_text(encoding="utf-8")
    assert re.search(r"^ +python guestbook_service\.py --port \d+ --database \S+$", said, re.MULTILINE)
    help_text = subprocess.run(
        [sys.executable, "guestbook_service.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "--port" in help_text
    assert "--database" in help_text
