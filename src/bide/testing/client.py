"""A test client: it calls applications as a server would, without sockets."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from email.message import Message
from functools import partial
from http.cookiejar import CookieJar
from time import monotonic, sleep
from typing import Any, Final, TypeVar, Unpack
from urllib.parse import quote, urljoin

from bide.applications.mounts import Mounts
from bide.errors import BideError
from bide.exchange.peer import Peer
from bide.serving.dispatchers import Dispatchers
from bide.serving.hosting import hosted_all
from bide.serving.status import Status
from bide.settings import DEFAULTS, Settings
from bide.testing.exchange import Exchange, Overdue
from bide.testing.live import START, LoopThread, stop_seconds
from bide.testing.options import (
    Chosen,
    Headers,
    Options,
    RedirectError,
    SocketOptions,
    chosen,
    pairs_of,
)
from bide.testing.requests import Asking
from bide.testing.response import Response
from bide.testing.websocket import (
    OPENING,
    ClientWebSocket,
    SocketExchange,
    WebSocketRefused,
)
from bide.waiting.waiter import background_loop
from bide.wsgi.conversation import Application

E = TypeVar("E", bound=Exchange)

REDIRECTS: Final = 20
"""Redirections that are followed for one request."""
_LOOK: Final = 0.002


class Client:
    """Calls an application as Bide's server does, in this process: ``with Client(app) as c:``.

    A request may wait, push, yield promises and open a WebSocket, and its client may leave.
    Awaitables and ASGI applications run on an event loop in a thread of the client. A WSGI
    application runs in other threads, or on that loop, as its capabilities or ``executor`` say. So
    the application never runs on the test's thread, and does not see the test's context variables
    and thread locals.

    A client may be used from several threads at once, each with its own requests, but not from the
    application's threads. Leaving the ``with`` block cancels the requests in progress, and ends all
    threads.

    Args:
        application: the WSGI or ASGI callable, such as Flask's ``app``; or several, from
            :func:`bide.mount`.
        executor: "auto", "loop" or "threads"; as ``--executor``.
        threads: how many threads run WSGI applications at most.
        queue: how many requests may wait for a thread; more are answered 503.
        queue_timeout: seconds that they may wait; then they are answered 503.
        base_url: scheme and host that are put before paths.
        headers: a mapping or pairs, added to each request.
        environ: keys for each request's environ, such as ``REMOTE_USER``; not for ASGI.
        timeout: seconds after which a test fails instead of hanging; see :class:`Response`.
        raise_errors: whether an error of the application is raised in the test. If not, it is
            logged, and the response is a 500, or is cut.
        follow_redirects: whether :meth:`request` follows redirections, by default.
        http2: whether it speaks HTTP/2. The application sees ``HTTP/2``. A header that HTTP/2
            forbids raises ValueError.

    Attributes:
        cookies: the cookies that responses have set. They are sent back; you may change them.

    Raises:
        LoadError: on entering: ``application`` is not an application, or an ``on_start`` function
            or a lifespan has failed.
    """

    def __init__(
        self,
        application: Application | Mounts,
        *,
        executor: str = DEFAULTS.executor,
        threads: int = DEFAULTS.threads,
        queue: int = DEFAULTS.queue,
        queue_timeout: float = DEFAULTS.queue_timeout,
        base_url: str = "http://localhost",
        headers: Headers = (),
        environ: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        raise_errors: bool = True,
        follow_redirects: bool = False,
        http2: bool = False,
    ) -> None:
        self._application = application
        self._settings = Settings(
            executor=executor, threads=threads, queue=queue, queue_timeout=queue_timeout
        )
        self._base_url = base_url
        self._headers = pairs_of(type(self).__name__, headers)
        self._environ = dict(environ or {})
        self._timeout = timeout
        self._raise_errors = raise_errors
        self._follow_redirects = follow_redirects
        self._http2 = http2
        self.cookies = CookieJar()
        self._thread: LoopThread | None = None
        self._made: Dispatchers | None = None
        self._sockets: set[SocketExchange] = set()  # those in progress

    # Life ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the client without ``with``, as in ``setUp``; raises as the class says."""
        thread = LoopThread("bide-test-client")
        thread.start()

        async def make() -> Dispatchers:
            return hosted_all(self._application, self._settings, thread.loop)

        # As a server does: what the application has made once waits there outside requests, too.
        background_loop.lend(thread.loop)
        try:
            made = thread.call(make(), START)
            thread.call(made.lifetime.start(), START)
        except BaseException:
            background_loop.take_back(thread.loop)
            thread.stop()
            raise
        self._made = made
        self._thread = thread

    def close(self) -> None:
        """Cancel the requests in progress, and end the threads; may be called again.

        WebSockets are closed with 1012 first.
        """
        thread, dispatchers = self._thread, self._made
        self._thread = self._made = None
        if thread is None or dispatchers is None:
            return

        async def stop() -> None:
            for each in list(self._sockets):
                each.messaging.drain()
            await dispatchers.stop()

        try:
            thread.call(stop(), stop_seconds())
        finally:
            background_loop.take_back(thread.loop)
        thread.stop()

    def __enter__(self) -> Client:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> Status:
        """Return how many requests run, wait, and are queued; from any thread."""
        return self._dispatchers.status()

    def until_waiting(self, number: int) -> None:
        """Return once exactly ``number`` requests wait, and no other is in progress.

        Raises:
            Overdue: that did not happen within the client's ``timeout``.
        """
        deadline = monotonic() + self._timeout
        while True:
            status = self.status()
            if status.waiting == number and not status.running and not status.queued:
                return
            if monotonic() >= deadline:
                raise Overdue(
                    f"never {number} waiting: {status.waiting} wait, {status.running} run, "
                    f"{status.queued} are queued"
                )
            sleep(_LOOK)

    @property
    def _dispatchers(self) -> Dispatchers:
        if self._made is None:
            name = type(self).__name__
            raise BideError(f"the client is not open: use it in `with {name}(...) as client:`")
        return self._made

    # Requests -----------------------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Unpack[Options]) -> Response:
        """Make a request; return its response when it is complete and the application has ended.

        Args:
            method: GET, POST, …
            path: path and query, or a whole URL.
            options: see :class:`bide.testing.options.Options`. Without ``follow_redirects`` the
                client's counts.

        Raises:
            RedirectError: there are more than 20 redirections, or the body cannot be sent again.
            TypeError: there is no such option, or it has a value of a wrong type.
            ValueError: ``path`` does not begin with a slash, or two options say the same.
            Exception: as :class:`Response` says.
        """
        return self._read("request", method, path, options)

    def get(self, path: str, **options: Unpack[Options]) -> Response:
        """Make a GET request; as :meth:`request`."""
        return self._read("get", "GET", path, options)

    def head(self, path: str, **options: Unpack[Options]) -> Response:
        """Make a HEAD request."""
        return self._read("head", "HEAD", path, options)

    def post(self, path: str, **options: Unpack[Options]) -> Response:
        """Make a POST request."""
        return self._read("post", "POST", path, options)

    def put(self, path: str, **options: Unpack[Options]) -> Response:
        """Make a PUT request."""
        return self._read("put", "PUT", path, options)

    def patch(self, path: str, **options: Unpack[Options]) -> Response:
        """Make a PATCH request."""
        return self._read("patch", "PATCH", path, options)

    def delete(self, path: str, **options: Unpack[Options]) -> Response:
        """Make a DELETE request."""
        return self._read("delete", "DELETE", path, options)

    def options(self, path: str, **options: Unpack[Options]) -> Response:
        """Make an OPTIONS request."""
        return self._read("options", "OPTIONS", path, options)

    def stream(self, method: str, path: str, **options: Unpack[Options]) -> Response:
        """Begin a request; return its response at once, before any of it has come.

        Use the response as a context manager. Redirections are followed only with
        ``follow_redirects=True`` here: then this waits for the head of the response.

        Args:
            method: GET, POST, …
            path: path and query, or a whole URL.
            options: as for :meth:`request`.

        Raises:
            RedirectError, TypeError, ValueError: as :meth:`request` does.
        """
        what = chosen("stream", options)
        url = self._url("stream", path, what.query)
        return (
            self._follow(method, url, what)
            if what.follow_redirects
            else self._start(method, url, what)
        )

    def websocket(
        self,
        path: str,
        *,
        subprotocols: Iterable[str] = (),
        **options: Unpack[SocketOptions],
    ) -> ClientWebSocket:
        """Open a WebSocket; return it once the application has accepted it.

        Use it as a context manager.

        Args:
            path: path and query, or a whole URL, of ``ws`` or ``http``.
            subprotocols: what the client offers, those that it prefers first.
            options: ``params``, ``headers`` (such as ``Origin``), ``environ``, ``timeout`` and
                ``raise_errors``, as for :meth:`request`. The ``timeout`` is that of each method of
                the socket that waits.

        Raises:
            TypeError, ValueError: as :meth:`request` does.
            WebSocketRefused: the application has answered in place of accepting.
            Overdue: it has done neither within the ``timeout``.
            Exception: what the application has raised before that.
        """
        what = chosen("websocket", options, SocketOptions)
        url = self._url("websocket", path, what.query)
        if url.startswith(("ws://", "wss://")):
            url = url.replace("ws", "http", 1)
        fields = [*self._headers, *what.headers, *OPENING]
        offered = ", ".join(subprotocols)
        if offered:
            fields.append(("Sec-WebSocket-Protocol", offered))
        asking = Asking("GET", url, fields, self.cookies, self._http2)
        exchange = self._exchange(SocketExchange, asking, what)
        self._sockets.add(exchange)
        exchange.forget = partial(self._sockets.discard, exchange)
        exchange.start({**self._environ, **what.environ}, None)
        seconds = self._timeout if what.timeout is None else what.timeout
        accepted = exchange.accepted(monotonic() + seconds)
        if accepted is None:
            response = Response(exchange, seconds, asking.arrived)
            response.read()
            raise WebSocketRefused(response)
        answered = Message()
        for name, value in accepted.headers:
            answered[name] = value
        asking.arrived(answered)
        return ClientWebSocket(exchange, seconds, accepted, answered)

    def _url(self, called: str, path: str, query: str) -> str:
        if not isinstance(path, str):
            raise TypeError(f"{called}() takes a path or a URL, not {path!r}")
        if "://" not in path.partition("?")[0]:
            if not path.startswith("/"):
                raise ValueError(f"{called}(): {path!r} is not a path: it must begin with /")
            path = self._base_url.rstrip("/") + path
        path = path.partition("#")[0]
        if query:
            path += ("&" if "?" in path else "?") + query
        # As browsers do; what is escaped already stays so.
        return quote(path, safe=string.punctuation)

    def _read(self, called: str, method: str, path: str, options: Options) -> Response:
        """Make a request for the method that the test has called; read its response."""
        what = chosen(called, options)
        url = self._url(called, path, what.query)
        follow = what.follow_redirects
        if self._follow_redirects if follow is None else follow:
            response = self._follow(method, url, what)
        else:
            response = self._start(method, url, what)
        response.read()
        return response

    def _follow(self, method: str, url: str, what: Chosen) -> Response:
        """Begin a request, and those to which it is redirected; return the last one's response."""
        for _ in range(REDIRECTS + 1):
            response = self._start(method, url, what)
            location = response.headers["Location"]
            if location is None or response.status not in (301, 302, 303, 307, 308):
                return response
            response.read()
            url = quote(urljoin(url, location).partition("#")[0], safe=string.punctuation)
            method, what = what.redirected(response.status, method, url)
        raise RedirectError(f"more than {REDIRECTS} redirections, the next one to {url}")

    def _start(self, method: str, url: str, what: Chosen) -> Response:
        fields = [*self._headers, *what.headers]
        asking = Asking(method, url, fields, self.cookies, self._http2)
        asking.describe(what.content, what.kind)
        exchange = self._exchange(Exchange, asking, what)
        exchange.start({**self._environ, **what.environ}, what.content)
        seconds = self._timeout if what.timeout is None else what.timeout
        return Response(exchange, seconds, asking.arrived)

    def _exchange(self, kind: type[E], asking: Asking, what: Chosen) -> E:
        dispatchers, parts = self._dispatchers, asking.parts
        assert self._thread is not None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return kind(
            dispatchers,
            self._thread,
            Peer(parts.scheme, (parts.hostname or "", port), ("127.0.0.1", 0)),
            asking.request(what.content is not None),
            self._raise_errors if what.raise_errors is None else what.raise_errors,
        )
