"""A page that yields a Twisted ``Deferred`` and goes on when it fires.

The first proposal of September 2004: the iterable may yield, wherever it may yield a string, an
object with ``addCallback``; the server goes on when the callback is called, and sends the value.
Twisted's ``Deferred`` is where that protocol comes from. A real reactor runs beside the server
here, in a thread of its own, and fires the ``Deferred`` with ``callLater``.

The page holds no thread while it waits: with one thread, a hundred of them take one second::

    bide examples.2004.deferred:application --threads 1
    curl --no-buffer http://127.0.0.1:8000/
    curl --no-buffer 'http://127.0.0.1:8000/?seconds=5'
    time seq 100 | xargs -P 100 -I{} curl -s http://127.0.0.1:8000/ -o /dev/null

It yields objects that are not bytes. That goes beyond PEP 3333, and needs Bide.
"""

import functools
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

from bide import capable

reactor: Any = _reactor  # typed as a module, is an object
_starting = threading.Lock()


@functools.cache
def _start_reactor() -> None:
    running = threading.Event()
    reactor.callWhenRunning(running.set)
    if not reactor.running:
        threading.Thread(
            target=reactor.run,
            kwargs={"installSignalHandlers": False},  # signals belong to the server
            name="reactor",
            daemon=True,
        ).start()
    running.wait()


def later(seconds: float, value: bytes) -> Deferred[bytes]:
    """Return a ``Deferred`` that the reactor fires with ``value`` after ``seconds``.

    May be called from any thread. Of a ``Deferred`` that was cancelled meanwhile (the client has
    left) Twisted ignores the late callback.
    """
    deferred: Deferred[bytes] = Deferred()
    with _starting:
        _start_reactor()
    reactor.callFromThread(reactor.callLater, seconds, deferred.callback, value)
    return deferred


@capable("async", "threads")
def application(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterator[bytes | Deferred[bytes]]:
    """Yield a line, a promise of a line that comes after ``?seconds=`` (1), and a last line."""
    seconds = float(parse_qs(environ["QUERY_STRING"]).get("seconds", ["1"])[0])
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    yield b"Hang on, I am not ready to generate more content.\n"
    yield later(seconds, b"Now I am: the reactor has called back.\n")
    yield b"That was all.\n"
