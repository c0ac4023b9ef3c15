"""The presenter's commands: `app.py talk`, `reset` and `disarm`.

The parent of a talk loads this module, so what only one command needs is imported there: a module of the
store that cannot be imported must not keep the shop of the talk from being started again.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from store import cli_parser, setting_parsers, sqlite_files
from store.serving.listener import listen
from store.settings import LOOPBACK_HOSTS, BadSetting, Settings, is_sqlite, refuse, sqlite_file

if TYPE_CHECKING:
    from store.serving.lan import Place

Say = Callable[[str], None]

_WAIT_SECONDS = 30.0
"""For a server to begin anew. One that runs needs two or three seconds."""
_SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
_WORDS, _SYLLABLES_EACH = 4, 2


# --- talk -----------------------------------------------------------------------------------


def settings_of_talk(settings: Settings, said: argparse.Namespace, say: Say) -> Settings:
    """The settings of a shop for a talk, whose files of an earlier one are removed, unless it goes on.

    Raises:
        BadSetting: the address is none of this machine's, or it is not known which one is meant.
    """
    address = _address(said.address, say)
    # On every address, so that the projector, which asks for a loopback one, outlives the network.
    host = "127.0.0.1" if address in LOOPBACK_HOSTS else "0.0.0.0"  # noqa: S104 - phones are to come
    talk = _kept_in(settings, said.folder)
    store = sqlite_file(talk.database_url)
    store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Held by this process, which outlives its servers: between two of them, nobody has the store's own lock.
    if not sqlite_files.lock(store.with_name("talk")):
        raise BadSetting("A talk is under way already: go on with it, or end it by Ctrl+C in its window.")
    listen(host, talk.port).close()  # or the last talk would be gone, and no new one open
    if not said.keep:
        _remove_files(talk)
    return replace(
        talk,
        host=host,
        audience_host=address,
        presenter_password=settings.presenter_password or _new_password(),
        # Phones behind one router have one address. The shelf, which is small, is the limit.
        unpaid_per_client=0,
        greetings_per_client=0,
        connections_per_client=0,
    )


def opening_of_talk(settings: Settings, address: str, pid: int) -> str:
    """What the presenter is told: where the stage is, and where the audience goes."""
    port = address.rpartition(":")[2]
    here, there = (f"http://{host}:{port}" for host in ("127.0.0.1", settings.audience_host))
    lines = [
        f"The Widget Store is open at {here} (process {pid}, for a talk); Ctrl+C closes it.",
        f"  Projector  {here}/stage",
        f"  Notes      {there}/stage/notes",
        f"  Audience   {there}/",
        f"  Password   {settings.presenter_password}   for the first two: keep this window off the projector",
        f"  {_command('reset', settings)} begins anew",
        f"  {_command('disarm', settings)} takes back every armed crash",
    ]
    if settings.audience_host in LOOPBACK_HOSTS:
        lines.append("No phone can reach it: join the network of the phones, and start the talk again.")
    return "\n".join(lines)


def _command(name: str, settings: Settings) -> str:
    """What is typed for a command about this talk."""
    folder = sqlite_file(settings.database_url).parent
    elsewhere = "" if folder == cli_parser.TALK else f" --folder {folder}"
    return f".venv/bin/python app.py {name} --talk{elsewhere}"


def _address(wanted: str | None, say: Say) -> str:
    """The address that phones are to reach: the one that was said, the only one, or the one chosen."""
    from store.serving.lan import places_of_this_machine

    places = places_of_this_machine()
    if wanted is not None:
        return _checked(wanted, places)
    if not places:
        say("This machine is in no network, so the talk is for this machine alone.")
        return "127.0.0.1"
    if len(places) == 1:
        return places[0].address
    if not sys.stdin.isatty():
        found = ", ".join(place.address for place in places)
        raise BadSetting(f"This machine has several addresses ({found}): say which by --address.")
    say("Which address do the phones reach?")
    for number, place in enumerate(places, 1):
        say(f"  {number}  {place.address}  ({place.network})")
    while True:
        answer = input("Number [1]: ").strip() or "1"
        if answer.isdecimal() and 1 <= int(answer) <= len(places):
            return places[int(answer) - 1].address
        say(f"Type a number from 1 to {len(places)}.")


def _checked(wanted: str, places: list[Place]) -> str:
    try:
        wanted = setting_parsers.address("--address", wanted)
    except ValueError as refusal:
        raise BadSetting(str(refusal)) from None
    ours = [place.address for place in places]
    if _is_elsewhere(wanted) and wanted not in ours:
        raise BadSetting(
            f"--address {wanted} is none of this machine's ({', '.join(ours) or 'it has none'})."
        )
    return wanted


def _is_elsewhere(address: str) -> bool:
    """Whether that is an address, and not of this machine alone; of a name, somebody else knows."""
    try:
        return not ip_address(address).is_loopback
    except ValueError:
        return False


def _kept_in(settings: Settings, folder: Path) -> Settings:
    """The same, on files of its own."""
    url = f"sqlite:///{folder.resolve() / 'talk.sqlite3'}"
    return replace(settings, database_url=url, system_database_url="", guestbook_url="")


def _remove_files(talk: Settings) -> None:
    store, checkpoints = (sqlite_file(url) for url in (talk.database_url, talk.system_database_url))
    with sqlite_files.locked(store) as is_ours:
        if not is_ours:
            raise BadSetting("A talk is under way already: go on with it, or end it by Ctrl+C in its window.")
        for file in (store, checkpoints, talk.guestbook_file):
            for suffix in ("", "-wal", "-shm", "-journal"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)


def _new_password() -> str:
    """One that can be typed in front of people, and not be guessed: one of 70 to the power of 8."""
    words = ("".join(secrets.choice(_SYLLABLES) for _ in range(_SYLLABLES_EACH)) for _ in range(_WORDS))
    return "-".join(words)


# --- reset and disarm -----------------------------------------------------------------------


def reset(settings: Settings, said: argparse.Namespace, say: Say) -> int:
    """Bring a shop back to its opening state; 0 once it is, or will be by its next start."""
    settings = _meant(settings, said)
    if not said.yes and not _confirms():
        refuse("A reset forgets every order, so nothing was done: say --yes if it is meant.")
    from store.durable import offline
    from store.stage import reset as stage_reset

    with offline.opened(settings):
        began_at = time.monotonic()
        stage_reset.ask()
        while stage_reset.is_asked():
            if time.monotonic() - began_at > _WAIT_SECONDS:
                say("No server is there to do it now: the next one to start begins anew.")
                return 0
            time.sleep(0.05)  # between two looks
        seconds, kept = time.monotonic() - began_at, stage_reset.why_guestbook_was_kept()
    say(f"The shop has begun anew, in {seconds:.1f} s.")
    if kept:
        say(f"The online guestbook keeps what it has. {kept}")
    return 0


def disarm(settings: Settings, said: argparse.Namespace, say: Say) -> int:
    """Take back every armed crash; 0, whether there was one or not."""
    settings = _meant(settings, said)
    from store.durable import offline
    from store.stage import crash_points

    with offline.opened(settings):
        names = crash_points.disarm_all()
    for name in names:
        known = crash_points.CRASH_POINTS.get(name)
        say(f"Disarmed: {known.words if known else name}.")
    if not names:
        say("Nothing is armed.")
    return 0


def _meant(settings: Settings, said: argparse.Namespace) -> Settings:
    """The settings of the shop that a command is about."""
    if said.talk:
        settings = _kept_in(settings, said.folder)
    elif not settings.offers_presenter_tools:
        refuse("The presenter's tools are off here, so nothing was done: set STORE_PRESENTER_PASSWORD.")
    if is_sqlite(settings.database_url) and not sqlite_file(settings.database_url).exists():
        refuse("There is no such shop yet, so nothing was done: start it first.")
    return settings


def _confirms() -> bool:
    return sys.stdin.isatty() and input("Forget every order? Type yes: ").strip().lower() == "yes"
