"""What ``make comparison`` has each server serve: plain WSGI, and the same in plain ASGI."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import bide

SECONDS: Final = 1.0
"""How long a request for ``/wait`` waits."""


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Read the body; wait where the path says so, by Bide if it is the server."""
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/wait":
        if "bide.status" in environ:
            bide.wait(asyncio.sleep(SECONDS))
        else:
            time.sleep(SECONDS)  # gives way under gevent, which patches it
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer the same."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/wait":
        await asyncio.sleep(SECONDS)
    head = [(b"content-type", b"text/plain"), (b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b"ok\n"})
