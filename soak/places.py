"""What the soaked application shares: a semaphore, a lock and a pool, whose places must come back.

Each is taken in another way: by `wait` and given back in a `finally` that waits, by `using`, and by
`using` with a time-out inside. A look inside (see `inside.py`) tells how many places are not back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from bide import using, wait

from .inside import count_places, present

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PLACES = 3
"""Places of the semaphore, and of the pool: fewer than the load has clients."""
_PATIENCE = 0.01  # seconds for a place; about as long as one is held

_semaphore = asyncio.Semaphore(PLACES)
_lock = asyncio.Lock()
_pool: asyncio.Queue[int] = asyncio.Queue()
for _place in range(PLACES):
    _pool.put_nowait(_place)


async def _free() -> int:
    """Take what is free of the semaphore, and give it back; on the event loop."""
    free = 0
    while not _semaphore.locked():
        await _semaphore.acquire()  # at once
        free += 1
    for _ in range(free):
        _semaphore.release()
    return free


@count_places
async def missing() -> int:
    """Return how many places are taken; below zero where one was given back twice."""
    return PLACES - await _free() + _lock.locked() + PLACES - _pool.qsize()


def _held(start_response: StartResponse, token: str, number: int) -> Iterable[bytes]:
    wait(asyncio.sleep(number / 1000))
    return _answer(start_response, token)


def _answer(start_response: StartResponse, token: str) -> Iterable[bytes]:
    # The same with a place and without: whether there is one in time is chance.
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"place {token}".encode()]


async def _release() -> None:
    await asyncio.sleep(0)
    _semaphore.release()


def semaphore(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    """Hold a place of the semaphore for so many milliseconds."""
    with present.attend():
        try:
            wait(_semaphore.acquire(), timeout=_PATIENCE)
        except TimeoutError:
            return _answer(start_response, token)
        try:
            return _held(start_response, token, number)
        finally:
            wait(_release())


def lock(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    """Hold the lock for so many milliseconds, however long it takes to have it."""
    with present.attend(), using(_lock):
        return _held(start_response, token, number)


@contextlib.asynccontextmanager
async def _from_pool() -> AsyncIterator[int]:
    async with asyncio.timeout(_PATIENCE):
        place = await _pool.get()
    try:
        yield place
    finally:
        await asyncio.sleep(0)
        _pool.put_nowait(place)


def pool(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    """Hold a place of the pool for so many milliseconds."""
    with present.attend():
        try:
            with using(_from_pool()):
                return _held(start_response, token, number)
        except TimeoutError:
            return _answer(start_response, token)
