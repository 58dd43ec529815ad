"""What runs in a child: one call after the other, on its main thread, where waiting blocks.

A second thread reads what the server sends: the body, what the client has taken, cancellations. So
these reach a call that waits, and one that computes finds them at its next wait.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import threading
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from logging.handlers import QueueHandler
from queue import SimpleQueue
from time import monotonic
from typing import Any, Final, NoReturn

from greenlet import greenlet

from bide.children.channel import ChildChannel
from bide.children.frames import (
    BEGUN,
    BODY,
    BROKEN,
    CANCEL,
    MORE,
    READY,
    RECORD,
    REQUEST,
    ROOM,
    STOPPING,
    Frames,
    error_of,
    frame,
    number,
    number_of,
)
from bide.children.requests import Told
from bide.errors import ClientDisconnected, ServerStopping
from bide.exchange.call import Call
from bide.exchange.identity import Identity, current
from bide.exchange.stream import Stream
from bide.forks import flush_output, share, share_greenlets
from bide.settings import DEFAULTS
from bide.twins import key_of
from bide.waiting.child import give_up
from bide.waiting.cleanups import cleanup_time
from bide.waiting.locks import Lock, holds_lock
from bide.waiting.waiter import Waiter, background_loop
from bide.wsgi.conversation import Conversation
from bide.wsgi.environ import server_environ
from bide.wsgi.site import Site

log = logging.getLogger("bide")

BODY_WINDOW: Final = DEFAULTS.limit_unread
"""Bytes of a body that wait in the child before the server is asked for no more."""


class ChildSite(Site):
    """What the conversations of one child share.

    Args:
        application: the WSGI callable.
        name: what it is called in the log.
        start: calls the ``on_start`` functions; returns the state that they have made.
        stop: calls the ``on_stop`` functions.
        status: returns the counts, given whether the server stops.

    Attributes:
        stopping: whether the server stops.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        name: str,
        start: Callable[[], dict[str, Any]],
        stop: Callable[[], None],
        status: Callable[[bool], Any],
    ) -> None:
        self.application = application
        self.name = name
        self.state = {}
        self.environ = {}
        self.start = start
        self.stop = stop
        self.stopping = False
        self._status = status

    def status(self) -> Any:
        """Return the counts of this process."""
        return self._status(self.stopping)

    def done(self, call: Call) -> None:
        """Do nothing: the child tells the server."""

    def work(self, sock: socket.socket) -> NoReturn:
        """Be a child: make calls until the server ends, and then end the process."""
        code = 1
        try:
            code = _Child(self, sock).work()
        except BaseException:
            log.exception("internal error: a process that makes calls has failed")
        finally:
            flush_output()
            os._exit(code)


class _InChild(Conversation):
    """A conversation whose id of the request is added to the response by the server."""

    __slots__ = ("_identity",)

    def __init__(self, site: Site, stream: Stream, waiter: Waiter, identity: Identity | None):
        super().__init__(site, stream, waiter)
        self._identity = identity

    def run(self) -> None:
        """Call the application."""
        self.times.begun = monotonic()
        if self._identity is not None:
            current.set(self._identity)
        super().run()

    def extended(self, environ: dict[str, Any]) -> dict[str, Any]:
        """Add Bide's own keys."""
        environ = super().extended(environ)
        identity = self._identity
        if identity is not None:
            environ["bide.request_id"] = environ[key_of(identity.header.encode())] = identity.id
        return environ


class _CallGreenlet(greenlet):
    """The greenlet of a conversation; ``current_waiter`` finds its waiter here."""

    waiter: Waiter | None
    conversation: Conversation

    def after_fork(self) -> None:
        """Called in a process that the application has forked: the call is its parent's."""
        self.waiter = None
        self.conversation.after_fork()


share_greenlets(_CallGreenlet, _CallGreenlet.after_fork)


class _Exchange:
    """One call: what the reading thread has made of it."""

    def __init__(self, child: _Child, call: int, told: Told) -> None:
        self.number = call
        self.channel = ChildChannel(told.peer, call, child.send)
        self.stream = Stream(told.request, self.channel, BODY_WINDOW if told.has_body else 0)
        self.stream.expects_continue = told.expects_continue
        self.conversation = _InChild(
            child.site, self.stream, Waiter(background_loop.get()), told.identity
        )


