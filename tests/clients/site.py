"""The application that the clients visit: one path for each kind of response."""

from collections.abc import Iterator
from typing import Any

from bide import wait
from tests.served import Closing, Environ, Gate

BLOCK = bytes(range(256)) * 256
LARGE = 8 * 1024 * 1024
"""Bytes of a large response: more than the sockets of both sides take without being read."""

MANY = [f"/echo/{number}" for number in range(20)]


class Site:
    """A WSGI application.

    Attributes:
        visits: for each request in turn, its method, its path and the port it came from.
        gates: what ``/events`` waits for after each of its pieces.
        lines: of the bodies sent to ``/pieces``.
        endless: the iterable of the last visit to ``/endless``.
    """

    def __init__(self) -> None:
        self.visits: list[tuple[str, str, str]] = []
        self.lines: list[bytes] = []
        self.gates = [Gate(), Gate(), Gate()]
        self.endless: Closing | None = None

    @property
    def connections(self) -> int:
        """How many connections the requests have come by."""
        return len({port for _, _, port in self.visits})

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        """Note the visit; answer as the path asks."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.visits.append((method, path, environ["REMOTE_PORT"]))
        name = path.split("/")[1] or "hello"
        return getattr(self, f"on_{name}")(environ, start_response)

    def on_hello(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Answer in one piece."""
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Name", "caf\xe9")])
        return [b"hello\n"]

    def on_echo(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Send back how it was asked, and all of the body."""
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("X-Length", environ.get("CONTENT_LENGTH") or "none")])
        return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + body]

    def on_pieces(self, environ: Environ, start_response: Any) -> Iterator[bytes]:
        """Send back each line of the body as it comes, in upper case."""
        start_response("200 OK", [])
        while line := environ["wsgi.input"].readline():
            self.lines.append(line)
            yield line.upper()

    def on_204(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Answer without a body."""
        start_response("204 No Content", [])
        return []

    def on_304(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Answer that nothing has changed."""
        start_response("304 Not Modified", [("ETag", '"1"')])
        return []

    def on_found(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Redirect to a GET."""
        start_response("302 Found", [("Location", "/echo/found")])
        return [b"over there"]

    def on_same(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Redirect with method and body, from a request whose body is not read."""
        start_response("307 Temporary Redirect", [("Location", "/echo/same")])
        return [b"over there"]

    def on_events(self, environ: Environ, start_response: Any) -> Iterator[bytes]:
        """Send a piece, wait for its gate, and so on."""
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        for number, gate in enumerate(self.gates):
            yield b"data: %d\n\n" % number
            wait(gate.promise())

    def on_large(self, environ: Environ, start_response: Any) -> Iterator[bytes]:
        """Send more than the sockets take, with its length or in chunks."""
        length = [("Content-Length", str(LARGE))] if environ["QUERY_STRING"] == "length" else []
        start_response("200 OK", [("Content-Type", "application/octet-stream"), *length])
        return (BLOCK for _ in range(LARGE // len(BLOCK)))

    def on_endless(self, environ: Environ, start_response: Any) -> Closing:
        """Send until the client leaves."""
        start_response("200 OK", [])
        self.endless = Closing(BLOCK for _ in iter(int, 1))
        return self.endless

    def on_unread(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Refuse a body without a look at it."""
        start_response("413 Content Too Large", [])
        return [b"too large for me"]

    def on_cut(self, environ: Environ, start_response: Any) -> Iterator[bytes]:
        """Fail in the middle of the body."""
        length = [("Content-Length", "1000")] if environ["QUERY_STRING"] == "length" else []
        start_response("200 OK", length)
        yield b"x" * 500
        raise ArithmeticError("in the middle")
