"""The fork server itself: imports all that a server needs, and then forks one whenever its parent asks.

See `fork_client`, which is the parent's side. It knows the modules of the store by their names alone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from store.serving.fork_client import CODE
from store.settings import ROOT

T = TypeVar("T")
_STOPPING = {signal.SIGTERM, signal.SIGINT}
_NOT_OURS = ("store.storm", "store.explore")
"""No server needs them."""
_LATER = (
    "encodings.idna",
    "encodings.unicode_escape",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)
"""What is imported only once it is used."""
_PREPARED = (ROOT / "templates", ROOT / "static")
"""Folders whose files are read beforehand."""
_Files = dict[str, tuple[int, int]]


def become_a_server(control_descriptor: int, prepare: Callable[[], T]) -> tuple[list[str], T | None]:
    """Fork servers until the parent is gone; returns in each of them, with the words of its command line.

    And with what `prepare` has made for all of them beforehand, if it could. It may not connect to anything.
    """
    # They go to everything of a shop at once, where a service is stopped; then the parent ends its server,
    # and is told of that by this process. In a fork, those that have come meanwhile are taken.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    control = socket.socket(fileno=control_descriptor)
    began_at_ns = time.time_ns()
    is_whole = _import_all()
    try:
        prepared = prepare() if is_whole else None
    except (Exception, SystemExit):  # noqa: BLE001 - whatever is wrong with it, the server tells
        prepared = None
    if threading.active_count() > 1:
        os._exit(1)  # a fork would have their locks, and not them: servers are started afresh
    files = _files_in_use()
    is_whole = is_whole and all(changed_ns < began_at_ns for changed_ns, _ in files.values())
    # What is there now is there for good: no fork looks through it, which would copy its pages.
    gc.collect()
    gc.freeze()
    return _fork(control, files, is_whole=is_whole), prepared


def _import_all() -> bool:
    """Import what a server needs; whether all could be.

    What cannot be imported is left to the server, which imports it again, and dies of what is wrong with it.
    """
    names = [
        module.name
        for module in pkgutil.walk_packages([str(ROOT / "store")], "store.", onerror=lambda _: None)
        if not module.name.startswith(_NOT_OURS)
    ]
    is_whole = True
    for name in (*names, *_LATER):
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the server tells
            is_whole = False
    return is_whole


def _files_in_use() -> _Files:
    """The files of all that is imported or prepared, each with when it was changed and its size."""
    paths = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    found: _Files = {}
    prepared = (str(path) for folder in _PREPARED for path in folder.rglob("*.*"))
    for path in (*paths, *prepared):
        if path is not None:
            with contextlib.suppress(OSError):
                # Path.stat() takes three times as long, and this stands between a crash and the next page.
                state = os.stat(path)  # noqa: PTH116
                found[path] = (state.st_mtime_ns, state.st_size)
    return found


def _fork(control: socket.socket, files: _Files, *, is_whole: bool) -> list[str]:
    """Fork a server for each request.

    The first is as new as one that is started afresh; a later one may not be, and is refused then.
    """
    poller = select.poll()
    poller.register(control, select.POLLIN)
    servers: dict[int, tuple[int, int]] = {}
    """Of each pidfd the process id, and where its exit code is to be told."""
    has_forked = False
    while True:
        for ready, _ in poller.poll():
            if ready != control.fileno():
                pid, code = servers.pop(ready)
                poller.unregister(ready)
                os.close(ready)
                _tell_exit_code(pid, code)
                continue
            request, ends, _, _ = socket.recv_fds(control, 65536, 2)
            if not request or (has_forked and not (is_whole and files == _files_in_use())):
                os._exit(0)  # the parent is gone, or makes another one
            line, code = ends
            try:
                pid = os.fork()
            except OSError:
                os._exit(1)  # no memory or no process to be had: so the parent finds, too
            if pid == 0:
                for descriptor in (control.detach(), code, *servers, *(each for _, each in servers.values())):
                    os.close(descriptor)
                os.setsid()  # as its parent would have it started afresh
                os.dup2(line, 0)
                os.close(line)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
                words: list[str] = json.loads(request)
                return words
            has_forked = True
            os.close(line)
            pidfd = os.pidfd_open(pid)
            servers[pidfd] = (pid, code)
            poller.register(pidfd, select.POLLIN)
            socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [pidfd])


def _tell_exit_code(pid: int, code: int) -> None:
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # nobody wants to know any more
        os.write(code, CODE.pack(os.waitstatus_to_exitcode(status)))
    os.close(code)
