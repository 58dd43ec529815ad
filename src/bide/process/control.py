"""The control socket: those who may use its file ask what a server does, and tell it what to do.

A request is a line of words; the answer is a line of JSON, and then the end of the connection. No
client holds up anything: who says nothing is given up, and so is who does not read.

A server without workers has a thread for it, which answers also while the event loop or all other
threads are blocked. A supervisor has no thread: it polls the :class:`Desk` beside its links.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic
from typing import Any, Final, Protocol

from bide.forks import share, unshare

log = logging.getLogger("bide")

READ_SECONDS: Final = 10.0
"""How long a client may take to say what it wants."""
SEND_SECONDS: Final = 30.0
"""How long a client may take nothing of what it is sent."""
MOST_CLIENTS: Final = 64
"""How many are answered at a time; more wait to be accepted."""
REST: Final = 1.0
"""Seconds for which nobody is accepted when that has failed: no descriptor is left, for example."""
LONGEST: Final = 1000
"""Bytes of a request, at most."""
SHORTEST: Final = 0.1
"""Seconds between two answers of one ``watch``, at least."""

Reply = Callable[[dict[str, Any]], None]


class Polled(Protocol):
    """What one thread serves, beside others, without ever blocking."""

    def register(self, watched: select.poll) -> None:
        """Register what is to be polled before the next :meth:`look`."""

    @property
    def next_due(self) -> float:
        """When :meth:`look` has something to do without being told, in monotonic seconds."""

    def look(self) -> None:
        """Do what is possible now."""

    def close(self) -> None:
        """End, and close all of it."""

    def after_fork(self) -> None:
        """Close in a forked child what is the parent's."""


class Answers:
    """What a server answers; its own words beside ``watch``."""

    def answer(self, words: list[str], reply: Reply) -> None:
        """Do what a client asks, and reply; at once, or later on the same thread.

        Args:
            words: what it asks; one at least.
            reply: called once, with the answer.
        """
        raise NotImplementedError


