"""Under any WSGI server: everything that waits blocks the server's thread, as in 2004.

The conversation runs in a greenlet of the server's own thread, and hands it each block before it
goes on: that makes ``write``, push, and promises into the plain iterable that PEP 3333 asks for, so
that nothing more is needed of the server.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextvars
import string
import sys
import weakref
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any
from urllib.parse import quote

from greenlet import greenlet

from bide.capabilities import name_of
from bide.errors import ClientDisconnected, LocalProtocolError, WaitError
from bide.exchange.call import Call
from bide.exchange.messages import Head, Request
from bide.exchange.peer import Peer
from bide.exchange.stream import ENDED, Stream
from bide.hosts.channel import HostChannel, status_line
from bide.hosts.parking import HostParking, HostWaiter
from bide.serving.lifetime import Lifetime
from bide.serving.loggers import log
from bide.serving.requests import RequestStatus, look_at
from bide.serving.status import Status, show
from bide.waiting.waiter import Waiter, current_waiter
from bide.wsgi.conversation import Application, Conversation
from bide.wsgi.site import Site


class Blocking(Site):
    """A WSGI application made of one that waits; see :func:`blocking`."""

    def __init__(self, application: Application) -> None:
        self.app = self.application = application
        self.name = name_of(application)
        # By identity, which keeps nothing; single operations only, from any thread:
        self._running: dict[int, weakref.ref[Call]] = {}
        self.waiting: set[int] = set()
        self.environ = {}  # those of its requests are the host's
        self._lifetime = Lifetime()
        self.state = self._lifetime.state
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._unstarted = [None]  # who takes it starts; the others wait

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Call the application; PEP 3333's signature."""
        if current_waiter() is not None:  # under Bide, or in another of these: it waits there
            return self.app(environ, start_response)
        _check_host()
        if not self._lifetime.started:
            self._start()
        return _Call(self, environ).begin(start_response)

    def _start(self) -> None:
        """Call the ``on_start`` functions, before the first request of the process.

        Raises:
            ApplicationFailed: one of them has failed; the next request tries again.
        """
        started = self._started
        try:
            self._unstarted.pop()
        except IndexError:
            started.result()
            return
        try:
            self._lifetime.start_here()
        except BaseException as error:
            self._started = concurrent.futures.Future()
            self._unstarted.append(None)
            started.set_exception(error)
            raise
        atexit.register(self._lifetime.stop_here)
        show(self)
        started.set_result(None)

    def status(self) -> Status:
        """Count the requests in progress; each has a thread of the host's, also while it waits."""
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
            stopping=False,
        )

    def requests(self) -> tuple[RequestStatus, ...]:
        """Look at each request in progress; from any thread."""
        running = [call for each in list(self._running.values()) if (call := each()) is not None]
        return look_at(running, (), self.name)

    def started(self, call: Call) -> None:
        """Called when a call begins."""
        self._running[id(call)] = weakref.ref(call)

    def done(self, call: Call) -> None:
        """Called when a call has ended."""
        self._running.pop(id(call), None)


def blocking(application: Application) -> Blocking:
    """Make an application that waits into one for any WSGI server.

    Promises in the iterable, push, coroutine functions, async iterables, ``wait`` and its company:
    all of it works as under Bide, but each wait blocks the thread of the server that it happens in,
    and awaitables run on one background loop of the process. Under Bide this does nothing.

    The server's ``write`` is not needed; what the application raises is raised to the server. That
    the client has left is learnt when the server says so, by calling ``close``.

    Args:
        application: called as PEP 3333 says, on the server's thread.
    """
    return Blocking(application)


def _check_host() -> None:
    """Raise WaitError where a wait could never end."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None:
        return
    options = getattr(uwsgi, "opt", {})
    if not any(options.get(name) for name in ("enable-threads", b"enable-threads", "threads")):
        raise WaitError(
            "uWSGI runs no Python threads here, so nothing that is waited for could go on: "
            "start it with --enable-threads"
        )


class _Hosted(Conversation):
    """A conversation whose environ, and whose errors, are the host's."""

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
        """Return the host's, once."""
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
        """Let the host send the end first, and close: closing may take its time."""
        if self.stream.state == ENDED:
            closed = self._channel.closed()
            if closed is not None:
                self.waiter.wait_io(closed)
        super().close(close)


class _Thread(greenlet):
    """What a conversation runs in; ``current_waiter`` finds its waiter here."""

    waiter: Waiter | None

    def after_fork(self) -> None:
        """Have a wait block in a forked child, as outside: the request is its parent's."""
        self.waiter = None


class _Call:
    """One call by the host: the iterable that it gets. All of it on the host's thread."""

    def __init__(self, site: Blocking, environ: dict[str, Any]) -> None:
        self._ident = get_ident()
        self._parking = HostParking(site.waiting)
        peer = Peer(environ.get("wsgi.url_scheme", "http"), None, None)  # the rest is the host's
        # One byte is enough for the application to wait for the host.
        self._channel = HostChannel(peer, self._parking.look, limit=1)
        stream = Stream(_request(environ), self._channel, window=0)
        waiter = HostWaiter(self._parking)
        self._conversation = _Hosted(site, stream, waiter, environ, self._channel)
        waiter.times.begun = self._conversation.started
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
        site.started(self._conversation)

    def __del__(self) -> None:
        # A host that breaks PEP 3333 and never closes. A greenlet goes on on its own thread only.
        if not self._thread.dead and get_ident() == self._ident:
            try:
                self.close()
            except BaseException:
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
        """End: the host wants no more. PEP 3333 has it called in any case."""
        self._pass_on()
        self._closed = True
        if not self._over:
            self._conversation.stream.gone = True
            self._conversation.cancel(ClientDisconnected("the client has left"))
        self._finish()

    def _pass_on(self) -> None:
        """Let the conversation know what the host has sent."""
        sent, self._sent = self._sent, []
        if sent:
            self._channel.sent(sent)

    def _receive(self) -> None:
        """Let the conversation go on until there is something to send, or no more will come."""
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
        """Let the conversation come to its end, and raise what it has raised."""
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


def _request(environ: dict[str, Any]) -> Request:
    """Return what a stream has to know of a request whose environ is the host's."""
    root, path, query = (
        environ.get(key, "").encode("latin-1", "replace")
        for key in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
    )
    raw = quote(root + path, safe=string.punctuation.replace("%", "")).encode()
    request = Request(
        environ["REQUEST_METHOD"],
        raw + b"?" + query if query else raw,
        raw,
        query,
        environ.get("SERVER_PROTOCOL", "HTTP/1.0").removeprefix("HTTP/"),
        [],
    )
    request.root, request.path = root, path
    return request
