"""Streams of a protocol like MCP over HTTP, which end in order when the server stops.

A client asks with a POST, a message of JSON-RPC. A call that takes its time is answered by a
stream: what it is doing, and then its result. With a GET the client listens to what the server has
to say, for as long as there is a server. When that stops, this stream says good-bye and ends, at
once; calls in progress have ``--graceful-timeout`` seconds. Listen, count, and stop the server:

    pip install starlette
    bide examples.mcp_stream.app:app --graceful-timeout 30
    curl -N http://127.0.0.1:8000/mcp
    curl -N http://127.0.0.1:8000/mcp -d '{"id": 1, "method": "tools/call",
        "params": {"name": "count", "arguments": {"to": 20}}}'

Any other ASGI server runs it, too. There nothing tells the streams of the end: a server that waits
for them waits until they are cut.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

STEP = 0.5
"""Seconds between two numbers of the tool that counts."""
HEARTBEAT = 15.0
"""Seconds after which a stream says that it is still there: a proxy would end a silent one."""

TOOLS = [
    {
        "name": "count",
        "description": "Counts slowly.",
        "inputSchema": {"type": "object", "properties": {"to": {"type": "integer"}}},
    }
]


def event(message: dict[str, Any]) -> str:
    """Return a message of JSON-RPC as a server-sent event."""
    return f"event: message\ndata: {json.dumps({'jsonrpc': '2.0', **message})}\n\n"


def end_of(request: Request) -> Awaitable[None]:
    """Return what is awaited until the server begins to stop."""
    drain: Awaitable[None] | None = request.scope.get("extensions", {}).get("bide.drain")
    return asyncio.Event().wait() if drain is None else drain  # type: ignore[return-value]


async def listen(request: Request) -> Response:
    """Stream what the server has to say: here heartbeats, and good-bye."""

    async def events() -> AsyncIterator[str]:
        stopping = asyncio.ensure_future(end_of(request))
        try:
            yield ": hello\n\n"
            while not stopping.done():
                yield ": still here\n\n"
                await asyncio.wait({stopping}, timeout=HEARTBEAT)
            # The client comes again: to the next server, or to this one when it has restarted.
            yield "retry: 1000\n" + event({"method": "notifications/stopping"})
        finally:
            stopping.cancel()

    return StreamingResponse(events(), media_type="text/event-stream")


async def ask(request: Request) -> Response:
    """Answer a message; a call of a tool by a stream."""
    message = await request.json()
    number, method = message.get("id"), message["method"]
    if method == "tools/list":
        return JSONResponse({"jsonrpc": "2.0", "id": number, "result": {"tools": TOOLS}})
    if method == "tools/call" and message["params"]["name"] == "count":
        to = int(message["params"]["arguments"]["to"])
        return StreamingResponse(count(number, to), media_type="text/event-stream")
    error = {"code": -32601, "message": f"there is no {method}"}
    return JSONResponse({"jsonrpc": "2.0", "id": number, "error": error}, status_code=404)


async def count(number: Any, to: int) -> AsyncIterator[str]:
    """Count, and say how far it is; a server that stops lets it end."""
    for each in range(1, to + 1):
        params = {"progressToken": number, "progress": each, "total": to}
        yield event({"method": "notifications/progress", "params": params})
        await asyncio.sleep(STEP)
    result = {"content": [{"type": "text", "text": f"counted to {to}"}]}
    yield event({"id": number, "result": result})


app = Starlette(
    routes=[Route("/mcp", listen, methods=["GET"]), Route("/mcp", ask, methods=["POST"])]
)
