"""In place of Twisted's ``WSGIResource``: a waiting WSGI application as a resource of twisted.web.

Everything but the application's blocking code runs on the reactor's thread. A request that waits
holds no thread; a ``Deferred`` that it waits for needs no second loop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from bide.applications.loading import ApplicationFailed
from bide.applications.mounts import Mounts
from bide.errors import LoadError
from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.hosts.channel import HostChannel
from bide.hosts.twisted.lifetime import ReactorLifetime
from bide.hosts.twisted.reactor import loop_of
from bide.serving.dispatcher import Dispatcher
from bide.serving.hosting import hosted
from bide.settings import DEFAULTS, Settings
from bide.waiting.cleanups import cleanup_time
from bide.waiting.waiter import background_loop
from bide.wsgi.conversation import Application, Conversation

log = logging.getLogger("bide")

WINDOW: Final = DEFAULTS.limit_unread
"""Bytes of a request's body that are in memory for the application."""
_LOOK: Final = 0.01
"""Seconds between two checks whether all requests have ended, when the reactor stops."""


@implementer(IResource)
class Resource:
    """A leaf resource of twisted.web that calls a WSGI application (PEP 3333).

    All methods are called on the reactor's thread. ``on_start`` functions are called when the
    reactor starts, or else at the first request; requests that come meanwhile wait. ``on_stop``
    functions are called when the reactor stops.

    Args:
        reactor: Twisted's. Its shutdown cancels requests that wait, and waits for their end.
        application: the WSGI callable.
        executor: "auto", "loop" (the reactor's thread) or "threads"; as ``--executor``.
        threads: how many threads run the application at most; requests that wait do not count.
        queue: how many requests may wait for a thread; more are answered 503.
        queue_timeout: seconds that they may wait; then they are answered 503.

    Raises:
        LoadError: ``application`` is not a WSGI application.
        SettingError: an option has a value that it cannot have.
    """

    isLeaf = True

    def __init__(
        self,
        reactor: Any,
        application: Application,
        *,
        executor: str = DEFAULTS.executor,
        threads: int = DEFAULTS.threads,
        queue: int = DEFAULTS.queue,
        queue_timeout: float = DEFAULTS.queue_timeout,
    ) -> None:
        if isinstance(application, Mounts):
            raise LoadError(
                "several applications are put into Twisted's own tree, a bide.hosts.twisted."
                "Resource for each; bide itself serves what bide.mount returns"
            )
        self.reactor = reactor
        self._loop: Any = loop_of(reactor)
        self._lends = isinstance(self._loop, asyncio.AbstractEventLoop)
        self.dispatcher = hosted(
            application,
            Settings(executor=executor, threads=threads, queue=queue, queue_timeout=queue_timeout),
            self._loop,
            None if self._lends else ReactorLifetime(self._loop),
        )
        self._starting: Any = None  # the task
        self._early: list[_Exchange] = []  # requests that wait for it
        # As Bide's server does, for waits of the application's own threads.
        if self._lends:
            background_loop.lend(self._loop)
        self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._shut_down)
        if not reactor.running:  # else this may be another thread
            reactor.callWhenRunning(self._start)

    def render(self, request: Any) -> int:
        """Called by twisted.web (``IResource``): serve a request."""
        exchange = _Exchange(self._loop, self.dispatcher, request)
        # Not inside the protocol's own call: an application on this thread may take long.
        self._loop.call_soon(self._begin, exchange)
        return NOT_DONE_YET

    def _begin(self, exchange: _Exchange) -> None:
        if self.dispatcher.lifetime.started or self.dispatcher.stopping:
            exchange.begin()
        else:
            self._early.append(exchange)
            self._start()

    def _start(self) -> None:
        if self._starting is None and not (
            self.dispatcher.lifetime.started or self.dispatcher.stopping
        ):
            self._starting = self._loop.create_task(self.dispatcher.lifetime.start())
            self._starting.add_done_callback(self._started)

    def _started(self, task: Any) -> None:
        self._starting = None
        early, self._early = self._early, []
        try:
            task.result()
        except (ApplicationFailed, asyncio.CancelledError) as error:
            # The next request tries again.
            said = str(error) or "the functions registered with on_start were cancelled"
            log.error("%s", said, exc_info=error.__cause__)
            for exchange in early:
                exchange.fail()
        else:
            for exchange in early:
                exchange.begin()

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        """Raise: a leaf has no children."""
        raise RuntimeError("a Bide resource is a leaf: it has no children")

    def putChild(self, path: bytes, child: Any) -> None:
        """Raise: a leaf has no children."""
        raise RuntimeError("a Bide resource is a leaf: it takes no children")

    def stop(self) -> Deferred[None]:
        """Cancel what waits, call ``on_stop`` functions, and end the threads.

        Call it for a resource that is removed from its site while the reactor goes on.

        Returns:
            A ``Deferred`` that fires when all has ended, in bounded time: requests have ten
            seconds, and so have the functions.
        """
        self.reactor.removeSystemEventTrigger(self._trigger)
        return self._shut_down()

    def _shut_down(self) -> Deferred[None]:
        self.dispatcher.cancel()
        early, self._early = self._early, []
        for exchange in early:
            exchange.begin()  # and is answered 503
        ended: Deferred[None] = Deferred()
        self._look(ended, self.reactor.seconds() + cleanup_time.seconds)
        return ended

    def _look(self, ended: Deferred[None], deadline: float) -> None:
        if (self.dispatcher.in_progress or self._starting) and self.reactor.seconds() < deadline:
            self.reactor.callLater(_LOOK, self._look, ended, deadline)
            return
        stopping = self._loop.create_task(self.dispatcher.lifetime.stop(cleanup_time.seconds))
        # What was answered last is sent in the reactor's next turn; then connections are closed.
        stopping.add_done_callback(lambda _: self.reactor.callLater(_LOOK, self._end, ended))

    def _end(self, ended: Deferred[None]) -> None:
        if self._lends:
            background_loop.take_back(self._loop)
        self.dispatcher.end()
        ended.callback(None)


