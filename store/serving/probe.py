"""How the parent asks whether its server answers."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from store.serving.server_processes import ServerProcess

_FIRST_ANSWER_SECONDS = 30.0


class FirstAnswer:
    """Asks until a server answers, and tells of it then."""

    def __init__(self, server: ServerProcess, url: str, tell: Callable[[int], None]) -> None:
        self._server, self._url, self._tell = server, urlsplit(url), tell
        self.came = False
        threading.Thread(target=self._wait_for_the_first_answer, name="first answer", daemon=True).start()

    def _wait_for_the_first_answer(self) -> None:
        while not self._is_answered():
            if self._server.poll() is not None:
                return
            time.sleep(0.02)  # between two requests; on an inherited socket the first one waits
        # If the server is dead by now, it was the next one that found this in the backlog.
        if self._server.poll() is None:
            self.came = True
            self._tell(self._server.pid)

    def _is_answered(self) -> bool:
        connection = http.client.HTTPConnection(self._url.netloc, timeout=_FIRST_ANSWER_SECONDS)
        try:
            connection.request("GET", self._url.path)
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True


class Question:
    """A request for a page that needs no database, sent again once it is answered.

    One that is not is left in its queue, like a visitor's: a server that is busy is slow, but answers.
    """

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._asked: socket.socket | None = None

    def is_answered_within(self, seconds: float) -> bool:
        """Whether an answer comes within so long; returns after `seconds` at the soonest."""
        began = time.monotonic()
        is_answered = self._look(seconds)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        return is_answered

    def close(self) -> None:
        """Wait for no answer any more."""
        if self._asked is not None:
            self._asked.close()
            self._asked = None

    def _look(self, seconds: float) -> bool:
        try:
            if self._asked is None:
                self._asked = self._ask(seconds)
            is_answered = bool(self._asked.recv(1))
        except TimeoutError:
            return False
        except OSError:
            is_answered = False
        self.close()
        return is_answered

    def _ask(self, seconds: float) -> socket.socket:
        asked = socket.create_connection((self._url.hostname or "", self._url.port or 80), seconds)
        asked.sendall(f"GET {self._url.path} HTTP/1.0\r\nHost: {self._url.netloc}\r\n\r\n".encode())
        return asked