class _Child:
    """The child: its two threads, and its socket."""

    def __init__(self, site: ChildSite, sock: socket.socket) -> None:
        self.site = site
        self._socket = sock
        self._lock = Lock()
        self._inbox: SimpleQueue[_Exchange | None] = SimpleQueue()
        self._exchange: _Exchange | None = None  # the last that has come; on the reading thread
        share(self, _Child.after_fork)

    def send(self, kind: int, call: int, payload: bytes | memoryview = b"") -> None:
        """Send a frame; from any thread. Nothing is sent to a server that has ended."""
        data = frame(kind, call, payload)
        with self._lock, suppress(OSError):
            self._socket.sendall(data)

    def after_fork(self) -> None:
        """Called in a process that the application has forked: what it logs is its own."""
        give_up(self._socket)
        self._lock = Lock()  # it may be held by the reading thread, which is not here
        _drop_handlers()

    def work(self) -> int:
        """Make calls; return the code with which the process ends."""
        _log_to(self)
        site = self.site
        site.environ = server_environ(False) | {"wsgi.multiprocess": True}
        try:
            site.state = site.start()
        except BaseException:
            log.exception("a process of %s cannot start", site.name)
            return 1
        start_new_thread(self._read, ())
        self.send(READY, 0, number(os.getpid()))
        while (exchange := self._inbox.get()) is not None:
            self.send(BEGUN, exchange.number)
            conversation = exchange.conversation
            running = _CallGreenlet(conversation.run)
            running.gr_context = Context()
            running.waiter = conversation.waiter
            running.conversation = conversation
            running.switch()
            exchange.channel.finish()
            del conversation, running, exchange
        site.stop()
        return 0

    # On the reading thread -----------------------------------------------------------------------

    def _read(self) -> None:
        frames = Frames()
        while True:
            try:
                data = self._socket.recv(256 * 1024)
            except OSError:
                data = b""
            if not data:
                break
            frames.feed(data)
            for kind, call, payload in frames:
                self._take(kind, call, payload)
        self._end()

    def _take(self, kind: int, call: int, payload: bytes) -> None:
        if kind == REQUEST:
            self._exchange = _Exchange(self, call, Told(payload))
            self._inbox.put(self._exchange)
            return
        if kind == STOPPING:
            self.site.stopping = True
        exchange = self._exchange
        if exchange is None or exchange.number != call:
            return
        body = exchange.stream.body
        if kind == BODY:
            if not payload:
                body.finish()
                return
            body.feed(payload)
            if not body.must_pause():
                self.send(MORE, call)
        elif kind == BROKEN:
            body.fail(error_of(payload)[0])
        elif kind == ROOM:
            exchange.channel.taken_by_client(number_of(payload))
        elif kind == CANCEL:
            cancellation, (firm, gone) = error_of(payload)
            if gone:
                _leave(exchange)
            exchange.conversation.cancel(cancellation, firm)

    def _end(self) -> None:
        """Called when the server has ended, or has no more calls."""
        exchange = self._exchange
        self._inbox.put(None)
        if exchange is not None:
            _leave(exchange)
            exchange.conversation.cancel(ServerStopping("the server stops"), firm=True)
        # The main thread ends the process, unless it computes for longer than it may.
        threading.Event().wait(cleanup_time.seconds + 1.0)
        os._exit(1)


def _leave(exchange: _Exchange) -> None:
    """Take note that the client is gone."""
    stream = exchange.stream
    stream.gone = True
    exchange.channel.close()
    if not stream.body.complete:
        stream.body.fail(ClientDisconnected("the client has left"))


class _ToServer(QueueHandler):
    """Sends what is logged to the server, whose log has one configuration."""

    def __init__(self, child: _Child) -> None:
        super().__init__(SimpleQueue())
        self._child = child

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record."""
        self._child.send(RECORD, 0, pickle.dumps(record.__dict__))


def _log_to(child: _Child) -> None:
    """Have Bide's own log, also where it is configured otherwise, in the server's."""
    _drop_handlers()
    logger = logging.getLogger("bide")
    logger.addHandler(_ToServer(child))
    logger.propagate = False


def _drop_handlers() -> None:
    logger = logging.getLogger("bide")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


holds_lock(_Child.send)
