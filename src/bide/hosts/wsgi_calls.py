"""A call under any WSGI server: all that waits blocks the server's thread, as in 2004.

The conversation runs in a greenlet of the server's own thread, and passes each block to that thread
before it goes on. So ``write``, push and promises become the plain iterable of PEP 3333, and the
server needs nothing more.
"""

from __future__ import annotations

import contextvars
import sys
import weakref
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any

from greenlet import greenlet

from bide.capabilities import name_of
from bide.errors import ClientDisconnected, LocalProtocolError, WaitError
from bide.exchange.call import Call
from bide.exchange.messages import Head
from bide.exchange.peer import Peer
from bide.exchange.stream import ENDED, Stream
from bide.forks import share_greenlets
from bide.hosts.channel import HostChannel, request_of, status_line
from bide.hosts.parking import HostParking, HostWaiter
from bide.hosts.starting import Starting
from bide.serving.loggers import log
from bide.serving.requests import RequestStatus, look_at
from bide.serving.status import Status, show
from bide.waiting.waiter import Waiter, current_waiter
from bide.wsgi.conversation import Application, Conversation
from bide.wsgi.site import Site


class Blocking(Site):
    """A plain WSGI application around one that waits; made by :func:`bide.blocking`.

    Args:
        application: the WSGI callable.
        name: what it is called.
        starting: the start that it shares with others.
    """

    def __init__(
        self, application: Application, name: str = "", starting: Starting | None = None
    ) -> None:
        self.app = self.application = application
        self.name = name or name_of(application)
        # By identity, which keeps no call alive. Single operations only, from any thread:
        self._running: dict[int, weakref.ref[Call]] = {}
        self.waiting: set[int] = set()
        self.environ = {}  # the host makes each request's environ
        self._starting = starting or Starting()
        self.state = self._starting.state
        self._begun = False

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Call the application (PEP 3333); on a thread of the server."""
        if current_waiter() is not None:  # under Bide, or in another of these: it waits there
            return self.app(environ, start_response)
        _check_host()
        if not self._begun:
            self._starting.ensure()
            show(self, Blocking.status, Blocking.requests)
            self._begun = True
        return _Call(self, environ).begin(start_response)

    def status(self) -> Status:
        """Return the counts; each request has a thread of the host's, also while it waits."""
        waiting = len(self.waiting)
        threads = len(self._running)
        return Status(
            running=max(0, threads - waiting),
            waiting=waiting,
            queued=0,
            threads=threads,
            threads_busy=threads,
            threads_max=0,
            connections=threads,
            spawned=0,
            client_connections_refused=0,
            client_requests_refused=0,
            stopping=False,
        )

    def requests(self) -> tuple[RequestStatus, ...]:
        """Return the status of each request in progress; from any thread."""
        running = [call for each in list(self._running.values()) if (call := each()) is not None]
        return look_at(running, (), self.name)

    def started(self, call: Call) -> None:
        """Called when a call begins."""
        self._running[id(call)] = weakref.ref(call)

    def done(self, call: Call) -> None:
        """Called when a call has ended."""
        self._running.pop(id(call), None)


def _check_host() -> None:
    """Raise WaitError where a wait could never end."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None:
        return
    options = getattr(uwsgi, "opt", {})
    if not any(options.get(name) for name in ("enable-threads", b"enable-threads", "threads")):
        raise WaitError(
            "uWSGI runs no Python threads here, so no wait could ever end: start it with "
            "--enable-threads"
        )


class _Hosted(Conversation):
    """A conversation that has its environ from the host, and raises its errors to the host."""

    __slots__ = ("__weakref__", "_channel", "_environ", "error")

    def __init__(
        self,
        site: Blocking,
        stream: Stream,
        waiter: Waiter,
        environ: dict[str, Any],
        channel: HostChannel,
    ) -> None:
        super().__init__(site, stream, waiter)
        self._environ: dict[str, Any] | None = environ
        self._channel = channel
        self.error: BaseException | None = None

    def environ(self) -> dict[str, Any]:
        """Return the host's environ; called once."""
        environ, self._environ = self._environ, None  # it will refer to this: no cycle
        assert environ is not None
        return self.extended(environ)

    def failed(self, error: BaseException) -> None:
        """Keep the error for the host, which logs and answers as it always does."""
        if self.stream.state == ENDED:  # raised, it would have the host cut what is complete
            super().failed(error)
        else:
            self.error = error

    def close(self, close: Callable[[], object]) -> None:
        """Close the iterable, after the host has sent the end: closing may take long."""
        if self.stream.state == ENDED:
            closed = self._channel.closed()
            if closed is not None:
                self.waiter.wait_io(closed)
        super().close(close)


