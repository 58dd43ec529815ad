"""What ``bide top`` reads in an instance: its workers, threads and requests, a row each.

An instance comes from a server, which may be of another version. What is missing there, or of
another type, is shown as empty or 0. Texts are escaped once more: whatever the server sends,
nothing that steers a terminal gets there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

LOOP: Final = "the event loop"
STATES: Final = ("blocked", "running", "queued", "reading", "sending", "waiting")
"""The states of a request, those first that ask for attention. Of a blocked one the thread is."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process. Times are in seconds; ``mute`` means that it did not answer."""

    number: int
    pid: int
    up: float
    rss: int
    lag: float
    counts: dict[str, int]
    mute: bool


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread that runs requests, or the event loop.

    Attributes:
        name: as in the log; ``loop`` for the event loop.
        since: for how many seconds it has been in this state.
        waiting: how many requests wait, and go on in it.
        runs: method and path of the request whose code it runs.
    """

    worker: int
    name: str
    state: str
    since: float
    waiting: int
    runs: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request in progress, or work beside requests. ``age`` is in seconds."""

    id: str
    application: str
    state: str
    waits_for: str
    thread: str
    asked: str
    client: str
    age: float
    sent: int

    def has(self, text: str) -> bool:
        """Whether a text, in small letters, is in what the table shows of it."""
        shown = (
            self.asked,
            self.state,
            self.waits_for,
            self.thread,
            self.client,
            self.id,
            self.application,
        )
        return any(text in each.lower() for each in shown)


def safe(value: object) -> str:
    """Return a text of which each character is printed as one: all others are escaped.

    So are those that have no width or that turn the direction of what follows.
    """
    text = value if isinstance(value, str) else ""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def number(value: object) -> float:
    """Return a number; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return value if math.isfinite(value) else 0


def rows(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def workers(instance: dict[str, Any]) -> list[Worker]:
    """Return the processes, those that did not answer among them, by their numbers."""
    found = [_worker(each) for each in rows(instance.get("workers"))]
    mute = instance.get("mute")
    if isinstance(mute, list):
        found += [Worker(int(number(each)), 0, 0, 0, 0, {}, True) for each in mute]
    return sorted(found, key=lambda each: each.number)


def _worker(snapshot: dict[str, Any]) -> Worker:
    counts = snapshot.get("counts")
    return Worker(
        number=int(number(snapshot.get("worker"))),
        pid=int(number(snapshot.get("pid"))),
        up=number(snapshot.get("up")),
        rss=int(number(snapshot.get("rss_bytes"))),
        lag=number(snapshot.get("loop_lag")),
        counts={
            safe(name): 1 if value is True else int(number(value))
            for name, value in (counts.items() if isinstance(counts, dict) else ())
        },
        mute=False,
    )


def threads_and_requests(instance: dict[str, Any]) -> tuple[list[Thread], list[Request]]:
    """Return the threads and the requests of all workers, in the order in which they came."""
    threads: list[Thread] = []
    requests: list[Request] = []
    for snapshot in rows(instance.get("workers")):
        seen = rows(snapshot.get("threads"))
        blocked = {safe(each.get("request")) for each in seen if each.get("state") == "blocked"}
        here = [_request(each, blocked - {""}) for each in rows(snapshot.get("requests"))]
        asked = {each.id: each.asked for each in here}
        worker = int(number(snapshot.get("worker")))
        threads += [_thread(each, worker, asked) for each in seen]
        requests += here
    return threads, requests


def _thread(row: dict[str, Any], worker: int, asked: dict[str, str]) -> Thread:
    return Thread(
        worker=worker,
        name=_thread_name(row.get("name")),
        state=safe(row.get("state")),
        since=number(row.get("for")),
        waiting=int(number(row.get("waiting"))),
        runs=asked.get(safe(row.get("request")), ""),
    )


def _request(row: dict[str, Any], blocked: set[str]) -> Request:
    name = safe(row.get("id"))
    return Request(
        id=name,
        application=safe(row.get("application")),
        state="blocked" if name in blocked else safe(row.get("state")),
        waits_for=safe(row.get("waits_for")),
        thread=_thread_name(row.get("thread")),
        asked=f"{safe(row.get('method'))} {safe(row.get('target'))}".strip(),
        client=safe(row.get("client")),
        age=number(row.get("total")),
        sent=int(number(row.get("sent"))),
    )


def _thread_name(value: object) -> str:
    return "loop" if value == LOOP else safe(value).removeprefix("bide-")


def addresses(instance: dict[str, Any]) -> Iterator[str]:
    """Return the addresses that the server listens on."""
    value = instance.get("addresses")
    yield from (safe(each) for each in value) if isinstance(value, list) else ()


def age(seconds: float) -> str:
    """Return a time in six characters at most: ``0.25s``, ``12.3s``, ``2m05s``, ``1h02m``."""
    if seconds < 9.995:
        return f"{max(seconds, 0):.2f}s"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{left:02d}s"


def size(count: float) -> str:
    """Return a number of bytes in five characters at most: ``999``, ``1.2k``, ``83M``."""
    if count < 1000:
        return f"{max(count, 0):.0f}"
    for unit in "kMGT":
        count /= 1000
        if count < 9.95:
            return f"{count:.1f}{unit}"
        if count < 999.5:
            return f"{count:.0f}{unit}"
    return f"{count:.0f}T"
