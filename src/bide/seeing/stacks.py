"""Where the code of this process stands: of threads, of requests that wait, and of tasks.

A stack has the application's frames, as the monitor shows them. It is read from another thread, so
it may be a moment old.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from bide.executors.hub import job_of
from bide.executors.places import frames_of, own_frames, stack_of_frames
from bide.seeing.snapshot import LOOP, task_running
from bide.serving.formatters import escaped, escaped_lines
from bide.serving.numbering import id_of, worker_number
from bide.serving.requests import RequestStatus
from bide.serving.status import Inside, insides, status


def stacks(identity: str = "") -> dict[str, Any]:
    """Return all stacks of this process, each as lines of text; from any thread.

    Args:
        identity: a request's id, for its stack alone; empty: all.

    Returns:
        ``worker``, its number; ``threads``, each with ``name``, ``request`` (the id of the one
        whose code it runs, or empty) and ``stack``; ``requests`` that stand still, each with
        ``id``, ``method``, ``target``, ``state``, ``waits_for``, ``thread`` and ``stack``;
        ``tasks`` of event loops that belong to no request, each with ``name`` and ``stack``.
    """
    looked = insides()
    seen = {each.id: each for each in status().requests}
    threads = list(_threads(looked))
    running = {each["request"] for each in threads}
    requests = list(_requests(looked, seen, running))
    if identity:
        threads = [each for each in threads if each["request"] == identity]
        requests = [each for each in requests if each["id"] == identity]
    return {
        "worker": worker_number(),
        "threads": threads,
        "requests": requests,
        "tasks": [] if identity else list(_tasks(looked)),
    }


def _lines(frames: list[FrameType]) -> list[str]:
    """Return a stack as text."""
    return escaped_lines(stack_of_frames(frames)).split("\n") if frames else []


def _threads(looked: list[Inside]) -> Iterator[dict[str, Any]]:
    loops = {getattr(each.loop, "_thread_id", None): each for each in looked}
    requests = {
        hub.thread: id_of(job)
        for each in looked
        for hub in each.hubs
        if (job := job_of(hub.running)) is not None
    }
    names = {each.ident: escaped(each.name) for each in threading.enumerate()}
    names |= {hub.thread: hub.name for each in looked for hub in each.hubs}
    for thread, frame in sys._current_frames().items():
        inside = loops.get(thread)
        frames = frames_of(frame, on_loop=inside is not None)
        request = requests.get(thread, "")
        if inside is not None:
            name, request = LOOP, request or task_running(inside)
        else:
            name = names.get(thread, "")
        if name or frames:
            yield {
                "name": name or f"thread {thread}",
                "request": request,
                "stack": _lines(frames),
            }


def _requests(
    looked: list[Inside], seen: dict[str, RequestStatus], running: set[str]
) -> Iterator[dict[str, Any]]:
    """Return the requests that have begun, and whose code does not run now."""
    for inside in looked:
        for call in inside.calls:
            found = seen.get(id_of(call))
            if found is None or found.id in running:
                continue
            if call.task is not None:
                frames = _frames_of_task(call.task)
            else:
                wait = call.times.spent[2]
                parked = None if wait is None else wait.parked
                frames = [] if parked is None else frames_of(parked.gr_frame)
            yield {
                "id": found.id,
                "method": found.method,
                "target": found.target,
                "state": found.state,
                "waits_for": escaped(found.waits_for),
                "thread": found.thread,
                "stack": _lines(frames),
            }


def _tasks(looked: list[Inside]) -> Iterator[dict[str, Any]]:
    for loop in {each.loop for each in looked}:
        of_requests = {call.task for each in looked for call in each.calls}
        for task in asyncio.all_tasks(loop):
            frames = _frames_of_task(task)
            if frames and task not in of_requests:
                yield {"name": escaped(task.get_name()), "stack": _lines(frames)}


def _frames_of_task(task: asyncio.Task[Any]) -> list[FrameType]:
    """Return the application's frames of a task that is suspended, outermost first."""
    frames: list[FrameType] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return own_frames(frames)
