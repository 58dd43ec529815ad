"""A page that streams a telnet session line by line, as the lines arrive.

The other example that Donovan Preston's mail of 15 September 2004 gives of what WSGI cannot do:
a page that shows what comes over a telnet connection blocks for every line. Here it is a plain
``for`` loop over ``iterate(...)``: between two lines the request waits and holds no thread::

    bide examples.2004.telnet_page:application --threads 1
    curl --no-buffer http://127.0.0.1:8000/
    curl --no-buffer 'http://127.0.0.1:8000/?type=1000'

Leave curl with Control-C in between: the wait is cancelled, ``with`` closes the session.

The server at the other end is a real one, line-oriented, that the example starts on a free port
of the loopback at the first request; ``TELNET_ADDRESS=host:port`` names another one. The
application is plain PEP 3333: under another server it blocks its thread, and sends the same.
"""

import asyncio
import contextlib
import functools
import os
import socketserver
import threading
import time
from collections.abc import AsyncIterator, Iterator
from html import escape
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from bide import capable, iterate, using


class Counter(socketserver.StreamRequestHandler):
    """One session of the line-oriented server: asks for a number, counts to it, ends."""

    seconds = 0.5
    """Between two lines."""

    def handle(self) -> None:
        """Talk, until all is said or the peer has gone."""
        with contextlib.suppress(ConnectionError):
            self.wfile.write(b"Good evening. How far shall I count?\r\n")
            typed = self.rfile.readline(80).strip()
            if not typed.isdigit():
                self.wfile.write(b"<%s> is no number. Good night.\r\n" % typed)
                return
            for number in range(1, int(typed) + 1):
                time.sleep(self.seconds)
                self.wfile.write(b"%d\r\n" % number)
            self.wfile.write(b"Good night.\r\n")


class CounterServer(socketserver.ThreadingTCPServer):
    """Talks to each peer in a daemon thread."""

    daemon_threads = True
    request_queue_size = 128


_starting = threading.Lock()


@functools.cache
def _start_counter() -> str:
    server = CounterServer(("127.0.0.1", 0), Counter)
    threading.Thread(target=server.serve_forever, name="counter", daemon=True).start()
    return f"127.0.0.1:{server.server_address[1]}"


def telnet_address() -> tuple[str, int]:
    """Return where to call: ``TELNET_ADDRESS``, else the server that the example starts."""
    with _starting:
        host, _, port = (os.environ.get("TELNET_ADDRESS") or _start_counter()).rpartition(":")
    return host, int(port)


@contextlib.asynccontextmanager
async def session(host: str, port: int, typed: str) -> AsyncIterator[asyncio.StreamReader]:
    """Connect, type one line, and give what comes back; the connection is closed at the end."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(typed.encode("utf-8") + b"\r\n")
        yield reader
    finally:
        writer.close()


@capable("async", "threads")
def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Type what ``?type=`` says (10), and show every line that comes back."""
    typed = parse_qs(environ["QUERY_STRING"]).get("type", ["10"])[0].partition("\n")[0]
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    yield b"<!doctype html><html lang=en><title>A session</title><pre>\n"
    with using(session(*telnet_address(), typed)) as lines:
        for line in iterate(lines):
            yield escape(line.decode("utf-8", "replace").rstrip("\r\n")).encode("utf-8") + b"\n"
    yield b"</pre></html>\n"
