"""Plain WSGI: a stream of blocks, and an upload that is read to its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

READ = 65536


def blocks(count: int, size: int) -> Iterator[bytes]:
    """Return one block after another, all of which are the same object."""
    block = bytes(size)
    for _ in range(count):
        yield block


def read_all(environ: WSGIEnvironment) -> int:
    """Read the body; return how many bytes it had."""
    # Not every server ends `wsgi.input` where the body ends: PEP 3333 does not ask for it.
    left = int(environ.get("CONTENT_LENGTH") or -1)
    total = 0
    while left and (data := environ["wsgi.input"].read(READ if left < 0 else min(READ, left))):
        total += len(data)
        if left > 0:
            left -= len(data)
    return total


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    headers = [("Content-Type", "application/octet-stream")]
    if environ["PATH_INFO"] == "/blocks":
        asked = {name: int(values[0]) for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        if asked["length"]:
            headers.append(("Content-Length", str(asked["count"] * asked["size"])))
        start_response("200 OK", headers)
        return blocks(asked["count"], asked["size"])
    total = read_all(environ) if environ["REQUEST_METHOD"] == "POST" else 0
    start_response("200 OK", headers)
    return [b"%d\n" % total]
