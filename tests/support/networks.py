"""A machine with a network of its own, whose cable can be pulled: a network namespace of Linux."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

_PROGRAM = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "ip"
_NAME, _OUR_END, _ITS_END = f"widgets-{os.getpid()}", f"wid{os.getpid()}", f"get{os.getpid()}"
_LINK = os.getpid() % 250
OURS, ITS = f"10.213.{_LINK}.1", f"10.213.{_LINK}.2"
"""The addresses at both ends of the cable: nobody else can reach either."""
INSIDE = (
    "-c",
    f"import os, sys; os.execv({_PROGRAM!r}, ['ip', 'netns', 'exec', {_NAME!r}, sys.executable, 'app.py'])",
)
"""What a Python is told to become the shop there."""


def _ip(*words: str) -> None:
    subprocess.run([_PROGRAM, *words], check=True, capture_output=True, text=True)


@contextmanager
def network_of_its_own() -> Iterator[None]:
    """Have one; where that is not permitted a skip; a failure if it only lacks the program."""
    try:
        _ip("netns", "add", _NAME)
    except (OSError, subprocess.CalledProcessError) as trouble:
        why_not = f"no network namespace can be made here: {getattr(trouble, 'stderr', '') or trouble}"
        # A container may be without the right, and nobody can install that.
        if os.environ.get("WIDGET_STORE_REQUIRE_ALL") == "1" and "not permitted" not in why_not:
            pytest.fail(why_not)
        pytest.skip(why_not)
    try:
        _ip("link", "add", _OUR_END, "type", "veth", "peer", "name", _ITS_END, "netns", _NAME)
        _ip("addr", "add", f"{OURS}/30", "dev", _OUR_END)
        _ip("link", "set", _OUR_END, "up")
        for words in (
            ("addr", "add", f"{ITS}/30", "dev", _ITS_END),
            ("link", "set", _ITS_END, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", _NAME, *words)
        yield
    finally:
        _ip("netns", "del", _NAME)  # and the cable with it


@contextmanager
def cable_pulled() -> Iterator[None]:
    """Nothing comes through, in either direction, and nobody is told."""
    _ip("link", "set", _OUR_END, "down")
    try:
        yield
    finally:
        _ip("link", "set", _OUR_END, "up")


@contextmanager
def reachable_inside(path: str) -> Iterator[int]:
    """What listens on that Unix socket is reached from inside at `OURS`, on this port."""
    with socket.create_server((OURS, 0)) as listener:
        threading.Thread(target=_relay, args=[listener, path], daemon=True).start()
        yield listener.getsockname()[1]
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # or it would be accepting for ever


def _relay(listener: socket.socket, path: str) -> None:
    with suppress(OSError):  # closed by now
        while True:
            theirs, _ = listener.accept()
            threading.Thread(target=_connect, args=[theirs, path], daemon=True).start()


def _connect(theirs: socket.socket, path: str) -> None:
    with theirs, socket.socket(socket.AF_UNIX) as ours, suppress(OSError):  # nobody listens any more
        ours.connect(path)
        back = threading.Thread(target=_copy, args=[ours, theirs], daemon=True)
        back.start()
        _copy(theirs, ours)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):  # one of the two has hung up
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
