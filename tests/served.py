"""A real server on a free port of the loopback, a log that is read, and clients for raw bytes.

Plain classes and functions: a fixture may wrap them, a script may use them. Whatever waits here has
a deadline, and says what it waited for.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import io
import logging
import math
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

import bide
from bide.protocols.http1.reading import HTTP1
from bide.protocols.http2.connection import HTTP2
from bide.serving.connection import Connection
from bide.transports.connected import LINGERING
from bide.transports.lingering import Lingering
from tests import http2, tls

T = TypeVar("T")
Environ = dict[str, Any]
Application = Callable[..., Any]

DEADLINE = 20.0
"""Seconds within which whatever a test waits for has happened."""
LONG = 1000.0
"""Seconds that no test lasts: a time-out that is reached by :meth:`Served.advance` alone."""
FOR_EVER = 100 * LONG
"""Seconds that no test advances by."""


def until(
    condition: Callable[[], object],
    what: str = "this never became true",
    *,
    seconds: float | None = None,
) -> None:
    """Return once ``condition()`` is true; fail the test at the deadline, or after the seconds."""
    deadline = time.monotonic() + (DEADLINE if seconds is None else seconds)
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def happened(event: threading.Event, what: str = "the event was never set") -> None:
    """Wait for an event; fail the test at the deadline."""
    assert event.wait(DEADLINE), what


class Log(logging.Handler):
    """What Bide logs while this is open; a test takes the records that it expects.

    And what asyncio logs: an error in a callback of the loop, a task whose error nobody asked for.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []
        self._logger = logging.getLogger("bide")
        self._loops = logging.getLogger("asyncio")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; from any thread, under the handler's lock."""
        self.records.append(record)

    def open(self) -> None:
        """Begin to listen."""
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self)
        self._loops.addHandler(self)

    def close(self) -> None:
        """Listen no more."""
        self._logger.removeHandler(self)
        self._loops.removeHandler(self)
        self._logger.setLevel(self._level)
        super().close()

    def find(self, text: str) -> logging.LogRecord | None:
        """Return the first record that has ``text`` in it."""
        return next((each for each in list(self.records) if text in each.getMessage()), None)

    def take(self, text: str) -> logging.LogRecord:
        """Wait for a record that has ``text`` in it, and take it out."""
        until(lambda: self.find(text), f"nothing was logged with {text!r}: {self.lines()}")
        record = self.find(text)
        assert record is not None
        self.records.remove(record)
        return record

    def failure(self) -> logging.LogRecord:
        """Take the record of an application that failed; it has a traceback."""
        record = self.take("the application failed")
        assert record.exc_info
        return record

    def lines(self, level: int = logging.INFO) -> list[str]:
        """Return the messages of what is left."""
        return [
            f"{each.levelname} {each.getMessage()} {each.exc_info[1] if each.exc_info else ''!r}"
            for each in list(self.records)
            if each.levelno >= level
        ]


def _receiving(connection: Connection) -> bool:
    protocol = connection._protocol
    if isinstance(protocol, HTTP2):
        return protocol.guard.in_block or not all(
            each.complete for each in protocol.numbers.values()
        )
    assert isinstance(protocol, HTTP1)
    return protocol.receiving


def _queued(connection: Connection) -> int:
    protocol = connection._protocol
    return len(protocol._queue) if isinstance(protocol, HTTP1) else 0


