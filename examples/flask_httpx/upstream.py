"""The service that the application asks: a small JSON server on a free port of the loopback.

It stands for whatever is slow and far away in a real application, so that the example runs
without a network. It knows nothing of the application.
"""

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BOOKS = {
    1: {"title": "Sense & Sensibility", "author": "Jane Austen"},
    2: {"title": "The Left Hand of Darkness", "author": "Ursula K. Le Guin"},
    3: {"title": "Le Petit Prince", "author": "Antoine de Saint-Exupéry"},
}
RATINGS = {1: 4.2, 2: 4.6, 3: 4.8}


class Upstream(BaseHTTPRequestHandler):
    """Answers ``/books``, ``/books/N``, ``/ratings/N``, ``/log``, ``/slow`` and ``/broken``."""

    protocol_version = "HTTP/1.1"
    server: "UpstreamServer"
    seconds = 0.2
    """How long every answer takes; ``/slow`` takes a minute."""

    def do_GET(self) -> None:
        """Answer one request."""
        _, kind, *number = self.path.split("/")
        answer: Callable[..., None] | None = getattr(self, f"answer_{kind}", None)
        self.server.stopping.wait(self.seconds)
        if answer is None:
            self.say(404, {"error": f"no {kind}"})
        else:
            answer(*map(int, number))

    def answer_books(self, number: int | None = None) -> None:
        """One book, or all of them."""
        if number is None:
            self.say(200, [{"number": n, **book} for n, book in BOOKS.items()])
        elif number in BOOKS:
            self.say(200, {"number": number, **BOOKS[number]})
        else:
            self.say(404, {"error": f"no book {number}"})

    def answer_ratings(self, number: int) -> None:
        """One book's rating."""
        self.say(200, {"rating": RATINGS.get(number, 0.0)})

    def answer_log(self) -> None:
        """Five lines, one after the other."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(1, 6):
            self.wfile.write(b"line %d\n" % number)
            self.server.stopping.wait(self.seconds)

    def answer_slow(self) -> None:
        """Too late for everybody."""
        self.server.stopping.wait(60)
        self.say(200, {})

    def answer_broken(self) -> None:
        """A service in trouble."""
        self.say(500, {"error": "out of order"})

    def say(self, status: int, what: Any) -> None:
        """Send ``what`` as JSON."""
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Keep quiet."""


class UpstreamServer(ThreadingHTTPServer):
    """Serves :class:`Upstream` from a daemon thread, from ``start`` to ``stop``."""

    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Upstream)
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(
            target=self.serve_forever, args=(0.05,), name="upstream", daemon=True
        ).start()

    def stop(self) -> None:
        """Listen no more, and let no answer take its time."""
        self.stopping.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report, save for clients that left before the answer: the application's time-outs."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