class _Thread(greenlet):
    """The greenlet of a conversation; ``current_waiter`` finds its waiter here."""

    waiter: Waiter | None

    def after_fork(self) -> None:
        """Called in a forked child: a wait blocks there, since the request is its parent's."""
        self.waiter = None


share_greenlets(_Thread, _Thread.after_fork)


class _Call:
    """One call by the host, and the iterable that it returns; on the host's thread."""

    _ident = 0  # of that thread, once there is something to close

    def __init__(self, site: Blocking, environ: dict[str, Any]) -> None:
        self._parking = HostParking(site.waiting)
        peer = Peer(environ.get("wsgi.url_scheme", "http"), None, None)  # the rest is the host's
        # One byte is enough for the application to wait for the host.
        self._channel = HostChannel(peer, self._parking.look, limit=1)
        stream = Stream(request_of(environ), self._channel, window=0)
        waiter = HostWaiter(self._parking)
        self._conversation = _Hosted(site, stream, waiter, environ, self._channel)
        waiter.begun = self._conversation.started
        self._thread = _Thread(self._conversation.run)
        self._thread.waiter = waiter
        self._thread.gr_context = contextvars.copy_context()  # with what middleware has set
        self._parking.parked = self._thread
        self._head: Head | None = None
        self._length: int | None = None
        self._blocks: list[bytes] = []  # for the host, the last first
        self._sent: list[bytes] = []  # what the host has had, and has sent when it asks again
        self._over = False  # nothing will come after the blocks
        self._closed = False
        self._ident = get_ident()
        site.started(self._conversation)

    def __del__(self) -> None:
        # The host breaks PEP 3333 and never closes. A greenlet can go on only on its own thread.
        if get_ident() == self._ident and not self._thread.dead:
            try:
                self.close()
            except BaseException:  # a destructor has nobody to raise it to
                log.exception("the application failed: %s", self._conversation.describe())

    # The host's ---------------------------------------------------------------------------------

    def begin(self, start_response: Callable[..., Any]) -> Any:
        """Run to the first block, or to the end."""
        self._parking.go_on()
        self._receive()
        head = self._head
        if head is None:
            self._finish()
            return []  # nothing was sent, and nothing went wrong: the host has left meanwhile
        headers = list(head.headers)  # PEP 3333 lets the host change it, and it may be a constant
        if self._length is not None:
            headers.append(("Content-Length", str(self._length)))
        try:
            start_response(status_line(head), headers)
        except BaseException:
            self.close()
            raise
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self._blocks:
            self._pass_on()
            if self._over:
                if self._conversation.stream.state != ENDED:
                    self._finish()
                raise StopIteration  # the host sends the end, and then has the rest done by close()
            self._receive()
        block = self._blocks.pop()
        self._sent.append(block)
        return block

    def close(self) -> None:
        """Called by the host at the end, in any case (PEP 3333): end the conversation."""
        self._pass_on()
        self._closed = True
        if not self._over:
            self._conversation.stream.gone = True
            self._conversation.cancel(ClientDisconnected("the client has left"))
        self._finish()

    def _pass_on(self) -> None:
        """Tell the conversation's channel which blocks the host has sent."""
        sent, self._sent = self._sent, []
        if sent:
            self._channel.sent(sent)

    def _receive(self) -> None:
        """Run the conversation until there is something to send, or no more will come."""
        while not self._blocks and not self._over:
            part = self._channel.take()
            if part is not None:
                if part.head is not None:
                    self._head, self._length = part.head, part.length
                self._blocks = part.blocks[::-1]
                self._over = part.ended or part.cut
            else:
                self._parking.await_event()

    def _finish(self) -> None:
        """Run the conversation to its end, and raise what it has raised."""
        self._channel.close()
        while not self._thread.dead:
            self._parking.await_event()
        conversation = self._conversation
        error, conversation.error = conversation.error, None
        if error is None and conversation.stream.state != ENDED and not self._closed:
            error = LocalProtocolError("the application has given its response up")
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: no cycle
