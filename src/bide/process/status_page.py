"""The process of the status page, as the server sees it: started, answered, started again.

It is a new interpreter, which has a socket that leads here, and where it listens. It asks for the
instance by a line, and gets it by a line. When this process ends, however it does, so does it.

Nothing here blocks. One thread polls it: the supervisor's, or that of the control socket.
"""

from __future__ import annotations

import json
import logging
import select
import socket
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final

from bide.errors import BindError
from bide.process.control import Answers
from bide.process.links import Link
from bide.process.status_place import Place
from bide.settings import Settings
from bide.waiting.children import Child

log = logging.getLogger("bide")

STATUS: Final = ["status"]
"""What it may ask. It talks to browsers, so it can tell the server nothing."""
SOON: Final = 1.0
"""Seconds after which it is started again; twice as many each time that it has not lived long."""
LATE: Final = 30.0
"""The most of these; and how long it must have lived to count as one that works."""


def start_child(place: Place, settings: Settings) -> Child:
    """Start a process of the status page; tell it where it listens, who may look, how to log.

    The token goes this way, so that nothing shows it that shows processes.

    Raises:
        OSError: it cannot be started, or has ended at once.
    """
    child = Child("bide.seeing.status")
    told = {"token": settings.status_token, "log_format": settings.log_format}
    try:
        descriptors = [each.fileno() for each in place.sockets]
        socket.send_fds(child.socket, [json.dumps(told).encode()], descriptors)
    except OSError:
        child.end()
        raise
    return child


class StatusPage:
    """The status page of a server; on one thread.

    Args:
        settings: where it is, and who may look.
        answers: what the server answers to ``status``.
        start: starts a process.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        answers: Answers,
        start: Callable[[Place, Settings], Child] = start_child,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._settings = settings
        self._answers = answers
        self._start = start
        self._clock = clock
        self._place = Place(settings)
        self._child: Child | None = None
        self._link: Link | None = None
        self._began = 0.0  # when it was started
        self._delay = SOON
        self._due = inf  # when it is started, or the address tried again

    def open(self, patient: bool = False) -> None:
        """Listen; the process is started by the next :meth:`look`.

        Args:
            patient: whether another version of this server may have the address, until it ends.

        Raises:
            BindError: the address cannot be listened on.
            SettingError: it can be reached from other machines, and there is no token.
        """
        try:
            self._place.open(0.0 if patient else None)
            self._due = 0.0
            log.info("the status page is at %s", self._place.urls)
        except BindError:
            if not patient:
                raise
            self._due = self._clock() + SOON

    def register(self, watched: select.poll) -> None:
        """Register what is to be polled before the next :meth:`look`."""
        if self._link is not None:
            watched.register(self._link, select.POLLIN | (select.POLLOUT * self._link.behind))

    @property
    def next_due(self) -> float:
        """When :meth:`look` has something to do without being told, in monotonic seconds."""
        return self._due

    def look(self) -> None:
        """Start, answer, and send, as far as that is possible now."""
        if self._link is not None:
            self._hear(self._link)
        elif self._clock() >= self._due:
            self._due = inf
            if self._place.sockets:
                self._begin()
            else:
                self.open(patient=True)

    def _begin(self) -> None:
        self._began = self._clock()
        try:
            self._child = self._start(self._place, self._settings)
        except OSError as error:
            self._ended(f"cannot be started ({error.strerror})")
            return
        self._link = Link(self._child.socket)

    def _hear(self, link: Link) -> None:
        link.flush()

        def reply(answer: dict[str, Any]) -> None:
            if link.open:  # else it has ended meanwhile
                link.send(json.dumps(answer, separators=(",", ":")))

        for words in link.receive():
            if words != STATUS:
                log.error("the process of the status page has asked for %s", " ".join(words))
                reply({"error": "only the status"})
                continue
            self._answers.answer(words, reply)
        if not link.open:
            self._ended(self._end())

    def _ended(self, how: str) -> None:
        now = self._clock()
        delay = SOON if now - self._began >= LATE else self._delay
        self._delay = min(2 * delay, LATE)
        self._due = now + delay
        log.error("the process of the status page %s: it is started again in %g s", how, delay)

    def _end(self) -> str:
        child, link = self._child, self._link
        self._child = self._link = None
        assert child is not None
        assert link is not None
        link.close()
        return child.end()

    def remove(self) -> None:
        """Remove the file of its Unix socket; from any thread."""
        self._place.remove()

    def close(self) -> None:
        """End the process, and close where it listens."""
        self._due = inf
        if self._link is not None:
            self._end()
        self._place.remove()
        self._place.close_here()

    def after_fork(self) -> None:
        """Close in a forked child what is the server's: else the page would outlive the server."""
        self._due = inf
        self._place.close_here()
        if self._child is not None and self._link is not None:
            self._link.close()
            self._child.after_fork()
        self._child = self._link = None
