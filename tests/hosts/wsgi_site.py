"""What WSGI servers serve in the tests: the same application with and without ``bide.blocking``.

``application`` has it below ``/plain`` as it is, and everywhere else under Bide. What it learns it
leaves in files of the directory ``WSGI_SITE_TEST``, one for each request, for a server may have
several processes.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import bide
from bide import in_thread, wait

Environ = dict[str, Any]
PLAIN: Final = [("Content-Type", "text/plain")]
BLOCK: Final = b"x" * 65536
BLOCKS: Final = 1024
PATIENCE: Final = 2.0
"""Seconds after which the application goes on by itself."""


def _note(environ: Environ, name: str, text: str) -> None:
    path = Path(os.environ["WSGI_SITE_TEST"]) / f"{environ['QUERY_STRING']}-{name}"
    path.write_text(text)


async def soon(block: bytes) -> bytes:
    """Return a block after a turn of the loop."""
    await asyncio.sleep(0.001)
    return block


def promises(environ: Environ, start_response: Any) -> Iterator[Any]:
    """Promise each block."""
    start_response("200 OK", [*PLAIN])
    yield soon(b"1")
    yield b"2"
    yield in_thread(lambda: b"3")


def waits(environ: Environ, start_response: Any) -> list[bytes]:
    """Wait in ordinary code."""
    start_response("200 OK", [*PLAIN])
    return [wait(soon(b"123"))]


async def coroutine(environ: Environ, start_response: Any) -> list[bytes]:
    """Await in the application."""
    start_response("200 OK", [*PLAIN])
    return [await soon(b"123")]


async def generator(environ: Environ, start_response: Any) -> Any:
    """Await between blocks."""
    start_response("200 OK", [*PLAIN])
    for block in (b"1", b"2", b"3"):
        yield await soon(block)


def writes(environ: Environ, start_response: Any) -> list[bytes]:
    """Write as PEP 3333 has it."""
    write = start_response("200 OK", [*PLAIN])
    write(b"1")
    write(b"2")
    return [b"3"]


def pushes(environ: Environ, start_response: Any) -> None:
    """Write from a thread that outlives the call."""
    write, finish = start_response("200 OK", [*PLAIN])

    def push() -> None:
        for block in (b"1", b"2", b"3"):
            write(block)
        finish()

    threading.Thread(target=push).start()


def late(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Start the response when empty blocks have been given."""
    yield b""
    start_response("504 Gateway Timeout", [*PLAIN])
    yield b"123"


def streams(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Return a block, and go on when the client says, by a file, that it has it."""
    start_response("200 OK", [*PLAIN])
    yield b"1"
    path = Path(os.environ["WSGI_SITE_TEST"]) / f"{environ['QUERY_STRING']}-seen"
    end = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.005)
    yield b"23" if path.exists() else b"-"


def big(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Return 64 MiB, and note how much was asked for, and that it was closed."""
    start_response("200 OK", [*PLAIN, ("Content-Length", str(BLOCKS * len(BLOCK)))])
    try:
        for number in range(BLOCKS):
            _note(environ, "asked", str(number))
            yield BLOCK
    finally:
        _note(environ, "closed", "yes")


def left(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Wait, and note whether the wait was ended."""
    start_response("200 OK", [*PLAIN])
    yield b"1"
    _note(environ, "waits", "yes")
    try:
        wait(asyncio.sleep(1.0))
    except BaseException as error:
        _note(environ, "left", type(error).__name__)
        raise
    _note(environ, "left", "nothing")


def fails(environ: Environ, start_response: Any) -> list[bytes]:
    """Fail before the head."""
    raise LookupError("the test's")


def cut(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Fail after a block."""
    start_response("200 OK", [*PLAIN])
    yield b"1"
    raise LookupError("the test's")


def cut_with_length(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Fail after a block of more."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "3")])
    yield b"1"
    raise LookupError("the test's")


def nothing(environ: Environ, start_response: Any) -> list[bytes]:
    """Answer with what has no body, and give one."""
    start_response("204 No Content", [])
    return [b"123"]


SITE: Final[dict[str, Callable[..., Any]]] = {
    "/promises": promises,
    "/waits": waits,
    "/coroutine": coroutine,
    "/generator": generator,
    "/writes": writes,
    "/pushes": pushes,
    "/late": late,
    "/streams": streams,
    "/big": big,
    "/left": left,
    "/fails": fails,
    "/cut": cut,
    "/cut-with-length": cut_with_length,
    "/nothing": nothing,
}
UNDER_BIDE: Final = {path: bide.blocking(each) for path, each in SITE.items()}


def application(environ: Environ, start_response: Any) -> Any:
    """Call what is asked for."""
    path = environ["PATH_INFO"]
    if path.startswith("/plain/"):
        return SITE[path.removeprefix("/plain")](environ, start_response)
    return UNDER_BIDE[path](environ, start_response)


def main() -> None:
    """Serve by a server without a command of its own: ``python -m ... NAME PORT``."""
    import sys

    name, port = sys.argv[1], int(sys.argv[2])
    if name == "wsgiref":
        from wsgiref.simple_server import make_server

        make_server("127.0.0.1", port, application).serve_forever()
    else:
        from werkzeug.serving import WSGIRequestHandler, run_simple

        WSGIRequestHandler.protocol_version = "HTTP/1.1"
        run_simple("127.0.0.1", port, application, threaded=True)


if __name__ == "__main__":
    main()
