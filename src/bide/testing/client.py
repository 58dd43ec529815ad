"""The client of a test: it asks an application as a server would, without sockets."""

from __future__ import annotations

import json as json_module
import string
from collections.abc import Callable, Iterable, Mapping
from email.message import Message
from http.cookiejar import CookieJar
from time import monotonic, sleep
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit
from urllib.request import Request as UrlRequest

from bide.errors import BideError
from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.serving.dispatcher import Dispatcher, hosted
from bide.serving.status import Status
from bide.settings import DEFAULTS, Settings
from bide.testing.exchange import Exchange, Overdue
from bide.testing.live import START, STOP, LoopThread
from bide.testing.response import Response
from bide.waiting.waiter import background_loop
from bide.wsgi.conversation import Application

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

REDIRECTS: Final = 20
"""Redirections that are followed for one request."""
_LOOK: Final = 0.002


class RedirectError(BideError):
    """A redirection that is not followed: one too many, or one whose body cannot be sent again."""


class Client:
    """Asks a WSGI application as Bide's server does, in this process: ``with Client(app) as c:``.

    Each request is a conversation of Bide's own: it may wait, push, yield promises, and be left.
    What waits runs on an event loop in a thread of the client's; the application runs on lanes,
    other threads, or on that loop, as its capabilities or ``executor`` say. So it never runs on
    the test's thread, and finds none of the test's context variables and thread locals.

    A client may be used from several threads at once, for each request by itself; not from the
    application's own threads. Leaving the ``with`` block cancels what still waits and ends all
    threads.

    Args:
        application: the WSGI callable, as Flask's ``app`` or ``app.wsgi_app``.
        executor: "auto", "loop" or "threads"; as ``--executor``.
        threads: lanes at most.
        queue: requests that may wait for a lane; more are answered 503.
        queue_timeout: seconds that they may wait.
        base_url: scheme and host of paths.
        headers: for each request.
        environ: keys for each request's environ, as ``REMOTE_USER``.
        timeout: seconds after which a test fails, in place of hanging; see :class:`Response`.
        raise_errors: whether what the application raises is raised in the test; else it is logged,
            and the answer is what Bide's is: 500, or a response that is cut.
        follow_redirects: whether :meth:`request` does, by default.

    Attributes:
        cookies: what responses have set, sent back as browsers do; change it as you like.

    Raises:
        LoadError: on entering: it is no WSGI application, or an ``on_start`` function has failed.
    """

    def __init__(
        self,
        application: Application,
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
    ) -> None:
        self._application = application
        self._settings = Settings(
            executor=executor, threads=threads, queue=queue, queue_timeout=queue_timeout
        )
        self._base_url = base_url
        self._headers = _pairs(headers)
        self._environ = dict(environ or {})
        self._timeout = timeout
        self._raise_errors = raise_errors
        self._follow_redirects = follow_redirects
        self.cookies = CookieJar()
        self._thread: LoopThread | None = None
        self._made: Dispatcher | None = None

    # Life ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the loop; for those that have no ``with``, as in ``setUp``."""
        thread = LoopThread("bide-test-client")
        thread.start()

        async def make() -> Dispatcher:
            return hosted(self._application, self._settings, thread.loop)

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
        """Cancel what waits, and end the threads; without effect on one that is closed."""
        thread, dispatcher = self._thread, self._made
        self._thread = self._made = None
        if thread is None or dispatcher is None:
            return
        try:
            thread.call(dispatcher.stop(), STOP)
        finally:
            background_loop.take_back(thread.loop)
        thread.stop()

    def __enter__(self) -> Client:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self) -> Status:
        """Take a snapshot: how many requests run, wait, and are queued; from any thread."""
        return self._dispatcher.status()

    def until_waiting(self, number: int) -> None:
        """Return once exactly ``number`` requests wait, and none else is in progress.

        Raises:
            Overdue: that has not come within the time-out.
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
    def _dispatcher(self) -> Dispatcher:
        if self._made is None:
            raise BideError("the client is not open: use it in `with Client(app) as client:`")
        return self._made

    # Requests -----------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        follow_redirects: bool | None = None,
        **options: Any,
    ) -> Response:
        """Make a request, and give its response when it is complete and the application has ended.

        Args:
            method: GET, POST, …
            path: path and query, or a whole URL.
            follow_redirects: in place of the client's.
            options: as for :meth:`stream`.

        Raises:
            RedirectError: see there.
            Exception: see :class:`Response`.
        """
        follow = self._follow_redirects if follow_redirects is None else follow_redirects
        url = self._url(path, options.pop("query", None))
        for _ in range(REDIRECTS + 1):
            response = self._start(method, url, **options)
            response.read()
            location = response.headers["Location"]
            if not follow or location is None or response.status not in (301, 302, 303, 307, 308):
                return response
            url = urljoin(url, location)
            if response.status in (307, 308):
                if not isinstance(options.get("body", b""), bytes | str | None):
                    raise RedirectError(f"the body is an iterable, and cannot be sent to {url} too")
            elif method != "HEAD":  # RFC 9110, section 15.4: as all browsers do
                method = "GET"
                options = {"headers": options.get("headers", ())}
        raise RedirectError(f"more than {REDIRECTS} redirections, the next one to {url}")

    def get(self, path: str, **options: Any) -> Response:
        """Make a GET request; as :meth:`request`, and so are the others."""
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Any) -> Response:
        """Make a HEAD request."""
        return self.request("HEAD", path, **options)

    def post(self, path: str, **options: Any) -> Response:
        """Make a POST request."""
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> Response:
        """Make a PUT request."""
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Response:
        """Make a PATCH request."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Response:
        """Make a DELETE request."""
        return self.request("DELETE", path, **options)

    def options(self, path: str, **options: Any) -> Response:
        """Make an OPTIONS request."""
        return self.request("OPTIONS", path, **options)

    def stream(self, method: str, path: str, **options: Any) -> Response:
        """Begin a request, and give its response at once, before any of it has come.

        Use it as a context manager; redirections are not followed.

        Args:
            method: GET, POST, …
            path: path and query, or a whole URL.
            options: ``query``: for a URL's query, a mapping or pairs. ``headers``: added to the
                client's. ``body``: bytes, text, or an iterable of bytes, which is iterated over in
                a thread of its own, as the application makes room; one that never ends must be
                ended by the test. ``json``: in place of a body. ``form``: a mapping or pairs, sent
                as HTML forms are. ``environ``: added to the client's. ``timeout``,
                ``raise_errors``: in place of the client's.
        """
        return self._start(method, self._url(path, options.pop("query", None)), **options)

    def _url(self, path: str, query: Any) -> str:
        if "://" not in path.partition("?")[0]:
            if not path.startswith("/"):
                raise ValueError(f"{path!r} is no path: it must begin with /")
            path = self._base_url.rstrip("/") + path
        if query:
            path += ("&" if "?" in path else "?") + urlencode(query, doseq=True)
        # As browsers do; what is escaped already stays so.
        return quote(path.partition("#")[0], safe=string.punctuation)

    def _start(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: bytes | str | Iterable[bytes] | None = None,
        json: Any = None,
        form: Any = None,
        environ: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        raise_errors: bool | None = None,
    ) -> Response:
        parts = urlsplit(url)
        asking = UrlRequest(url, method=method)  # for the cookies, which know the standard's only
        content, kind = _content(body, json, form)
        fields = [*self._headers, *_pairs(headers)]
        named = {name.lower() for name, _ in fields}
        if "host" not in named:
            fields.insert(0, ("Host", parts.netloc))
        if kind and "content-type" not in named:
            fields.append(("Content-Type", kind))
        if isinstance(content, bytes):
            fields.append(("Content-Length", str(len(content))))
        elif content is not None and "content-length" not in named:
            fields.append(("Transfer-Encoding", "chunked"))
        self.cookies.add_cookie_header(asking)
        cookie = asking.get_header("Cookie")
        if cookie and "cookie" not in named:
            fields.append(("Cookie", cookie))
        dispatcher = self._dispatcher
        assert self._thread is not None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        exchange = Exchange(
            dispatcher,
            self._thread,
            Peer(parts.scheme, (parts.hostname or "", port), ("127.0.0.1", 0)),
            _request(method, parts, fields, content is not None),
            self._raise_errors if raise_errors is None else raise_errors,
        )
        exchange.start({**self._environ, **(environ or {})}, content)
        return Response(
            exchange, self._timeout if timeout is None else timeout, self._cookies_of(asking)
        )

    def _cookies_of(self, asking: UrlRequest) -> Callable[[Message], None]:
        def arrived(headers: Message) -> None:
            answer: Any = _Answer(headers)
            self.cookies.extract_cookies(answer, asking)

        return arrived


class _Answer:
    """What a cookie jar wants of a response."""

    def __init__(self, headers: Message) -> None:
        self._headers = headers

    def info(self) -> Message:
        return self._headers


def _content(
    body: bytes | str | Iterable[bytes] | None, json: Any, form: Any
) -> tuple[bytes | Iterable[bytes] | None, str]:
    """Return a body's bytes or pieces, and its type, where that is known."""
    if (body is not None) + (json is not None) + (form is not None) > 1:
        raise ValueError("give one of body, json and form")
    if json is not None:
        return json_module.dumps(json).encode(), "application/json"
    if form is not None:
        return urlencode(form, doseq=True).encode(), "application/x-www-form-urlencoded"
    return (body.encode() if isinstance(body, str) else body), ""


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    for name, value in pairs:
        if any(each in name + value for each in "\r\n\0"):
            raise ValueError(f"the header {name!r}: {value!r} cannot be sent")
    return pairs


def _request(
    method: str, parts: SplitResult, fields: list[tuple[str, str]], has_body: bool
) -> Request:
    path = (parts.path or "/").encode("ascii")
    query = parts.query.encode("ascii")
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    target = path + b"?" + query if query else path
    request = Request(method, target, path, query, "1.1", headers)
    request.has_body = has_body
    return request
