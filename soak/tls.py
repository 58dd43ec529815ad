"""Many TLS connections that are read by the loop while threads write to them.

    python -m soak.tls [CONNECTIONS [MEGABYTES]]

Each client sends random bytes and reads them back at the same time, on the same connection, from
an application in four threads. OpenSSL crashes, or damages what passes, if two threads are in it on
one connection. Ends with 1 if a byte is missing or wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
import sys
from dataclasses import dataclass, field
from typing import Any

from bide.testing.live import LiveServer
from tests.tls import certificates

BLOCK = 50_000
LIMIT = 600.0
"""Seconds that one connection may take."""


@dataclass
class Result:
    """What came of it.

    Attributes:
        received: bytes that have come back.
        failed: why connections have failed.
    """

    received: int = 0
    failed: list[str] = field(default_factory=list)


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Send back what comes, as it comes."""
    write = start_response("200 OK", [("Content-Type", "application/octet-stream")])
    body = environ["wsgi.input"]
    while block := body.read1(20_000):
        write(block)
    return []


def load(connections: int, megabytes: int) -> Result:
    """Send so much, over so many connections, and see that it comes back."""
    result = Result()
    with LiveServer(
        application,
        threads=4,
        limit_body=0,
        queue_timeout=LIMIT,
        limit_connections=connections + 10,
        **certificates().settings,
    ) as server:
        asyncio.run(_all(result, server.port, connections, megabytes * 1024 * 1024 // connections))
    return result


async def _all(result: Result, port: int, connections: int, size: int) -> None:
    context = certificates().context()
    await asyncio.gather(
        *(_one(result, context, port, size, number) for number in range(connections))
    )


async def _one(result: Result, context: ssl.SSLContext, port: int, size: int, number: int) -> None:
    try:
        async with asyncio.timeout(LIMIT):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                port,
                ssl=context,
                server_hostname="localhost",
                ssl_handshake_timeout=LIMIT,
            )
            sent, came = hashlib.sha256(), hashlib.sha256()
            sending = asyncio.ensure_future(_send(writer, sent, size, random.Random(number)))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ValueError(head)
            while length := int(await reader.readline(), 16):
                block = await reader.readexactly(length + 2)
                came.update(memoryview(block)[:-2])
                result.received += length
            await sending
            writer.close()
            if came.digest() != sent.digest():
                raise ValueError("other bytes came back")
    except Exception as error:  # noqa: BLE001 - it is reported
        result.failed.append(repr(error))


async def _send(writer: asyncio.StreamWriter, sent: Any, size: int, source: random.Random) -> None:
    writer.write(b"POST / HTTP/1.1\r\nHost: soak\r\nContent-Length: %d\r\n\r\n" % size)
    while size:
        block = source.randbytes(min(size, BLOCK))
        size -= len(block)
        sent.update(block)
        writer.write(block)
        await writer.drain()


def main() -> None:
    """Run it, and say what came of it."""
    connections = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 1024
    result = load(connections, megabytes)
    print(f"{result.received / 1024 / 1024:.0f} MiB came back over {connections} connections")
    for each in result.failed[:10]:
        print(each)
    sys.exit(bool(result.failed))


if __name__ == "__main__":
    main()