class Served:
    """A running server, with an event loop in a thread of its own; used from other threads.

    Attributes:
        loop: the server's event loop.
        address: where it listens, as for ``--bind``.
        context: what a client's TLS needs; None in clear.
        stopping: set on the loop to have it stop; see :meth:`begin_stop`.
    """

    context: ssl.SSLContext | None = None

    def __init__(self, application: Application, **settings: Any) -> None:
        # A busy machine does not fail these tests; those about the monitor give their own.
        settings = {
            "bind": "127.0.0.1:0",
            "blocked_loop": math.inf,
            "blocked_thread": math.inf,
            "graceful_timeout": 5.0,
            "head_timeout": FOR_EVER,
            "idle_timeout": FOR_EVER,
            **(tls.certificates().settings if tls.wanted() else {}),
            **settings,
        }
        self.server = bide.Server(application, **settings)
        if self.server.settings.certificate:
            self.context = tls.certificates().context()
            if http2.wanted():
                self.context.set_alpn_protocols(["h2"])
        self.loop = asyncio.new_event_loop()
        self.stopping: asyncio.Event | None = None
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="the server's loop")
        self._clients: list[Client] = []
        self._thread.start()
        self._started.result(DEADLINE)
        self.address = self.server.addresses[0]

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        self.stopping = asyncio.Event()
        async with self.server:
            self._started.set_result(None)
            await self.stopping.wait()

    @property
    def url(self) -> str:
        """What to put before a path, for httpx."""
        return f"{'http' if self.context is None else 'https'}://{self.address}"

    @property
    def thread(self) -> int:
        """The identity of the loop's thread."""
        ident = self._thread.ident
        assert ident is not None
        return ident

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the loop's thread; return its result."""

        async def calling() -> T:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(calling(), self.loop).result(DEADLINE)

    def turn(self, times: int = 1) -> None:
        """Return once the loop has had its turn, so many times, or has ended."""
        for _ in range(times):
            had = threading.Event()
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(had.set)
            until(lambda: had.is_set() or self.loop.is_closed())  # noqa: B023 - it is called here

    def advance(self, seconds: float) -> None:
        """Make the server check its deadlines as if so many seconds had passed at once.

        What a client does now has all its time before they do.
        """

        def look() -> None:
            self.server.mind_time(0.0)
            self.server.mind_time(seconds, seconds)

        self.call(lambda: None)  # what has come already has its turn: it may have ended a wait
        self.call(look)

    def advance_until(self, condition: Callable[[], object], seconds: float) -> None:
        """Advance again and again, until ``condition()`` is true."""

        def reached() -> object:
            self.advance(seconds)
            return condition()

        until(reached, "this never became true, however late it is")

    def tick(self) -> None:
        """Make the server check its deadlines now, by its own clock."""
        ticker = self.server._ticker
        assert ticker is not None

        def look() -> None:
            ticker.cancel()
            self.server._tick()

        self.call(look)

    def notice(self, seconds: float = 0.0) -> None:
        """Make the monitor check, as if what runs now had run for so many seconds."""
        assert self.server.monitor is not None
        self.server.monitor.look()
        for _ in range(2):  # the loop is blocked that is at the same call at two looks
            self.server.monitor.look(seconds)

    def blocked_loop(self, log: "Log", seconds: float) -> logging.LogRecord:
        """Take the monitor's line that the loop is blocked; it comes once the thread sleeps."""
        line = "the event loop has been blocked"

        def said() -> logging.LogRecord | None:
            self.notice(seconds)
            return log.find(line)

        until(said, f"nothing was logged with {line!r}")
        return log.take(line)

    def goes_on(self, log: "Log", what: str) -> logging.LogRecord:
        """Take the monitor's line that what was blocked goes on; it comes with a look after it."""
        line = f"{what} goes on"

        def said() -> logging.LogRecord | None:
            self.notice()
            return log.find(line)

        until(said, f"nothing was logged with {line!r}")
        return log.take(line)

    @property
    def lingering(self) -> list[int]:
        """How many bytes have been dropped on each connection that is closing."""
        return self.call(lambda: [each._bytes for each in self._lingering()])

    def _lingering(self) -> list[Lingering]:
        transports = [each._transport for each in self._whole()]
        found = [each.lingering for each in transports if each.state is LINGERING]
        return [each for each in found if each is not None]

    def linger(self) -> None:
        """End one ``linger_timeout`` on each connection that is closing."""

        def passes() -> None:
            for each in self._lingering():
                each.stop()
                each._next_period()

        self.call(passes)

    @property
    def crowded(self) -> bool:
        """Whether new connections wait until others end."""
        return self.server._acceptor.crowded

    @property
    def receiving(self) -> int:
        """On how many connections a part of a request has come, and the rest of it has not."""
        return sum(_receiving(each) for each in self.connections)

    @property
    def pipelined(self) -> int:
        """How many requests have come whole, and wait for those before them on their connection."""
        return sum(_queued(each) for each in self.connections)

    @property
    def connections(self) -> list[Connection]:
        """The server's side of each connection."""
        return self.call(self._whole)

    def _whole(self) -> list[Connection]:
        """Return the connections whose clients are known, of which a proxy has to name none."""
        return [each for each in self.server._connections if isinstance(each, Connection)]

    @property
    def status(self) -> bide.Status:
        """The server's numbers now."""
        return self.server.status()

    def until_waiting(self, number: int) -> None:
        """Return once exactly ``number`` requests are parked, and none else is in progress."""

        def there() -> bool:
            status = self.status  # one moment: between two, a request may go from one to another
            return status.waiting == number and not status.running

        until(there, f"never {number} waiting")

    def until_idle(self) -> None:
        """Return once no request is in progress."""

        def there() -> bool:
            status = self.status  # as above
            return not (status.running or status.waiting or status.queued)

        until(there, "requests are still in progress")

    def connect(self, **options: Any) -> "Client":
        """Open a connection, which is closed with the server at the latest."""
        known = {"context": self.context, "over_http2": http2.wanted()}
        client = Client(self.address, **{**known, **options})
        self._clients.append(client)
        return client

    def request(self, path: str = "/", **options: Any) -> "Client":
        """Open a connection and send a request; see :func:`request`."""
        client = self.connect()
        client.send(request(path, **options))
        return client

    def get(self, path: str = "/", **options: Any) -> "Response":
        """Make one whole request on a connection of its own."""
        client = self.request(path, **options)
        try:
            return client.response(options.get("method", "GET"))
        finally:
            client.close()

    def http(self) -> httpx.Client:
        """Return an httpx client for this server; the caller closes it."""
        verify = self.context or False
        over_http2 = http2.wanted()
        return httpx.Client(
            base_url=self.url,
            timeout=DEADLINE,
            trust_env=False,
            verify=verify,
            http1=not over_http2,
            http2=over_http2,
        )

    def begin_stop(self) -> None:
        """Begin to stop the server."""
        assert self.stopping is not None
        self.loop.call_soon_threadsafe(self.stopping.set)

    def tell_to_stop(self) -> None:
        """Begin to stop the server; return once it accepts no more, and its connections know it."""
        self.begin_stop()
        until(lambda: self.server.draining)
        self.turn(2)  # it says so first, and tells them in the loop's next turn

    def join(self, *, leaving: bool = False) -> None:
        """Return once the server has stopped and its loop has ended.

        Args:
            leaving: whether to close the clients, which have all that they came for; else the
                server gives them a second to leave by themselves.
        """
        if leaving:
            self._leave()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the server did not stop"
        if self.server.monitor is not None:  # else the next test may count it as its own
            self.server.monitor.thread.join(DEADLINE)

    def _leave(self) -> None:
        for client in self._clients:
            client.close()

    def stop(self) -> None:
        """Close the clients and stop, if it has not been done."""
        self._leave()
        if self._thread.is_alive():
            self.begin_stop()
            self.join()


