"""Names what blocks: a thread that watches the loop and the lanes, and writes to the log.

It only looks: at when a hub last switched, and at whether the loop still answers. The looks are
without locks, so a figure may be a moment old; what it reports has lasted far longer.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from types import FrameType

from bide.executors.hub import Hub, Job, job_of

log = logging.getLogger("bide")


@dataclass(slots=True)
class _Blocked:
    since: float
    name: str


class Monitor(threading.Thread):
    """Watches one server's loop and lanes until stopped.

    Args:
        loop: the server's loop, which is the running one.
        hubs: gives the hubs to watch, those of lanes; from this thread.
        held_up: says how many requests a blocked loop holds up.
        loop_seconds: how long the loop may take to answer.
        lane_seconds: how long a conversation may run on a lane without waiting.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hubs: Callable[[], list[Hub]],
        held_up: Callable[[], int],
        loop_seconds: float,
        lane_seconds: float,
    ) -> None:
        super().__init__(name="bide-monitor", daemon=True)
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._hubs = hubs
        self._held_up = held_up
        self._loop_seconds = loop_seconds
        self._lane_seconds = lane_seconds
        self._ended = threading.Event()
        self._asked: float | None = None  # when the loop was asked for a sign; None: it answered
        self._loop_blocked: _Blocked | None = None
        self._lanes_blocked: dict[Hub, _Blocked] = {}

    def run(self) -> None:
        """Look, until stopped, often enough to see what the limits name."""
        # Bounded: a limit that is infinite is one that nothing reaches.
        interval = min(self._loop_seconds, self._lane_seconds, 60.0) / 2
        while not self._ended.wait(interval):
            self.look()

    def look(self, ahead: float = 0.0) -> None:
        """Look once. The thread does, and tests do when they say.

        Args:
            ahead: seconds that a test is ahead of the clock, by which all has lasted the longer.
        """
        self._look_at_loop(ahead)
        self._look_at_lanes(ahead)

    def stop(self) -> None:
        """End the thread, soon; from any thread."""
        self._ended.set()

    def _answer(self) -> None:
        self._asked = None

    def _look_at_loop(self, ahead: float) -> None:
        asked = self._asked
        now = monotonic() + ahead
        if asked is None:
            if self._loop_blocked is not None:
                blocked, self._loop_blocked = self._loop_blocked, None
                log.error("the event loop goes on, after %.1f s", now - blocked.since)
            if self._held_up():  # an idle server's loop is left asleep
                self._asked = now
                try:
                    self._loop.call_soon_threadsafe(self._answer)
                except RuntimeError:  # the loop has been closed
                    self._ended.set()
        elif self._loop_blocked is None and now - asked >= self._loop_seconds:
            frame = sys._current_frames().get(self._loop_thread)
            if frame is None or _selects(frame):
                return  # not blocked, but starved by threads that compute
            self._loop_blocked = _Blocked(asked, "the event loop")
            running = [hub for hub in self._hubs() if hub.thread == self._loop_thread]
            job = job_of(running[0].running) if running else None
            log.error(
                "the event loop has been blocked for %.1f s by %s; "
                "all %d requests in progress are held up:\n%s",
                now - asked,
                "a callback or a coroutine" if job is None else job.describe(),
                self._held_up(),
                _stack(frame),
            )

    def _look_at_lanes(self, ahead: float) -> None:
        for hub in self._hubs():
            if hub.thread == self._loop_thread:
                continue
            now = monotonic() + ahead
            blocked = self._lanes_blocked.get(hub)
            running, since = hub.running, hub.since
            if blocked is not None:
                if running is not None and since == blocked.since:
                    continue
                del self._lanes_blocked[hub]
                log.warning(
                    "%s goes on, after %.1f s in %s", hub.name, now - blocked.since, blocked.name
                )
            if running is None or now - since < self._lane_seconds:
                continue
            job = job_of(running)
            frame = sys._current_frames().get(hub.thread)
            name = "a request" if job is None else job.describe()
            self._lanes_blocked[hub] = _Blocked(since, name)
            log.warning(
                "%s has been blocked for %.1f s by %s; "
                "%d waiting requests of this lane are held up:\n%s",
                hub.name,
                now - since,
                name,
                hub.parked,
                _stack(frame),
            )


def stack_of(job: Job, hubs: list[Hub]) -> str:
    """Give the stack of a job whose code runs; empty when it waits, or has not begun.

    From any thread, and so a moment old.
    """
    for hub in hubs:
        if job_of(hub.running) is job:
            return _stack(sys._current_frames().get(hub.thread))
    return ""


def _selects(frame: FrameType) -> bool:
    """Say whether this is an event loop that waits for what comes next."""
    # By both names: subprocess.communicate() selects too, and blocks whoever calls it.
    above = frame.f_back
    return (
        frame.f_code.co_name == "select"
        and above is not None
        and above.f_code.co_name == "_run_once"
    )


def _stack(frame: FrameType | None) -> str:
    if frame is None:
        return "  (its thread has ended)"
    # The innermost frames: what blocks is there, and the server's own are at the other end.
    return "".join(traceback.format_stack(frame)[-12:]).rstrip()
