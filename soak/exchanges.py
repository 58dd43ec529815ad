"""The requests that get their answers: what is sent, and the one right answer to it.

Every request has a token of its own that must come back; bodies are made of the token, so that
bytes of another request are seen wherever they turn up.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .application import FILE_PATTERN
from .client import BrokenAnswerError, Connection

# What the soaked server is started with.
LIMIT_BODY = 1024 * 1024
HEALTH = "/health"


class WrongAnswerError(Exception):
    """An answer is not the right one; `str()` of it says what came instead."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, and what must come back.

    Attributes:
        parts: The bytes to send, one after another.
        status: The answer's status.
        body: Its body, exactly; of a response that is cut: what it begins with.
        mark: What must be in its head.
        bodiless: Whether no body follows the head.
        cut: Whether the response must break off.
        last: Whether the server must end the connection after it.
        failures: How many times the application fails, which is logged.
    """

    parts: tuple[bytes, ...]
    status: int
    body: bytes
    mark: bytes = b""
    bodiless: bool = False
    cut: bool = False
    last: bool = False
    failures: int = 0

    def __str__(self) -> str:
        return repr(b"".join(self.parts)[:80])


async def check(connection: Connection, asked: Asked) -> None:
    """Read an answer; raise WrongAnswerError where it is not the right one."""
    try:
        response = await connection.response(asked.bodiless)
    except BrokenAnswerError as error:
        raise WrongAnswerError(f"{error} to {asked}") from error
    right = (
        response.status == asked.status
        and response.complete is not asked.cut
        and (response.body == asked.body or not asked.body)
        and asked.mark in response.head
    )
    if not right:
        raise WrongAnswerError(
            f"{response.head[:40]!r} {response.body[:80]!r} of {len(response.body)} bytes,"
            f" complete: {response.complete}, to {asked}"
        )
    if asked.last and (rest := await connection.end()):
        raise WrongAnswerError(f"{rest[:80]!r} after the last answer to {asked}")


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """Make the head of a request."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"{method} {path} HTTP/1.1\r\nHost: soak\r\n{lines}\r\n".encode()