def request(
    path: str = "/",
    *,
    method: str = "GET",
    version: str = "1.1",
    headers: Iterable[str] = (),
    body: bytes = b"",
) -> bytes:
    """Make a request's bytes; a body is sent with its Content-Length."""
    lines = [f"{method} {path} HTTP/{version}", "Host: test", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass
class Response:
    """A response as it came over the wire.

    Attributes:
        complete: whether it ended as its head said; false when it was cut.
        chunks: of a chunked body, each.
    """

    status: int
    reason: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = False
    chunks: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The body, as UTF-8."""
        return self.body.decode()

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the one value of a header; None where there is none."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None


class Client:
    """One connection, byte by byte. Every read has the deadline.

    Args:
        address: as for ``--bind``.
        window: bytes of the receive buffer, for a client that is to be slow; 0: the system's.
        context: what its TLS needs; None: it speaks in clear.
        shakes: whether to make the handshake at once; else ``sock.greet`` and ``sock.shake`` do.
        over_http2: whether it speaks HTTP/2, and the test HTTP/1 all the same.
    """

    sock: Any
    reader: io.BufferedReader

    def __init__(
        self,
        address: str,
        window: int = 0,
        context: ssl.SSLContext | None = None,
        shakes: bool = True,
        over_http2: bool = False,
    ) -> None:
        if address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            path = address.removeprefix("unix:")
            where: Any = f"\0{path[1:]}" if path.startswith("@") else path
        else:
            host, _, port = address.rpartition(":")
            host = host.strip("[]")
            self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            where = (host, int(port))
        if window:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.sock.settimeout(DEADLINE)
        try:
            self.sock.connect(where)
            if context is not None:
                self.sock = tls.TLSSocket(self.sock, context, shake=shakes)
            if over_http2:
                scheme = "http" if context is None else "https"
                self.sock = http2.HTTP2Socket(self.sock, window, scheme, shakes)
        except OSError:
            self.sock.close()
            raise
        self.reader = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def half_close(self) -> None:
        """Send no more; the answer may still come."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave, as a program does that has ended."""
        self.reader.close()
        self.sock.close()

    def reset(self) -> None:
        """Leave with a reset, as a program does that has crashed."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes; fewer at the connection's end."""
        return self.reader.read(size)

    def rest(self) -> bytes:
        """Read to the connection's end, which may be a reset."""
        blocks = []
        with contextlib.suppress(ConnectionResetError):
            while block := self.reader.read1(65536):
                blocks.append(block)
        return b"".join(blocks)

    def is_silent(self) -> bool:
        """Whether neither bytes nor the end have come; a look, without waiting."""
        if isinstance(self.sock, tls.TLSSocket | http2.HTTP2Socket):
            return self.sock.is_silent()
        return not select.select([self.sock], [], [], 0)[0]

    def head(self) -> Response:
        """Read a response's head; its body is left unread."""
        line = self.reader.readline()
        assert line.endswith(b"\r\n"), f"no status line, but {line!r}"
        version, _, rest = line.decode("latin-1").rstrip("\r\n").partition(" ")
        status, _, reason = rest.partition(" ")
        headers = []
        while (line := self.reader.readline()) != b"\r\n":
            assert line.endswith(b"\r\n"), f"no header, but {line!r}"
            name, _, value = line.decode("latin-1").rstrip("\r\n").partition(": ")
            headers.append((name, value))
        return Response(int(status), reason, version, headers)

    def chunk(self) -> bytes:
        """Read one chunk; ``b""`` is the last one. Raises EOFError where the connection ends."""
        line = self.reader.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        size = int(line, 16)
        data = self.reader.read(size + 2)
        if len(data) != size + 2:
            raise EOFError
        assert data.endswith(b"\r\n")
        return data[:-2]

    def chunks(self, size: int) -> bytes:
        """Read chunks of so many bytes together; raises as :meth:`chunk`.

        Whether each block is one is HTTP/1's matter: HTTP/2 cuts and joins them as windows let it.
        """
        data = b""
        while len(data) < size and (chunk := self.chunk()):
            data += chunk
        return data

    def response(self, method: str = "GET") -> Response:
        """Read one response, cut or complete (RFC 9112 section 6.3)."""
        response = self.head()
        if response.status == 100:
            response = self.head()
        length = response.header("Content-Length")
        try:
            if method == "HEAD" or response.status in (204, 304):
                response.complete = True
            elif response.header("Transfer-Encoding") == "chunked":
                while chunk := self.chunk():
                    response.chunks.append(chunk)
                response.complete = True
            elif length is not None:
                response.body = self.reader.read(int(length))
                response.complete = len(response.body) == int(length)
            else:
                response.body = self.reader.read()
                response.complete = True
        except (EOFError, ConnectionResetError):
            pass
        response.body = response.body or b"".join(response.chunks)
        return response


def ends(response: Response) -> bool:
    """Whether a response says that no other one follows it.

    HTTP/2 says so behind the response, by a reset of the stream: the client finds its end.
    """
    return response.header("Connection") == "close" or http2.wanted()


def answering(function: Callable[[Environ], bytes | str | None]) -> Application:
    """Make an application that answers 200 with what a function of the environ returns."""

    @functools.wraps(function)
    def application(environ: Environ, start_response: Any) -> list[bytes]:
        value = function(environ) or b""
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [value if isinstance(value, bytes) else value.encode()]

    return application


class Busy:
    """An application whose requests block their threads until ``release`` is set.

    Attributes:
        application: it answers ``served``.
        begun: set when a request has begun.
        release: for the test to set; the requests end then.
        called: the path of each request that has begun.
    """

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()
        self.called: list[str] = []
        self.application: Application = answering(self._answer)

    def _answer(self, environ: Environ) -> str:
        self.called.append(environ["PATH_INFO"])
        self.begun.set()
        happened(self.release)
        return "served"


class Closing:
    """An iterable that counts how often, and tells where, its ``close`` was called."""

    def __init__(self, blocks: Iterable[Any]) -> None:
        self._blocks = iter(blocks)
        self.threads: list[int] = []
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._blocks)

    def close(self) -> None:
        """Count."""
        self.threads.append(threading.get_ident())
        self.closed.set()

    @property
    def count(self) -> int:
        """How often it was called."""
        return len(self.threads)


