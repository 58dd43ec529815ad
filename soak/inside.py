"""A look at the server from inside: what it holds, counted on its event loop.

It is a view of the soaked application, `/look/TOKEN/0` or `/look/TOKEN/1`. It counts everything but
itself: its own task, connection and conversation are taken off. What needs names that are private
to CPython or Bide is counted by the type of objects, which `gc` knows.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import linecache
import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from benchmarks.applications.attendance import Attendance
from bide import Status, wait

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_GREENLETS = ("greenlet", "Worker")

present = Attendance()
_missing: list[Callable[[], Awaitable[int]]] = []
_SETTLING = 0.02  # seconds in which the look itself is parked, and its client's head forgotten
_LONG = 3600.0
_TIMERS = 200  # more than a hundred, and far more than an idle server has


class Records(logging.Handler):
    """Counts what Bide and asyncio log, by the text that all records of a kind have in common."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count one; from any thread, under the handler's lock."""
        self.counts[f"{record.levelname} {record.msg}"] += 1


_records = Records()


class _Mallinfo2(ctypes.Structure):
    """What mallinfo2(3) returns, of all arenas together."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _heap_kb() -> int:
    """Return what malloc has given and not got back, in KB; 0 where the C library does not tell."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd) // 1024


def look(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    """Answer what the server holds, as JSON; with 1 without caches, and by type."""
    seen = wait(_count(environ["bide.status"], thorough=number == 1))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"token": token, **seen}).encode()]


def count_places(missing: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
    """Make each check report how many shared places are taken; on the event loop."""
    _missing.append(missing)
    return missing


def listen() -> None:
    """Count from now on what is logged.

    The server configures its logger after the application was imported, and drops what was there.
    """
    for name in ("bide", "asyncio"):
        logger = logging.getLogger(name)
        if _records not in logger.handlers:
            logger.addHandler(_records)


async def _count(status: Callable[[], Status], *, thorough: bool) -> dict[str, Any]:
    await asyncio.sleep(_SETTLING)
    if thorough:
        await empty_caches()
    # Else a sample holds the garbage since the last collection, which is whenever it was.
    gc.collect()
    objects = gc.get_objects()
    types = Counter(map(type, objects))
    seen: dict[str, Any] = {
        "objects": len(objects),
        "greenlets": sum(n for kind, n in types.items() if kind.__name__ in _GREENLETS),
        "uncollectable": len(gc.garbage),
        "blocks": sys.getallocatedblocks(),
        "heap_kb": _heap_kb(),
    }
    if thorough:
        seen["types"] = dict(_named(types))
    del objects, types
    now = status()
    loop = asyncio.get_running_loop()
    timers = getattr(loop, "_scheduled", ())  # of asyncio's own loop
    seen |= {
        "conversations": now.running + now.waiting + now.queued - 1,
        "parked": now.waiting - 1,
        "queued": now.queued,
        "connections": now.connections - 1,
        "lanes": now.threads,
        "tasks": len(asyncio.all_tasks()) - 1,
        "timers": sum(not timer.cancelled() for timer in timers),
        "present": present.present,
        "places": sum([await missing() for missing in _missing]),
        "logged": dict(_records.counts),
    }
    return seen


async def empty_caches() -> None:
    """Drop what is kept only for a time; on the event loop, when nothing is asked.

    `linecache` keeps the source of each module that a traceback has named: thousands of lines,
    whenever that happens first. asyncio keeps a cancelled timer, and its context, until its time
    comes or more than half of at least a hundred are cancelled: so many are made and cancelled.
    """
    linecache.clearcache()
    loop = asyncio.get_running_loop()
    for timer in [loop.call_later(_LONG, int) for _ in range(_TIMERS)]:
        timer.cancel()
    await asyncio.sleep(0)


def _named(types: Counter[type]) -> Counter[str]:
    named: Counter[str] = Counter()  # several types may have the same name
    for kind, number in types.items():
        named[f"{kind.__module__}.{kind.__qualname__}"] += number
    return named
