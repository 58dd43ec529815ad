"""Two applications beside the Flask one that run on the event loop, in the same process.

So they go on when every thread is blocked: a WSGI one, which declares that it never blocks, and an
ASGI one.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from typing import Any

import bide
from bide import iterate
from examples.demo.pulse import pulse

Message = dict[str, Any]


@bide.capable("async")
def live(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Stream the server's numbers and requests while the viewer looks: WSGI, server-sent events."""
    headers = [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-cache"),
        ("X-Accel-Buffering", "no"),  # a proxy in front must pass each event on at once
    ]
    start_response("200 OK", headers)
    yield b"retry: 1000\n\n"
    for news in iterate(pulse(bide.status)):
        yield f"data: {json.dumps(asdict(news))}\n\n".encode()


async def echo(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Send each message back: ASGI, a WebSocket."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
        return
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])  # there is nothing to start or to stop
    await receive()  # the connection
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
