"""The requests that get no whole answer: clients that leave, in every state, and that stall.

Each is given an open connection, its token and the dice, and leaves by a FIN or by a reset. What
came before that is checked as far as it went. Those that stall stay until the server ends them, and
fail where it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from .client import HOWS, Connection
from .exchanges import WrongAnswerError, get

HEAD_TIMEOUT = 2
IDLE_TIMEOUT = 4
RESPONSE_TIMEOUT = 5
REQUEST_TIMEOUT = 7
"""Seconds, which the soaked server is started with: those that stall are gone by then.

A response without an end is to meet its own limit, and not that of the request.
"""

SMALL_WINDOW = 8 * 1024
"""Bytes of a stalled reader's buffer."""
_LONGEST_BEGINNING = 4096

Departure = Callable[[Connection, str, Random], Awaitable[None]]


async def _soon(dice: Random) -> None:
    # Before the server has read it, while it begins, or once it waits: chance decides.
    await asyncio.sleep(dice.choice((0.0, 0.0, 0.001, 0.005)))


async def _begun(connection: Connection, expected: str) -> None:
    """Return once the response has begun, with the right bytes."""
    came = await connection.receive(1)
    while expected.encode() not in came:
        if len(came) > _LONGEST_BEGINNING:
            raise WrongAnswerError(f"{came[:400]!r} without {expected!r}")
        came = await connection.receive(len(came) + 1)
    if not came.startswith(b"HTTP/1.1 200 "):
        raise WrongAnswerError(f"{came[:80]!r}, which is not a 200")


# Those that leave --------------------------------------------------------------------------------


async def silent(connection: Connection, token: str, dice: Random) -> None:
    """Connect, and leave."""
    await _soon(dice)


async def in_head(connection: Connection, token: str, dice: Random) -> None:
    """Leave in the middle of a head."""
    request = get(f"/hello/{token}/0")
    await connection.send(request[: dice.randrange(1, len(request))])
    await _soon(dice)


async def in_body(connection: Connection, token: str, dice: Random) -> None:
    """Leave in the middle of a body that the application reads."""
    head = get(f"/upload/{token}/0", "Content-Length: 100000", method="POST")
    await connection.send(head + bytes(dice.randrange(90_000)))
    await _soon(dice)


async def in_chunk(connection: Connection, token: str, dice: Random) -> None:
    """Leave in the middle of a chunk."""
    head = get(f"/upload/{token}/0", "Transfer-Encoding: chunked", method="POST")
    await connection.send(head + b"400\r\n" + bytes(dice.randrange(1024)))
    await _soon(dice)


async def in_unread_body(connection: Connection, token: str, dice: Random) -> None:
    """Leave in the middle of a body that the application does not read, and waits."""
    head = get(f"/sleep/{token}/60000", "Content-Length: 100000", method="POST")
    await connection.send(head + bytes(dice.randrange(90_000)))
    await _soon(dice)


async def running(connection: Connection, token: str, dice: Random) -> None:
    """Leave while the application's code runs, or before."""
    await connection.send(get(f"/busy/{token}/2"))
    await _soon(dice)


async def waiting(connection: Connection, token: str, dice: Random) -> None:
    """Leave while the application waits."""
    await connection.send(get(f"/sleep/{token}/60000"))
    await _soon(dice)


async def placed(connection: Connection, token: str, dice: Random) -> None:
    """Leave while the application waits for a place, holds one, or gives it back."""
    kind = dice.choice(("semaphore", "lock", "pool"))
    await connection.send(get(f"/{kind}/{token}/{dice.choice((1, 60000))}"))
    await _soon(dice)


async def half_closed(connection: Connection, token: str, dice: Random) -> None:
    """Close the sending side while the application waits: the server ends it."""
    await connection.send(get(f"/sleep/{token}/60000"))
    await _soon(dice)
    connection.half_close()
    if came := await connection.end():
        raise WrongAnswerError(f"{came[:80]!r} to a client that had closed its side")


async def pipelined(connection: Connection, token: str, dice: Random) -> None:
    """Leave with requests queued behind one that waits."""
    behind = get(f"/hello/{token}/0") * dice.randrange(1, 20)
    await connection.send(get(f"/sleep/{token}/60000") + behind)
    await _soon(dice)


async def answered(connection: Connection, token: str, dice: Random) -> None:
    """Ask much, and leave before an answer is read."""
    await connection.send(get(f"/hello/{token}/0") * 8 + get(f"/large/{token}/300000") * 2)
    await _soon(dice)


async def in_response(connection: Connection, token: str, dice: Random) -> None:
    """Leave in the middle of a large response."""
    await connection.send(get(f"/large/{token}/4000000"))
    await _begun(connection, token)


async def in_file(connection: Connection, token: str, dice: Random) -> None:
    """Leave in the middle of a file."""
    await connection.send(get(f"/file/{token}/4000000"))
    await _begun(connection, f"X-Token: {token}\r\n")


