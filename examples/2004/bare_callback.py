"""A page that yields a bare promise: an object that has ``addCallback`` and nothing else.

The first proposal of September 2004 asks for no library: whatever has ``addCallback(callable)``
is a promise, and the server goes on when the callable is called with the string to send, from
whichever thread that happens. This one is fired by a timer's thread::

    bide examples.2004.bare_callback:application --threads 1
    curl --no-buffer http://127.0.0.1:8000/
    curl --no-buffer 'http://127.0.0.1:8000/?seconds=5'

It yields objects that are not bytes. That goes beyond PEP 3333, and needs Bide.
"""

import threading
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from bide import capable


class Later:
    """A promise of ``value``, ``seconds`` after somebody asks for it."""

    def __init__(self, seconds: float, value: bytes) -> None:
        self._seconds = seconds
        self._value = value

    def addCallback(self, callback: Callable[[bytes], object]) -> None:  # noqa: N802 - the protocol
        """Call ``callback(value)`` from another thread, once the time has come."""
        timer = threading.Timer(self._seconds, callback, [self._value])
        timer.daemon = True
        timer.start()


@capable("async", "threads")
def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes | Later]:
    """Yield a line, a promise of a line that comes after ``?seconds=`` (1), and a last line."""
    seconds = float(parse_qs(environ["QUERY_STRING"]).get("seconds", ["1"])[0])
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    yield b"Hang on, I am not ready to generate more content.\n"
    yield Later(seconds, b"Now I am: a thread has called back.\n")
    yield b"That was all.\n"