def _filled(token: str, size: int) -> bytes:
    pattern = token.encode() + b"\n"
    return (pattern * (size // len(pattern) + 1))[:size]


def _numbered(token: str, number: int) -> bytes:
    return "".join(f"{token} {index}\n" for index in range(number)).encode()


# Each kind is given its token and the dice -------------------------------------------------------


def hello(token: str, dice: Random) -> Asked:
    """Ask for a greeting."""
    return Asked((get(f"/hello/{token}/0"),), 200, f"hello {token}".encode())


def head(token: str, dice: Random) -> Asked:
    """Ask for its head only: the greeting's length tells the token's."""
    mark = f"content-length: {len(token) + 6}\r\n".title().encode()
    return Asked((get(f"/hello/{token}/0", method="HEAD"),), 200, b"", mark, bodiless=True)


def echo(token: str, dice: Random) -> Asked:
    """Post JSON to a Flask view that gives it back."""
    came = {"text": _filled(token, dice.randrange(20, 4000)).decode(), "numbers": [1, 2, 3]}
    body = json.dumps(came).encode()
    head = get(
        f"/flask/{token}/1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        method="POST",
    )
    # As Flask writes it: keys in order, without blanks, a line's end behind.
    told = json.dumps({"came": came, "token": token}, sort_keys=True, separators=(",", ":"))
    return Asked((head + body,), 200, told.encode() + b"\n")


def _told(token: str, body: bytes) -> bytes:
    return f"{token} {len(body)} {zlib.crc32(body)}".encode()


def counted(token: str, dice: Random) -> Asked:
    """Upload a body with its length, the rest of it a moment later."""
    body = _filled(token, dice.choice((1, 500, 5_000, 20_000, 100_000)))
    head = get(f"/upload/{token}/0", f"Content-Length: {len(body)}", method="POST")
    half = dice.randrange(len(body))
    return Asked((head + body[:half], body[half:]), 200, _told(token, body))


def chunked(token: str, dice: Random) -> Asked:
    """Upload a chunked body, with an extension, a trailer, and in pieces."""
    blocks = [_filled(token, dice.choice((1, 30, 1000, 9000))) for _ in range(dice.randrange(1, 7))]
    head = get(f"/upload/{token}/0", "Transfer-Encoding: chunked", method="POST")
    parts = [b"%x;soak=1\r\n%b\r\n" % (len(block), block) for block in blocks]
    parts[0] = head + parts[0]
    parts[-1] += b"0\r\nX-Trailer: soak\r\n\r\n"
    if dice.random() < 0.5:
        parts = [b"".join(parts)]
    return Asked(tuple(parts), 200, _told(token, b"".join(blocks)))


def unread(token: str, dice: Random) -> Asked:
    """Send a body to a view that does not read it."""
    body = _filled(token, dice.choice((10, 3000)))
    head = get(f"/hello/{token}/0", f"Content-Length: {len(body)}", method="POST")
    return Asked((head + body,), 200, f"hello {token}".encode())


def sleep(token: str, dice: Random) -> Asked:
    """Wait for a coroutine."""
    path = f"/sleep/{token}/{dice.randrange(20)}"
    return Asked((get(path),), 200, f"slept {token}".encode())


def future(token: str, dice: Random) -> Asked:
    """Wait for a future that a thread fulfils."""
    return Asked((get(f"/future/{token}/0"),), 200, f"future {token}".encode())


def several(token: str, dice: Random) -> Asked:
    """Wait for a coroutine and a thread together."""
    return Asked((get(f"/several/{token}/1"),), 200, f"{token} {token}".encode())


def timeout(token: str, dice: Random) -> Asked:
    """Wait for too long, and be told so."""
    path = f"/timeout/{token}/{dice.randrange(1, 10)}"
    return Asked((get(path),), 200, f"timeout {token}".encode())


def place(token: str, dice: Random) -> Asked:
    """Hold a place of what is shared, or be told that none was free in time."""
    kind = dice.choice(("semaphore", "lock", "pool"))
    return Asked((get(f"/{kind}/{token}/{dice.randrange(5)}"),), 200, f"place {token}".encode())


def broken(token: str, dice: Random) -> Asked:
    """Wait for what fails."""
    return Asked((get(f"/broken/{token}/0"),), 200, f"caught {token}".encode())


def _streaming(kind: str) -> Callable[[str, Random], Asked]:
    def streaming(token: str, dice: Random) -> Asked:
        number = dice.randrange(1, 9)
        return Asked((get(f"/{kind}/{token}/{number}"),), 200, _numbered(token, number))

    streaming.__name__ = kind
    return streaming


def large(token: str, dice: Random) -> Asked:
    """Take a response of several windows."""
    size = dice.randrange(1, 400_000)
    block = _filled(token, 16 * 1024 // (len(token) + 1) * (len(token) + 1))
    body = (block * (size // len(block) + 1))[:size]
    return Asked((get(f"/large/{token}/{size}"),), 200, body)


def file(token: str, dice: Random) -> Asked:
    """Take a file that the kernel sends."""
    size = dice.choice((1, 4_000, 100_000))
    body = (FILE_PATTERN * (size // len(FILE_PATTERN) + 1))[:size]
    mark = f"X-Token: {token}\r\n".encode()
    return Asked((get(f"/file/{token}/{size}"),), 200, body, mark)


def missing(token: str, dice: Random) -> Asked:
    """Ask for what the application does not have."""
    return Asked((get(f"/nothing/{token}/0"),), 404, f"no {token}".encode())


def fail(token: str, dice: Random) -> Asked:
    """Meet an application that raises before it answers."""
    return Asked((get(f"/fail/{token}/0"),), 500, b"Internal Server Error\n", failures=1)


def late(token: str, dice: Random) -> Asked:
    """Meet an application that raises after it began to answer."""
    return Asked((get(f"/late/{token}/0"),), 200, token.encode(), cut=True, last=True, failures=1)


_MALFORMED = (
    b"GET /hello/%b/0 HTTP/1.1\r\n\r\n",
    b"GET /hello/%b/0 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /hello/%b/0 HTTP/1.1\r\nHost: soak\r\nName : value\r\n\r\n",
    b"GET /hello/%b/0 HTTP/1.1\nHost: soak\n\n",
    b"GET  /hello/%b/0 HTTP/1.1\r\nHost: soak\r\n\r\n",
    b"POST /hello/%b/0 HTTP/1.1\r\nHost: soak\r\nContent-Length: +1\r\n\r\nx",
    b"POST /hello/%b/0 HTTP/1.1\r\nHost: soak\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"POST /upload/%b/0 HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
)


def malformed(token: str, dice: Random) -> Asked:
    """Send something that is not a request."""
    return Asked((dice.choice(_MALFORMED) % token.encode(),), 400, b"", last=True)


def oversized(token: str, dice: Random) -> Asked:
    """Announce a body that is longer than the server takes."""
    head = get(f"/upload/{token}/0", f"Content-Length: {LIMIT_BODY + 1}", method="POST")
    return Asked((head + b"the first of it",), 413, b"", last=True)


def health(token: str, dice: Random) -> Asked:
    """Ask the server itself, which has no use for a token."""
    return Asked((get(HEALTH),), 200, b"ok\n")


KINDS: dict[Callable[[str, Random], Asked], int] = {
    hello: 300,
    head: 20,
    echo: 80,
    counted: 40,
    chunked: 60,
    unread: 20,
    sleep: 100,
    future: 60,
    several: 20,
    timeout: 20,
    broken: 20,
    place: 60,
    _streaming("stream"): 40,
    _streaming("promised"): 30,
    _streaming("generated"): 30,
    _streaming("iterated"): 30,
    _streaming("push"): 40,
    large: 10,
    file: 30,
    missing: 20,
    fail: 8,
    late: 4,
    malformed: 8,
    oversized: 4,
    health: 10,
}
"""Each kind of request, with how many there are of it in about 1,000."""