async def held(connection: Connection, token: str, dice: Random) -> None:
    """Leave a response that waits between two blocks, and waits again to clean up."""
    await connection.send(get(f"/hold/{token}/{dice.randrange(5)}"))
    await _begun(connection, f"hold {token}\n")


async def iterated(connection: Connection, token: str, dice: Random) -> None:
    """Leave an async generator without an end."""
    await connection.send(get(f"/endless/{token}/0"))
    await _begun(connection, f"{token} 0\n")


async def pushed(connection: Connection, token: str, dice: Random) -> None:
    """Leave a response that a thread pushes."""
    await connection.send(get(f"/pushed/{token}/0"))
    await _begun(connection, f"pushed {token}\n")


async def unfinished(connection: Connection, token: str, dice: Random) -> None:
    """Leave a response whose `finish` nobody calls."""
    await connection.send(get(f"/unfinished/{token}/0"))
    await _begun(connection, f"unfinished {token}\n")


async def closing(connection: Connection, token: str, dice: Random) -> None:
    """Leave while `close` waits."""
    await connection.send(get(f"/closing/{token}/{dice.randrange(10)}"))
    await _begun(connection, f"closing {token}\n")


# Those that stall --------------------------------------------------------------------------------


async def _refused(connection: Connection, status: int) -> None:
    response = await connection.response()
    if response.status != status or await connection.end():
        raise WrongAnswerError(f"{response.head[:60]!r} to a client that stalls, not {status}")


async def stalled_head(connection: Connection, token: str, dice: Random) -> None:
    """Send half a head, drip some more of it, and be answered 408."""
    await connection.send(get(f"/hello/{token}/0")[:-4])
    await asyncio.sleep(HEAD_TIMEOUT / 2)
    await connection.send(b"\r\nX-Drip: 1")
    await _refused(connection, 408)


async def stalled_body(connection: Connection, token: str, dice: Random) -> None:
    """Send half a body that the application waits for, and be answered 408."""
    head = get(f"/upload/{token}/0", "Content-Length: 2000", method="POST")
    await connection.send(head + bytes(1000))
    await _refused(connection, 408)


async def stalled_reader(connection: Connection, token: str, dice: Random) -> None:
    """Take nothing of a large response, and be reset."""
    await connection.send(get(f"/large/{token}/20000000"))
    await connection.reset_by_server()


async def stalled_file(connection: Connection, token: str, dice: Random) -> None:
    """Take nothing of a file, and be reset."""
    await connection.send(get(f"/file/{token}/4000000") * 4)
    await connection.reset_by_server()


async def idle(connection: Connection, token: str, dice: Random) -> None:
    """Keep a connection that is not used, until it is closed."""
    await connection.send(get(f"/hello/{token}/0"))
    response = await connection.response()
    if response.body != f"hello {token}".encode() or await connection.end():
        raise WrongAnswerError(f"{response.body[:80]!r} on a connection that was to be idle")


async def overdue(connection: Connection, token: str, dice: Random) -> None:
    """Ask for what takes longer than a request may, and be answered 504."""
    await connection.send(get(f"/sleep/{token}/60000"))
    response = await connection.response()
    if response.status != 504:
        raise WrongAnswerError(f"{response.head[:60]!r} for a wait that takes too long, not 504")


async def overlong(connection: Connection, token: str, dice: Random) -> None:
    """Take a response that has no end, until it is cut."""
    await connection.send(get(f"/trickle/{token}/500"))
    response = await connection.response()
    if response.complete or response.body.strip(f"trickle {token}\n".encode()):
        raise WrongAnswerError(f"{response.body[-80:]!r} of a response without an end")


KINDS: dict[Departure, int] = {
    silent: 40,
    in_head: 80,
    in_body: 80,
    in_chunk: 50,
    in_unread_body: 50,
    running: 50,
    waiting: 130,
    placed: 90,
    half_closed: 60,
    pipelined: 60,
    answered: 40,
    in_response: 40,
    in_file: 40,
    held: 70,
    iterated: 60,
    pushed: 40,
    unfinished: 50,
    closing: 50,
    stalled_head: 5,
    stalled_body: 5,
    stalled_reader: 3,
    stalled_file: 2,
    idle: 5,
    overdue: 5,
    overlong: 3,
}
"""Each kind of departure, with how many there are of it in about 1,000."""

STALLS: frozenset[Departure] = frozenset(
    {stalled_head, stalled_body, stalled_reader, stalled_file, idle, overdue, overlong}
)
"""Those that last for seconds."""


async def depart(port: int, kind: Departure, token: str, dice: Random) -> None:
    """Make one departure on a connection of its own."""
    window = SMALL_WINDOW if kind in (stalled_reader, stalled_file) else 0
    connection = await Connection.open(port, window)
    try:
        await kind(connection, token, dice)
    finally:
        connection.leave(dice.choice(HOWS))