class Client:
    """One connection.

    Attributes:
        socket: its end here.
        deadline: when it is given up, in monotonic seconds.
        unsent: what it has not taken.
        hears: whether it may still say something.
        begun: whether it has said what it wants.
        asked: whether an answer to it is due.
        interval: seconds between two answers; 0: it gets one.
        next_due: when it gets the next one; infinite: there is none, or it is being made.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.deadline = deadline
        self.received = b""
        self.unsent = b""
        self.hears = True
        self.begun = False
        self.asked = False
        self.interval = 0.0
        self.next_due = inf


class Desk:
    """Answers clients without ever blocking; on one thread, which polls for it.

    Args:
        listener: where they connect; None: nowhere, they are added.
        answers: what they are answered.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        listener: socket.socket | None,
        answers: Answers,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._listener = listener
        self._answers = answers
        self._clock = clock
        self._clients: list[Client] = []
        self._rests_until = -inf  # accepts nobody before
        if listener is not None:
            listener.setblocking(False)

    def add(self, sock: socket.socket) -> None:
        """Serve a client that is connected already, and may take its time to ask."""
        self._clients.append(Client(sock, inf))

    def register(self, watched: select.poll) -> None:
        """Register what is to be polled before the next :meth:`look`."""
        if self._accepts and self._listener is not None:
            watched.register(self._listener, select.POLLIN)
        for each in self._clients:
            # Never for nothing: of a client that has gone, the system would tell without an end.
            events = (select.POLLIN if each.hears else 0) | (select.POLLOUT if each.unsent else 0)
            if events:
                watched.register(each.socket, events)

    @property
    def next_due(self) -> float:
        """When :meth:`look` has something to do without being told, in monotonic seconds."""
        due = min((min(each.deadline, each.next_due) for each in self._clients), default=inf)
        return min(due, self._rests_until) if self._rests_until > self._clock() else due

    @property
    def _accepts(self) -> bool:
        return len(self._clients) < MOST_CLIENTS and self._clock() >= self._rests_until

    def look(self) -> None:
        """Accept, read, answer and send, as far as that is possible now."""
        self._accept()
        for client in list(self._clients):
            if client.hears:
                self._read(client)
            self._send(client)
        now = self._clock()
        for client in list(self._clients):
            if now >= client.deadline:
                self._drop(client)
            elif now >= client.next_due:
                client.next_due = inf if client.unsent else now + client.interval
                if not client.unsent and not client.asked:
                    self._ask(client, ["status"])

    def close(self) -> None:
        """Close all connections here, and the listener."""
        for each in self._clients:
            each.socket.close()
        self._clients.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def after_fork(self) -> None:
        """Close in a forked child what is the parent's."""
        self.close()

    def _accept(self) -> None:
        while self._listener is not None and self._accepts:
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # nobody is there, or has left
                return
            except OSError:  # of who waits to be accepted, the system would tell without an end
                self._rests_until = self._clock() + REST
                return
            self._clients.append(Client(sock, self._clock() + READ_SECONDS))

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(2 * LONGEST)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if client.begun:  # it may say no more
            client.hears = bool(data)
            return
        client.received += data
        line, end, _ = client.received.partition(b"\n")
        if end or len(line) > LONGEST:
            self._begin(client, line)
        elif not data:  # it has left without asking
            self._drop(client)

    def _begin(self, client: Client, line: bytes) -> None:
        client.begun = True
        client.deadline = inf
        words = line.decode("ascii", "replace").split()
        if len(line) > LONGEST or not words:
            self._reply(client, {"error": "a request is a line of words, such as: status"})
        elif words[0] == "watch":
            self._watch(client, words[1:])
        else:
            self._ask(client, words)

    def _watch(self, client: Client, words: list[str]) -> None:
        try:
            (seconds,) = map(float, words)
        except ValueError:
            seconds = 0.0
        if not SHORTEST <= seconds < inf:
            error = f"it is: watch SECONDS, with {SHORTEST:g} seconds or more"
            self._reply(client, {"error": error})
            return
        client.interval = seconds
        client.next_due = self._clock()

    def _ask(self, client: Client, words: list[str]) -> None:
        client.asked = True

        def reply(answer: dict[str, Any]) -> None:
            self._reply(client, answer)

        try:
            self._answers.answer(words, reply)
        except Exception:
            log.exception("internal error: the control socket's %r failed", words[0])
            reply({"error": "internal error: see the log"})

    def _reply(self, client: Client, answer: dict[str, Any]) -> None:
        client.asked = False
        if client not in self._clients:
            return
        client.unsent += json.dumps(answer, separators=(",", ":")).encode() + b"\n"
        client.deadline = self._clock() + SEND_SECONDS
        self._send(client)

    def _send(self, client: Client) -> None:
        if not client.unsent:
            return
        try:
            sent = client.socket.send(client.unsent)
        except BlockingIOError:
            return
        except OSError:  # it has left
            self._drop(client)
            return
        client.unsent = client.unsent[sent:]
        client.deadline = self._clock() + SEND_SECONDS if client.unsent else inf
        if client.unsent:
            return
        if not client.interval:
            self._drop(client)
        elif client.next_due == inf:  # it was behind
            client.next_due = self._clock() + client.interval

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            client.socket.close()


class Control:
    """A thread that serves a :class:`Desk`, in a server without a supervisor.

    Args:
        listener: where clients connect; None: nowhere, they are added.
        answers: what they are answered, on the thread.
        others: what the thread polls beside that.
    """

    def __init__(
        self, listener: socket.socket | None, answers: Answers, others: Iterable[Polled] = ()
    ) -> None:
        self._desk = Desk(listener, answers)
        self._polled: list[Polled] = [self._desk, *others]
        self._added: deque[socket.socket] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._ended = False

    def start(self) -> None:
        """Begin to answer."""
        share(self, Control.after_fork)
        start_new_thread(self._run, ())

    def add(self, sock: socket.socket) -> None:
        """Serve a client that is connected already; from any thread."""
        self._added.append(sock)
        self._writer.send(b"+")

    def stop(self) -> None:
        """End the thread, which closes all of it."""
        unshare(self)
        self._ended = True
        self._writer.close()

    def after_fork(self) -> None:
        """Called in a forked child, which has no such thread: close what is the parent's."""
        for polled in self._polled:
            polled.after_fork()
        for each in (*self._added, self._reader, self._writer):
            each.close()

    def _run(self) -> None:
        while not self._ended:
            watched = select.poll()
            watched.register(self._reader, select.POLLIN)
            for each in self._polled:
                each.register(watched)
            until = min(each.next_due for each in self._polled)
            watched.poll(None if until == inf else max(0, int((until - monotonic()) * 1000) + 1))
            with contextlib.suppress(BlockingIOError):
                self._reader.recv(64)
            while self._added:
                self._desk.add(self._added.popleft())
            for each in self._polled:
                each.look()
        for each in self._polled:
            each.close()
        self._reader.close()
