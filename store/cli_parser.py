"""What can be said on the command line: the commands of `python app.py`, and what each takes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from store.settings import ROOT

TALK = ROOT / "var" / "talk"
"""Where the shop of a talk has its files, unless told otherwise: never those of an operator."""


def read() -> argparse.Namespace:
    """What was said; ends the process with a sentence and exit code 2 where that cannot be understood."""
    words = sys.argv[1:]
    return _parser().parse_args(list(map(_kept, words)) if words[:1] in _TAKE_AN_ID else words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python app.py", description="The Widget Store.")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("serve", help="keep the shop open until Ctrl+C; what it does without a command")
    server = commands.add_parser("server", help="one server, without the parent that starts it again")
    server.add_argument("--socket", type=int, help=argparse.SUPPRESS)  # for servers that have a parent
    server.add_argument("--port", type=int, help=argparse.SUPPRESS)
    server.add_argument("--requests", type=int, help=argparse.SUPPRESS)
    server.add_argument("--fork-server", type=int, help=argparse.SUPPRESS)
    commands.add_parser("migrate", help="create the database, or bring it up to date")
    # For servers that come after one that has been open: see `opening`.
    server.add_argument("--wait-for-database", action="store_true", help=argparse.SUPPRESS)
    server.add_argument("--token", default="", help=argparse.SUPPRESS)
    server.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    server.add_argument("--died", action="append", default=[], help=argparse.SUPPRESS)
    signer = commands.add_parser("sign", help="sign a webhook, for curl: see docs/api.md")
    signer.add_argument("payment_id", type=_id, help="what is paid")
    signer.add_argument("status", choices=["paid", "failed"], help="what became of it")
    signer.add_argument("--id", help="of the message (a new one)")
    signer.add_argument("--timestamp", type=_whole_number(0, 10**12), help="in seconds since 1970 (now)")
    looker = commands.add_parser("stuck", help="list orders and greetings that will not end by themselves")
    looker.add_argument("--json", action="store_true", help="as JSON")
    mender = commands.add_parser("mend", help="run them again, or one of them")
    mender.add_argument("order", nargs="?", type=_id, help="the number of the order, or its payment id (all)")
    mender.add_argument("--dry-run", action="store_true", help="only say what would be run again")
    mender.add_argument("--json", action="store_true", help="as JSON")
    auditor = commands.add_parser("audit", help="count the books again from the first row")
    auditor.add_argument("--json", action="store_true", help="as JSON")
    lister = commands.add_parser(
        "executors", help="list the server processes: who lives, who took up whose work"
    )
    lister.add_argument("--json", action="store_true", help="as JSON")
    adopter = commands.add_parser(
        "adopt", help="count a server process as lost, so that another takes up its work"
    )
    adopter.add_argument("executor", help="its number, or its name as `executors` has it")
    adopter.add_argument("--force", action="store_true", help="also if it gives signs of life")
    _add_presenters(commands)
    _add_storm(commands.add_parser("storm", help="let shoppers and SIGKILLs loose on a shop of their own"))
    explorer = commands.add_parser("explore", help="look at every schedule of the workflows, with crashes")
    explorer.add_argument(
        "--quick", action="store_true", help="a small scope, in seconds; the whole one takes minutes"
    )
    _add_record(explorer)
    explorer.add_argument("--naive", action="store_true", help="the naive twin: the shortest ways to lose")
    explorer.add_argument("--replay", metavar="CODE", help="tell one schedule again, as a violation names it")
    return parser


def _add_presenters(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What presenters can say."""
    talk = commands.add_parser(
        "talk", help="open a clean shop for a talk: the stage, and a QR code for phones"
    )
    talk.add_argument("--address", help="at which phones reach this machine (asked for, if it has several)")
    talk.add_argument("--keep", action="store_true", help="go on with the shop of the last talk")
    talk.add_argument("--folder", type=Path, default=TALK, help="for its files (var/talk)")
    reset = commands.add_parser("reset", help="bring a shop back to its opening state, also while it runs")
    reset.add_argument("--yes", action="store_true", help="it is meant; otherwise the terminal is asked")
    disarm = commands.add_parser("disarm", help="take back every armed crash, also while the shop dies of it")
    for command in (reset, disarm):
        command.add_argument("--talk", action="store_true", help="of the shop that `app.py talk` opens")
        command.add_argument("--folder", type=Path, default=TALK, help="of its files (var/talk)")


def _add_storm(storm: argparse.ArgumentParser) -> None:
    """What can be said of a storm."""
    storm.add_argument("--shoppers", type=_whole_number(1), default=30, help="how many (%(default)s)")
    storm.add_argument(
        "--seconds", type=_whole_number(1), default=60, help="how long they shop (%(default)s)"
    )
    storm.add_argument(
        "--kills", type=_whole_number(0), default=20, help="of the server meanwhile (%(default)s)"
    )
    storm.add_argument(
        "--processes",
        type=_whole_number(1, 16),
        default=1,
        help="server processes that share the requests, on Postgres (%(default)s)",
    )
    storm.add_argument(
        "--machines",
        type=_whole_number(1, 8),
        default=1,
        help="so many, with so many processes on each, on Postgres (%(default)s)",
    )
    storm.add_argument(
        "--postmaster", action="store_true", help="kill the first process of its own Postgres once, too"
    )
    storm.add_argument("--seed", type=_whole_number(0), help="repeats the choices of an earlier storm")
    storm.add_argument("--database", metavar="URL", help="of a new one; otherwise a SQLite file, thrown away")
    storm.add_argument("--postgres", action="store_true", help="on a Postgres of its own, thrown away")
    storm.add_argument(
        "--faults", action="store_true", help="full disks, locks, hung and restored databases and more, too"
    )
    storm.add_argument("--picture", metavar="FILE", type=Path, help="the verdict as a picture, too: an SVG")
    storm.add_argument("--json", action="store_true", help="the verdict as JSON")
    _add_record(storm)


def _add_record(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--record", action="store_true", help="add the run to docs/proof.jsonl, and write docs/proof.md"
    )


_TAKE_AN_ID = (["sign"], ["mend"])
_DASH = "\0-"
"""Stands for the dash that an id may begin with: argparse takes whatever begins with one for an option."""


def _kept(word: str) -> str:
    is_id = word.startswith("-") and not word.startswith("--") and word != "-h"
    return _DASH + word[1:] if is_id else word


def _id(word: str) -> str:
    return word.replace(_DASH, "-")


def _whole_number(least: int, most: int = 1_000_000) -> Callable[[str], int]:
    """Reads a whole number from the command line."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return read
