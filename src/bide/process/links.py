"""What a supervisor and a worker say to each other: lines on a pair of sockets.

From the supervisor: ``accept SLOT N`` with N listening sockets, ``leave SLOT``, ``keep`` (the
sockets outlive the server), ``warn`` (it will stop soon), ``reopen`` (the log files), ``tell`` with
a socket on which the worker is asked what it does, ``retire``, ``stop``; to a zygote ``reopen``,
and ``fork SLOT CELL`` with the new worker's end of its pair. From the worker: ``pid NUMBER``,
``ready``, ``left`` (it accepts no more), ``renew REASON``, ``signalled`` (it was sent a signal to
end). The end of the line is the end of the other process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Final

MOST: Final = 250
"""Descriptors that are taken with one message; Linux sends 253 at most."""


class Link:
    """One end of the pair; it never blocks, unless it is made to.

    Args:
        sock: the end.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.open = True
        self._unsent: deque[tuple[bytes, Sequence[socket.socket], bool]] = deque()
        self._received = b""
        self._descriptors: deque[int] = deque()

    @classmethod
    def pair(cls) -> tuple[Link, socket.socket]:
        """Return this end, and the other one for the other process."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def fileno(self) -> int:
        """Return the descriptor, for a poll."""
        return self.socket.fileno()

    @property
    def behind(self) -> bool:
        """Whether something waits to be sent: call :meth:`flush` when the socket is writable."""
        return bool(self._unsent)

    def send(self, line: str, sockets: Sequence[socket.socket] = (), closing: bool = False) -> None:
        """Send a line; later if the other end does not read now, never if it has gone.

        Args:
            line: its words.
            sockets: go with it.
            closing: whether to close these here when they are sent.
        """
        self._unsent.append((f"{line}\n".encode(), sockets, closing))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the other end takes it."""
        try:
            while self._unsent:
                data, sockets, _ = self._unsent[0]
                descriptors = [each.fileno() for each in sockets]
                sent = (
                    socket.send_fds(self.socket, [data], descriptors)
                    if sockets
                    else self.socket.send(data)
                )
                # The sockets go with the first byte.
                self._sent()
                if sent < len(data):
                    self._unsent.appendleft((data[sent:], (), False))
        except BlockingIOError:
            return
        except OSError:  # it has gone: reading says so
            while self._unsent:
                self._sent()

    def _sent(self) -> None:
        _, sockets, closing = self._unsent.popleft()
        for each in sockets if closing else ():
            each.close()

    def receive(self) -> list[list[str]]:
        """Return the words of each line that has come; ``open`` is false when no more will come."""
        while self.open:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.socket, 4096, MOST)
            except BlockingIOError:
                break
            except OSError:
                data, descriptors = b"", []
            self._descriptors.extend(descriptors)
            if not data:
                self.open = False
            self._received += data
        *lines, self._received = self._received.split(b"\n")
        return [line.decode().split() for line in lines]

    def take(self, number: int) -> list[socket.socket]:
        """Return the sockets that came with a line, in its order.

        Raises:
            OSError: this process had no descriptors left for them.
        """
        if len(self._descriptors) < number:
            self._drop_descriptors()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return [socket.socket(fileno=self._descriptors.popleft()) for _ in range(number)]

    def close(self) -> None:
        """Close this end, and what came with lines that nobody has looked at."""
        self.open = False
        self.socket.close()
        while self._unsent:
            self._sent()
        self._drop_descriptors()

    def _drop_descriptors(self) -> None:
        while self._descriptors:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.popleft())
