"""Servers that are forks of one process, the fork server, which has the imports done and nothing else.

A start of Python with all that a server imports takes longer than everything that the server does until it
answers. So the fork server does that beforehand: it opens no database and starts no thread, which is what
makes it safe to fork, and it forks a server whenever the parent asks for one. It is the program itself,
`python app.py server --fork-server <socket>`, and each fork goes on as `python app.py server <words>` would.

It is used for as long as no file has changed that it has imported. One that is gone is replaced, and where
none can be had, servers are started afresh. This module is the parent's side; the other is `fork_server`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence

from store.serving.lifeline import ParentsEnd
from store.serving.server_processes import FreshLauncher, ServerProcess, Surroundings

UNSEEN = 256
"""The exit code, which no process has, of a server whose fork server died before it: nobody was told."""
CODE = struct.Struct("i")
"""How the fork server passes on an exit code."""
_IMPORT_SECONDS = 60.0
"""How long the imports may take, on a machine that has other things to do, too."""
_FORK_SECONDS = 10.0
_CODE_SECONDS = 2.0
_LOOK_SECONDS = 0.1


def can_fork() -> bool:
    """Whether servers may be forked here: on macOS, what its own libraries do is not safe for that."""
    if sys.platform != "linux":
        return False
    try:
        pidfd = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(pidfd, 0)  # asks only whether that may be done
        finally:
            os.close(pidfd)
    except (AttributeError, OSError):  # an old kernel or Python, or a sandbox that does not know the calls
        return False
    return True


class _Gone(Exception):
    """The fork server does not answer, or may not be used any more."""


class ForkLauncher:
    """Has each server forked."""

    def __init__(self, command: Sequence[str], surroundings: Surroundings) -> None:
        self._command, self._surroundings = command, surroundings
        self._afresh = FreshLauncher(command, surroundings)
        self._fork_server: _ForkServer | None = None
        self._has_failed = False

    def start(self, words: Sequence[str], is_stopping: Callable[[], bool]) -> ServerProcess | None:
        """Have one forked by the fork server, or by a new one, or else start it afresh."""
        is_new = False
        while not is_new and not self._has_failed:
            is_new = self._fork_server is None
            if self._fork_server is None:
                self._fork_server = _ForkServer(self._command, self._surroundings)
            try:
                return self._fork_server.fork(words, is_stopping)
            except _Gone:
                self.close()
        # One that cannot even fork the first server would cost its imports at each start.
        self._has_failed = True
        return self._afresh.start(words, is_stopping)

    def close(self) -> None:
        """End the fork server; servers that it has forked go on."""
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None


class _ForkServer:
    """One process that servers are forked from."""

    def __init__(self, command: Sequence[str], surroundings: Surroundings) -> None:
        # Each message is read whole, and its end is the end of either.
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = surroundings.start(
                    [*command, "--fork-server", str(theirs.fileno())], subprocess.DEVNULL, theirs.fileno()
                )
            except OSError:
                self._control.close()
                raise
        self._has_answered = False

    def fork(self, words: Sequence[str], is_stopping: Callable[[], bool]) -> ServerProcess | None:
        """A server with these words on its command line; None if we were told to stop meanwhile.

        Raises:
            OSError: there is no memory or no process to be had.
        """
        line = ParentsEnd()
        code, theirs = os.pipe()
        try:
            with line.servers_end:
                ends = [line.servers_end.fileno(), theirs]
                socket.send_fds(self._control, [json.dumps(list(words)).encode()], ends)
            if not self._is_answered(is_stopping):
                line.close()
                os.close(code)
                return None
            message, [pidfd], _, _ = socket.recv_fds(self._control, 1000, 1)
        except (OSError, ValueError) as trouble:  # the latter: no file descriptor came
            line.close()  # of a fork that has not told us of itself, this is the end
            os.close(code)
            raise _Gone from trouble
        finally:
            os.close(theirs)
        self._has_answered = True
        return _Forked(json.loads(message)["pid"], pidfd, code, line)

    def _is_answered(self, is_stopping: Callable[[], bool]) -> bool:
        """Wait for the answer; False if we were told to stop meanwhile.

        Raises:
            TimeoutError: none comes.
        """
        deadline = time.monotonic() + (_FORK_SECONDS if self._has_answered else _IMPORT_SECONDS)
        while not _is_readable(self._control.fileno(), _LOOK_SECONDS):
            if is_stopping():
                return False
            if time.monotonic() > deadline:
                raise TimeoutError
        return True

    def close(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()


class _Forked:
    """A server that was forked: no child of ours, so its exit code is passed on by the fork server."""

    def __init__(self, pid: int, pidfd: int, code: int, line: ParentsEnd) -> None:
        self.pid, self._pidfd, self._code, self._line = pid, pidfd, code, line
        self._exit_code: int | None = None
        self._lock = threading.Lock()
        # Several threads look at it, so they are closed with the last one that knows of it.
        for descriptor in (pidfd, code):
            weakref.finalize(self, os.close, descriptor)

    @property
    def has_opened(self) -> bool:
        return self._line.has_opened

    def poll(self) -> int | None:
        return self._take_code() if _is_readable(self._pidfd, 0) else None

    def wait(self) -> int:
        _is_readable(self._pidfd, None)
        return self._take_code()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def tell(self, line: str) -> None:
        self._line.tell(line)

    def close(self) -> None:
        self._line.close()

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _take_code(self) -> int:
        with self._lock:
            if self._exit_code is None:
                told = os.read(self._code, CODE.size) if _is_readable(self._code, _CODE_SECONDS) else b""
                [self._exit_code] = CODE.unpack(told) if told else [UNSEEN]
            return self._exit_code


def _is_readable(descriptor: int, seconds: float | None) -> bool:
    """Whether there is something to be read, or its end, within so long; None for however long it takes."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if seconds is None else 1000 * seconds))