class Gate:
    """Lets a request of the test wait without a thread: ``wait(gate.promise())``; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._promises: list[concurrent.futures.Future[Any]] = []
        self._opened = False

    def promise(self) -> "concurrent.futures.Future[Any]":
        """Return a promise that fires when the gate opens."""
        promise: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if not self._opened:
                self._promises.append(promise)
                return promise
        promise.set_result(None)
        return promise

    def open(self) -> None:
        """Fire them all, those to come as well."""
        with self._lock:
            self._opened = True
            promises, self._promises = self._promises, []
        for promise in promises:
            if promise.set_running_or_notify_cancel():
                promise.set_result(None)


class HandClock:
    """The clock of a server's loop, in the test's hands: no timer comes but by :meth:`advance`.

    In a ``with`` block; behind that it goes on by itself.

    Args:
        served: the server.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._now = served.loop.time()

    def __enter__(self) -> "HandClock":
        self._set(lambda: self._now)
        return self

    def __exit__(self, *_: object) -> None:
        behind = time.monotonic() - self._now
        self._set(lambda: time.monotonic() - behind)

    def _set(self, clock: Callable[[], float]) -> None:
        vars(self._served.loop)["time"] = clock
        with contextlib.suppress(RuntimeError):  # it has ended
            self._served.loop.call_soon_threadsafe(lambda: None)  # it may sleep by the other clock

    def advance(self, seconds: float) -> None:
        """Move on."""

        def move() -> None:
            self._now += seconds

        self._served.call(move)

    def turn(self) -> None:
        """Return when what was due has come, with what that has begun."""
        self._served.turn(5)
