"""Writes `docs/proof.md` from the record: `python -m store.proof.document`."""

from __future__ import annotations

from collections.abc import Iterator

from store.proof.summary import CHECKS, Summary, load
from store.settings import ROOT

DOCUMENT = ROOT / "docs" / "proof.md"
_TOP = """\
# Proof: what is claimed, how it is checked, and what is not claimed

<!-- Written from docs/proof.jsonl by `python -m store.proof.document`, and never by hand. -->

For sceptics. The same is shown by the shop itself, at `/proof`. To repeat a run, check
out its commit and type its command. A run is added by `--record`: of `python app.py explore`, of
`python app.py storm`, and of `python -m tests.planted`.

## Claimed, and how it is checked
"""


def write() -> None:
    """Write the page anew."""
    DOCUMENT.write_text(text(load()), encoding="utf-8")


def text(shown: Summary) -> str:
    """The page, in Markdown."""
    return "\n".join([_TOP, *_claims(shown), *_totals(shown), *_runs(shown), *_planted(shown)]) + "\n"


def _claims(shown: Summary) -> Iterator[str]:
    for claim in shown.claims:
        yield f"- **{claim.says}** {claim.is_checked}"
    yield "\n## Not claimed\n"
    for each in shown.not_claimed:
        yield f"- {each}"


def _totals(shown: Summary) -> Iterator[str]:
    yield "\n## In all\n"
    if shown.trouble or not shown.runs:
        yield shown.trouble or "No run is on record."
        return
    yield from _row("what", "how many")
    yield from _rule(2)
    for name, count in shown.totals.items():
        yield from _row(name, f"{count:,}")


def _runs(shown: Summary) -> Iterator[str]:
    if not shown.runs:
        return
    yield "\n## The runs, newest first\n"
    yield from _row("verdict", "what", "counts", "seconds", "command", "commit", "date", "machine")
    yield from _rule(8)
    for run in shown.runs:
        verdict, command = ": ".join([run.verdict, *run.wrong[:1]]), f"`{run.command}`"
        yield from _row(
            verdict, run.name, run.counts, run.seconds, command, run.commit, run.date, run.machine
        )


def _planted(shown: Summary) -> Iterator[str]:
    if not shown.planted:
        return
    yield "\n## Who caught which planted bug, in the newest such run\n"
    yield from _row("bug", *CHECKS)
    yield from _rule(1 + len(CHECKS))
    for bug in shown.planted:
        yield from _row(bug.name, *(said for _, said in bug.evidence))


def _row(*cells: str) -> Iterator[str]:
    yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _rule(columns: int) -> Iterator[str]:
    yield "|" + "---|" * columns


if __name__ == "__main__":
    write()
