"""A page that returns nothing and is written later, by timer threads.

The second proposal of September 2004: ``start_response`` returns ``(write, finish)``; the
application may return ``None`` at once, write whenever it has something, from any thread, and the
response is over when it calls ``finish``::

    bide examples.2004.push:application --threads 1
    curl --no-buffer http://127.0.0.1:8000/
    curl --no-buffer 'http://127.0.0.1:8000/?ticks=3&seconds=1'

Leave curl with Control-C in between: ``write`` raises ``ClientDisconnected`` and the timers end.
It returns no iterable. That goes beyond PEP 3333, and needs Bide.
"""

import threading
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import WSGIEnvironment

from bide import ClientDisconnected, StartResponse, capable


@capable("async", "threads")
def application(environ: WSGIEnvironment, start_response: StartResponse) -> None:
    """Take ``write`` and ``finish``, leave them to ``?ticks=`` (5) timers, and return."""
    query = parse_qs(environ["QUERY_STRING"])
    ticks = int(query.get("ticks", ["5"])[0])
    seconds = float(query.get("seconds", ["0.5"])[0])
    write, finish = start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])

    def tick(number: int) -> None:
        try:
            if number > ticks:
                finish()
                return
            write(b"Tick %d of %d, from %s\n" % (number, ticks, _thread_name()))
        except ClientDisconnected:
            return  # nobody reads any more: no further timer
        _after(seconds, tick, number + 1)

    _after(seconds, tick, 1)


def _after(seconds: float, function: Any, *arguments: Any) -> None:
    timer = threading.Timer(seconds, function, arguments)
    timer.daemon = True
    timer.start()


def _thread_name() -> bytes:
    return threading.current_thread().name.encode("utf-8")
