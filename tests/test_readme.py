"""What the README and the documents say, held against the shop: what to send, to type and to look for."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from urllib.parse import urlsplit

from tests.support.shop import DEATH, Shop
from tests.support.shopper import Shopper
from tests.support.started import ROOT


def test_the_requests_in_the_readme_buy_a_widget(shop: Shop, shopper: Shopper) -> None:
    """Each `curl` of the README succeeds, in its order, and together they make a paid order."""
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("curl ")]
    assert len(lines) == 3
    assert "\n".join(lines) in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    answers = []
    for line in lines:
        words = shlex.split(line)
        address = urlsplit(words[-1])
        method = "POST" if "POST" in words else "GET"
        answers.append(shopper.request(method, f"{address.path}?{address.query}", headers={"Accept": "*/*"}))
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert shop.tables.orders()[answers[0].text] in {"paid", "dispatched"}
    assert not shop.tables.faults()


def test_every_storm_in_the_documents_is_one_that_there_is() -> None:
    """Its command is understood, and every option that is named exists."""
    storms = (ROOT / "docs" / "storms.md").read_text(encoding="utf-8")
    texts = (ROOT / "README.md").read_text(encoding="utf-8") + storms
    commands = list(re.finditer(r"^\.venv/bin/python (app\.py storm .*)$", texts, re.MULTILINE))
    assert len(commands) == 5
    for command in commands:
        told = subprocess.run(
            [sys.executable, *shlex.split(command[1]), "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    options = set(re.findall(r"--\w+", storms))
    assert options == {
        "--shoppers", "--seconds", "--kills", "--seed", "--json", "--database", "--postgres", "--faults",
        "--picture", "--processes", "--machines", "--postmaster", "--record",
    }  # fmt: skip
    assert options <= set(re.findall(r"--\w+", told.stdout))


def test_the_line_of_a_death_is_what_the_parent_says() -> None:
    """Operators look for it in their logs."""
    assert re.search(DEATH.pattern, (ROOT / "docs" / "operators.md").read_text(encoding="utf-8"))


def test_every_link_leads_somewhere() -> None:
    """To a file that is there, and to a chapter that it has."""
    for text in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", text.read_text(encoding="utf-8")):
            address, _, chapter = link.partition("#")
            if "://" in address:
                continue
            target = (text.parent / address).resolve() if address else text
            assert target.exists(), f"{text.name}: {link}"
            if chapter:
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                assert chapter in {_anchor(heading) for heading in headings}, f"{text.name}: {link}"


def _anchor(heading: str) -> str:
    """What a heading is called in a link, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_map_in_the_readme_names_what_there_is() -> None:
    """Each package of the store, and nothing that is not there."""
    chapter = (ROOT / "README.md").read_text(encoding="utf-8").partition("## For developers")[2]
    rows = re.findall(r"^\| (`.*?) \|", chapter.partition("\n## ")[0], re.MULTILINE)
    named = {path for row in rows for path in re.findall(r"`([^`]+)`", row)}
    assert all((ROOT / path).exists() for path in named)
    packages = {f"store/{path.parent.name}/" for path in (ROOT / "store").glob("*/__init__.py")}
    assert packages <= named


def test_every_file_of_the_store_that_a_text_names_is_there() -> None:
    """In the README, the documents, the schema and the templates."""
    texts = [
        ROOT / "README.md",
        ROOT / "schema.sql",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "templates").iterdir(),
    ]
    for text in texts:
        for path in re.findall(r"\bstore/[\w/]+\.py\b", text.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{text.name}: {path}"


def test_the_code_in_the_readme_is_the_code() -> None:
    """It is copied, and stays a copy."""
    [shown] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown in (ROOT / "store" / "workflows.py").read_text(encoding="utf-8")
