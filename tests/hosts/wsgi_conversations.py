"""Conversations with one application under real WSGI servers, and what comes of each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.hosts.wsgi_hosts import COMMANDS, NO_UWSGI, Host, uwsgi

WORKS: Final[dict[str, Callable[[Host], str]]] = {
    "Promises in the iterable": lambda host: host.right("/promises"),
    "`wait` in ordinary code": lambda host: host.right("/waits"),
    "A coroutine function": lambda host: host.right("/coroutine"),
    "An async generator": lambda host: host.right("/generator"),
    "`write()`": lambda host: host.right("/writes"),
    "Push: `write` and `finish`": lambda host: host.right("/pushes"),
    "Empty blocks before `start_response`": lambda host: host.right("/late", status=504),
    "HEAD has no body": lambda host: host.right("/promises", method="HEAD"),
    "204 has no body": lambda host: host.right("/nothing", status=204),
}
"""What works everywhere, whatever the server: the iterable is a plain one."""

SERVERS: Final[dict[str, Callable[[Host], str]]] = {
    "An error before the head": lambda host: host.status("/fails"),
    "A block reaches the client before the next is made": lambda host: host.streams(),
    "A departure is noticed while the application waits": lambda host: host.departure(),
    "An error after the head: what the client sees": lambda host: host.end("/cut"),
    "The same, with a Content-Length": lambda host: host.end("/cut-with-length"),
    "The same, to HTTP/1.0": lambda host: host.end("/cut", version="1.0"),
    "*Without Bide:* promises in the iterable": lambda host: host.right("/plain/promises"),
    "*Without Bide:* a coroutine function": lambda host: host.right("/plain/coroutine"),
    "*Without Bide:* an async generator": lambda host: host.right("/plain/generator"),
    "*Without Bide:* `write()`": lambda host: host.right("/plain/writes"),
    "*Without Bide:* empty blocks before `start_response`": lambda host: host.right(
        "/plain/late", status=504
    ),
}
"""What each server does in its own way."""

SLOW: Final = "A slow client: the application is asked for no more"
CLOSED: Final = "A client that leaves in the middle: `close()` is called"


def measure(directory: Path) -> dict[tuple[str, str], str]:
    """Run every conversation with every server; return the outcome of each, by server and row."""
    assert uwsgi(), NO_UWSGI
    cells: dict[tuple[str, str], str] = {}
    with ThreadPoolExecutor(4) as pool:
        for name, column in pool.map(lambda name: (name, _converse(name, directory)), COMMANDS):
            cells |= {(name, row): cell for row, cell in column.items()}
    return cells


def _converse(name: str, directory: Path) -> dict[str, str]:
    host = Host(name, directory)
    try:
        host.ready()
        cells = {row: say(host) for row, say in {**WORKS, **SERVERS}.items()}
        cells[SLOW], cells[CLOSED] = host.bounded()
        return cells
    finally:
        host.close()