@implementer(IPushProducer)
class _Exchange:
    """One request; on the reactor's thread, except for what the conversation calls."""

    def __init__(self, loop: Any, dispatcher: Dispatcher, request: Any) -> None:
        self._loop = loop  # asked, not the reactor, which takes a millisecond more on asyncio's
        self._dispatcher = dispatcher
        self._request = request
        peer = Peer(
            "https" if request.isSecure() else "http",
            _address(request.getHost()),
            _address(request.getClientAddress()),
        )
        self._channel = HostChannel(peer, self._ready, room_again=self._room_again)
        self._stream = Stream(_request(request), self._channel, WINDOW)
        self._conversation: Conversation | None = None
        self._paused = False  # by the transport: the client is behind
        self._unsent: list[bytes] = []  # given to the transport, which is behind
        self._over = False
        request.defaultContentType = None  # the headers are the application's
        request.notifyFinish().addErrback(self._leave)

    def begin(self) -> None:
        """Run the application."""
        if self._over:
            return
        self._request.registerProducer(self, True)
        more = {"twisted.request": self._request}
        self._conversation = self._dispatcher.begin(self._stream, more)
        self._dispatcher.run(self._conversation)
        self._feed()

    def fail(self) -> None:
        """Answer 500, since the application could not start."""
        if self._over:
            return
        self._over = True
        self._channel.close()
        self._request.setResponseCode(500)
        self._request.setHeader(b"Content-Length", b"0")
        self._request.finish()

    # The conversation's; from any thread --------------------------------------------------------

    def _ready(self) -> None:
        self._loop.call_soon_threadsafe(self._send)

    def _room_again(self) -> None:
        self._loop.call_soon_threadsafe(self._feed)

    # The reactor's ------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Read from the body, which Twisted has received whole, as fast as the application does."""
        body = self._stream.body
        content: Any = self._request.content
        while not self._over and not body.complete:
            if body.must_pause():
                return
            block = content.read(WINDOW)
            if block:
                body.feed(block)
            else:
                body.finish()

    def _send(self) -> None:
        part = self._channel.take()
        if part is None or self._over:
            return
        request = self._request
        if part.head is not None:
            request.setResponseCode(part.head.code, part.head.reason.encode("latin-1"))
            for name, _ in part.head.headers:
                request.responseHeaders.removeHeader(name)  # Twisted's own Date and Server
            for name, value in part.head.headers:
                request.responseHeaders.addRawHeader(name, value)
            if part.length is not None:
                request.responseHeaders.setRawHeaders("Content-Length", [str(part.length)])
        for block in part.blocks:
            request.write(block)
        if part.ended:
            self._end()
            request.finish()
        elif part.cut:
            self._end()
            self._cut()
        elif self._paused:
            self._unsent += part.blocks
        else:
            self._channel.sent(part.blocks)

    def _cut(self) -> None:
        """End the connection, so that what was sent does not look complete."""
        channel: Any = self._request.channel
        abort = getattr(channel, "abortConnection", None)  # HTTP/2's, of one stream
        head = self._stream.head
        if abort is not None:
            abort()
        elif self._request.chunked or (head is not None and head.length):
            channel.loseConnection()  # after what is on its way; no last chunk, or too few bytes
        else:
            # A plain end would make it look complete: reset, once the transport could send.
            self._loop.call_later(0, channel.transport.abortConnection)

    def _end(self) -> None:
        self._over = True
        self._request.unregisterProducer()
        self._channel.close()

    def _leave(self, _: Any) -> None:
        if self._over:
            return
        self._over = True
        gone = self._channel.lose(self._stream, "the client has left")
        if self._conversation is not None:
            self._conversation.cancel(gone)

    # IPushProducer ------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Called when the client is behind."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Called when the client takes more."""
        self._paused = False
        unsent, self._unsent = self._unsent, []
        if unsent:
            self._channel.sent(unsent)

    def stopProducing(self) -> None:
        """Called when the client has left."""
        self._leave(None)


def _request(request: Any) -> Request:
    target: bytes = request.uri
    raw, _, query = target.partition(b"?")
    headers = [
        (name, value)
        for name, values in request.requestHeaders.getAllRawHeaders()
        for value in values
    ]
    version = request.clientproto.decode("latin-1").removeprefix("HTTP/")
    made = Request(
        request.method.decode("latin-1"),
        target,
        raw,
        query,
        version,
        headers,
    )
    made.root, made.path = _root_and_path(request)
    made.has_body = True
    return made


def _root_and_path(request: Any) -> tuple[bytes, bytes]:
    """Return the path that led to the resource, and the rest of the path, both decoded."""
    root = b"".join(b"/" + each for each in request.prepath)
    path = b"".join(b"/" + each for each in request.postpath)
    if not path and root.endswith(b"/"):  # the resource is the child "" of another
        return root[:-1], b"/"
    return root, path


def _address(address: Any) -> tuple[str, int] | None:
    host = getattr(address, "host", None)
    return None if host is None else (str(host), int(address.port))
