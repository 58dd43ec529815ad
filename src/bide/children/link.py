"""The server's end of one child; all on the loop."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from collections import deque
from contextlib import suppress
from typing import Any, Final, Protocol

from bide.children.frames import CANCEL, READY, RECORD, REQUEST, Frames, frame, number_of

log = logging.getLogger("bide")

_AT_ONCE: Final = 256 * 1024


class Callee(Protocol):
    """What a link tells of its call."""

    def received(self, kind: int, payload: bytes) -> None:
        """Called with each frame of the call."""


class Crew(Protocol):
    """What a link belongs to."""

    def ready(self, link: Link) -> None:
        """Called when a child takes calls."""

    def closed(self, link: Link) -> None:
        """Called when nothing more comes from a child."""


class Link:
    """A child, and the socket that leads to it.

    Args:
        loop: the server's.
        crew: what it belongs to.
        number: what the nursery calls the child.

    Attributes:
        number: likewise.
        its: the child's end of the socket, until that is sent.
        pid: its process number, once it is ready; else 0.
        call: the call that it makes; None while it is idle.
        ended: how it has ended, in words; empty for as long as that is not known.
        open: whether something may still come from it.
        doomed: whether its end has been asked for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, crew: Crew, number: int) -> None:
        self._loop = loop
        self._crew = crew
        self.number = number
        self._socket, self.its = socket.socketpair()
        self._socket.setblocking(False)
        self._frames = Frames()
        self._unsent: deque[bytes] = deque()
        self._calls = 0
        self.pid = 0
        self.call: Callee | None = None
        self.ended = ""
        self.open = True
        self.doomed = False
        loop.add_reader(self._socket, self._readable)

    # To the child -------------------------------------------------------------------------------

    def begin(self, call: Callee, payload: bytes) -> None:
        """Have it make a call."""
        self.call = call
        self._calls += 1
        self.send(REQUEST, payload)

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame of the call."""
        if not self.open:
            return
        self._unsent.append(frame(kind, self._calls, payload))
        if len(self._unsent) == 1:
            self._write()

    def cancel(self, payload: bytes) -> None:
        """Tell it of a cancellation."""
        self.send(CANCEL, payload)

    def _write(self) -> None:
        while self._unsent:
            data = self._unsent[0]
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._writable)
                return
            except OSError:  # it has ended, which the reading side learns
                self._unsent.clear()
                return
            if sent < len(data):
                self._unsent[0] = data[sent:]
            else:
                self._unsent.popleft()

    def _writable(self) -> None:
        self._loop.remove_writer(self._socket)
        self._write()

    # From the child -----------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self.close()
            self._crew.closed(self)

    def _take(self, data: bytes) -> None:
        self._frames.feed(data)
        for kind, call, payload in self._frames:
            if kind == RECORD:
                _log(payload)
            elif kind == READY:
                self.pid = number_of(payload)
                self._crew.ready(self)
            elif call == self._calls and self.call is not None:
                self.call.received(kind, payload)

    def read_rest(self) -> None:
        """Called when it has ended: take what it has sent before, and close the socket.

        Its end may not be there: a library that forks by itself leaves the socket open in a process
        that it has started.
        """
        with suppress(OSError):
            while self.open and (data := self._socket.recv(_AT_ONCE)):
                self._take(data)
        self.close()

    def close(self) -> None:
        """Close the socket: the child ends."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self.its.close()

    def after_fork(self) -> None:
        """Drop it, in a fork of the server, whose loop is dropped, too."""
        self.open = False
        self._socket.close()


def _log(payload: bytes) -> None:
    fields: dict[str, Any] = pickle.loads(payload)
    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
