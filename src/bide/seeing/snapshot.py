"""What the servers of this process do at one moment, as JSON can have it.

It is made on a thread that no request needs, and stops nobody: its values may be a moment apart.
What comes from clients is escaped already, so it steers no terminal.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import weakref
from collections.abc import Iterable
from time import monotonic
from typing import Any, Final

from bide.executors.hub import Hub, job_of
from bide.native import FORM
from bide.protocols.interfaces import NAMES
from bide.serving.counters import counters
from bide.serving.formatters import escaped
from bide.serving.memory import resident
from bide.serving.numbering import id_of, up
from bide.serving.requests import RequestStatus
from bide.serving.status import Inside, Status, insides, status
from bide.systems import at_fork

PATIENCE: Final = 0.01
"""Seconds that a loop is given to answer; a later answer is seen by the next look."""
LOOP: Final = "the event loop"
PARKED: Final = ("reading", "waiting", "sending")
"""States of a request that stands still where its thread does."""

_COUNTS: Final = tuple(each.name for each in dataclasses.fields(Status))
_REQUEST: Final = tuple(each.name for each in dataclasses.fields(RequestStatus))
_TEXTS: Final = ("application", "client", "method", "waits_for")


def snapshot() -> dict[str, Any]:
    """Return what this process does; from any thread but an event loop's.

    It takes some microseconds for each request in progress, and ten milliseconds more where an
    event loop does not answer.
    """
    looked = insides()
    lags = {each.loop: _lag(each) for each in looked}
    seen = status()
    requests = [_request(each) for each in seen.requests]
    counts = {name: getattr(seen, name) for name in (*_COUNTS, *_PROCESSES)}
    spoken = [name for each in looked for name in each.connections]
    counts["queue_limit"] = sum(each.settings.queue for each in looked)
    counts["websockets"] = sum(each["protocol"] == "websocket" for each in requests)
    return {
        "worker": seen.worker,
        "pid": os.getpid(),
        "up": up(),
        "form": FORM,
        "rss_bytes": _memory(),
        "loop_lag": max(lags.values(), default=0.0),
        "counts": counts,
        "connections": {name: spoken.count(name) for name in NAMES},
        "limits": [_named(each) for each in seen.limits],
        "residents": [_named(each) for each in seen.residents],
        "threads": _threads(looked, lags, requests),
        "requests": requests,
        "counters": counters(),
    }


_PROCESSES: Final = ("processes", "processes_busy", "processes_queued")


def _request(seen: RequestStatus) -> dict[str, Any]:
    found = {name: getattr(seen, name) for name in _REQUEST}
    for name in _TEXTS:
        found[name] = escaped(found[name])
    return found


def _named(seen: Any) -> dict[str, Any]:
    """Return a limit or a resident; its texts are the application's."""
    return {
        name: escaped(value) if isinstance(value, str) else value
        for name, value in dataclasses.asdict(seen).items()
    }


def _memory() -> int:
    try:
        return resident()
    except OSError:  # the system has no /proc
        return 0


# The event loop ---------------------------------------------------------------------------------


class _Question:
    """Whether a loop has answered, and when.

    Attributes:
        answered: is set by the loop.
        seconds: how long it has taken.
    """

    def __init__(self) -> None:
        self.asked = monotonic()
        self.seconds = 0.0
        self.answered = threading.Event()

    def answer(self) -> None:
        """Called on the loop."""
        self.seconds = monotonic() - self.asked
        self.answered.set()


# The last question to each loop. Single operations only.
_asked: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Question] = (
    weakref.WeakKeyDictionary()
)
at_fork(after_in_child=_asked.clear)


def _lag(inside: Inside) -> float:
    """Return for how many seconds a loop has not answered, or how long its answer has taken."""
    question = _asked.get(inside.loop)
    if question is None or question.answered.is_set():
        question = _asked[inside.loop] = _Question()
        try:
            inside.loop.call_soon_threadsafe(question.answer)
        except RuntimeError:  # it has been closed
            return 0.0
        question.answered.wait(PATIENCE)
    if question.answered.is_set():
        return question.seconds
    return max(monotonic() - question.asked, inside.unanswered())


# Threads ----------------------------------------------------------------------------------------


def _threads(
    looked: Iterable[Inside],
    lags: dict[asyncio.AbstractEventLoop, float],
    requests: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    found = []
    for each in looked:
        running = task_running(each)
        on_loop = next((hub for hub in each.hubs if hub.name == LOOP), None)
        row = _row(LOOP, on_loop, each.settings.blocked_loop)
        lag = lags[each.loop]
        if lag >= each.settings.blocked_loop:
            row |= {"state": "blocked", "for": max(lag, row["for"])}
        elif row["state"] == "blocked" or lag >= PATIENCE:
            row["state"] = "running"
        if running:
            row["request"] = running
        row["waiting"] = sum(
            request["thread"] == LOOP and request["state"] in PARKED for request in requests
        )
        found.append(row)
        found += [
            _row(hub.name, hub, each.settings.blocked_thread)
            for hub in each.hubs
            if hub is not on_loop
        ]
    return found


def task_running(inside: Inside) -> str:
    """Return the id of the request whose task the loop runs now; empty: it runs none."""
    try:
        task = asyncio.current_task(inside.loop)
    except RuntimeError:
        return ""
    if task is None:
        return ""
    return next((id_of(call) for call in inside.calls if call.task is task), "")


def _row(name: str, hub: Hub | None, blocked: float) -> dict[str, Any]:
    running = None if hub is None else hub.running
    row = {
        "name": name,
        "state": "idle",
        "for": 0.0,
        "request": "",
        "waiting": 0 if hub is None else hub.parked,
    }
    if hub is not None and running is not None:
        seconds = max(0.0, monotonic() - hub.since)
        job = job_of(running)
        row["state"] = "blocked" if seconds >= blocked else "running"
        row["for"] = seconds
        row["request"] = "" if job is None else id_of(job)
    return row
