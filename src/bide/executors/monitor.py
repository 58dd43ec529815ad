"""Names what blocks: a thread that watches the loop and the lanes, and writes to the log.

It reads when a hub last switched, and whether the loop still answers, and changes nothing. It takes
no locks, so a figure may be a moment old; what it reports has lasted far longer.

A loop that is late need not be blocked: the machine may be busy, or threads may have the
interpreter. It is blocked when two looks find it in the same call of the application's, and that
call either stands at one instruction, or has used the processor for half of the time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from types import FrameType

from bide.exchange.call import Call
from bide.executors.hub import Hub, Job, job_of
from bide.executors.places import Reports, frames_of, place_of, stack_of_frames

log = logging.getLogger("bide")

_thread_clock = getattr(time, "pthread_getcpuclockid", None)  # macOS has none


@dataclass(slots=True)
class _Blocked:
    since: float
    name: str
    level: int | None  # of the line in the log; None: there was none, it was only counted


@dataclass(slots=True, frozen=True)
class Sight:
    """What the loop's thread was doing, at one look."""

    at: float
    stint: float  # when its hub last switched
    call: int  # the outermost frame of the application's
    point: tuple[int, int]  # the innermost frame, and its instruction
    queued: float  # seconds that the thread has waited for a processor, in all


class Monitor:
    """Watches one server's loop and lanes until stopped.

    Args:
        loop: the server's loop, which is the running one.
        hubs: returns the hubs to watch; called on the monitor's thread.
        held_up: returns how many requests a blocked loop holds up; called there, too.
        loop_seconds: how long the loop may take to answer.
        lane_seconds: how long a conversation may run on a lane without waiting.
        clock: returns monotonic seconds.

    Attributes:
        thread: what watches.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hubs: Callable[[], list[Hub]],
        held_up: Callable[[], int],
        loop_seconds: float,
        lane_seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.thread = threading.Thread(target=self._run, name="bide-monitor", daemon=True)
        self._clock = clock
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._loop_number = threading.get_native_id()
        self._loop_clock = None if _thread_clock is None else _thread_clock(self._loop_thread)
        self._hubs = hubs
        self._held_up = held_up
        self._loop_seconds = loop_seconds
        self._lane_seconds = lane_seconds
        self._ended = threading.Event()
        self._asked: float | None = None  # when the loop was asked to answer; None: it has
        self._used = 0.0  # processor time of the loop's thread, when it was asked
        self._seen: Sight | None = None  # at the last look since then
        self._loop_blocked: _Blocked | None = None
        self._lanes_blocked: dict[Hub, _Blocked] = {}
        self._reports = Reports()

    def start(self) -> None:
        """Begin to watch."""
        self.thread.start()

    def _run(self) -> None:
        """Look, until stopped, twice within the shorter limit."""
        # Bounded, since a limit may be infinite.
        interval = min(self._loop_seconds, self._lane_seconds, 60.0) / 2
        while not self._ended.wait(interval):
            self.look()
        self._say_repeated(math.inf)

    def look(self, ahead: float = 0.0) -> None:
        """Look once; on the monitor's thread, or in a test.

        Args:
            ahead: seconds to add to the time of the clock, for tests.
        """
        self._look_at_loop(ahead)
        self._look_at_lanes(ahead)
        self._say_repeated(self._clock() + ahead)

    def stop(self) -> None:
        """End the thread, soon; from any thread."""
        self._ended.set()

    def _answer(self) -> None:
        self._asked = None

    def _look_at_loop(self, ahead: float) -> None:
        asked = self._asked
        now = self._clock() + ahead
        if asked is None:
            self._seen = None
            if self._loop_blocked is not None:
                blocked, self._loop_blocked = self._loop_blocked, None
                if blocked.level is not None:
                    log.log(
                        blocked.level, "the event loop goes on, after %.1f s", now - blocked.since
                    )
            if self._held_up():  # an idle server's loop is left asleep
                self._used = self._loop_used()
                self._asked = now
                try:
                    self._loop.call_soon_threadsafe(self._answer)
                except RuntimeError:  # the loop has been closed
                    self._ended.set()
        elif self._loop_blocked is None:
            running = [hub for hub in self._hubs() if hub.thread == self._loop_thread]
            frames = frames_of(sys._current_frames().get(self._loop_thread), on_loop=True)
            before, self._seen = self._seen, self._see(frames, running)
            if now - asked >= self._loop_seconds and self._is_stuck(before, self._seen):
                job = job_of(running[0].running) if running else None
                self._say_loop(now, asked, job, frames)

    def _see(self, frames: list[FrameType], running: list[Hub]) -> Sight | None:
        """Note what the loop's thread is doing; None where it runs no code of the application's."""
        if not frames:
            return None
        return Sight(
            self._clock(),
            running[0].since if running else 0.0,
            id(frames[0]),
            (id(frames[-1]), frames[-1].f_lasti),
            _queued(self._loop_number),
        )

    def _is_stuck(self, before: Sight | None, now: Sight | None) -> bool:
        """Whether one call keeps the loop; not so if the machine or other threads do."""
        if before is None or now is None:
            return False
        if (before.stint, before.call) != (now.stint, now.call):
            return False
        if now.queued - before.queued > (now.at - before.at) / 2:
            return False
        if before.point == now.point or self._loop_clock is None:
            return True
        return self._loop_used() - self._used >= self._loop_seconds / 2

    def _loop_used(self) -> float:
        """Return the seconds of processor time that the loop's thread has used."""
        try:
            return 0.0 if self._loop_clock is None else time.clock_gettime(self._loop_clock)
        except OSError:  # the thread has ended
            return 0.0

    def _say_loop(self, now: float, asked: float, job: Job | None, frames: list[FrameType]) -> None:
        name = "a callback or a coroutine" if job is None else job.describe()
        held = self._held_up() - (job is not None)
        place = place_of(frames, "the event loop", held > 0)
        level: int | None = None
        if self._reports.is_due(place, now):
            level = logging.ERROR if held > 0 else logging.WARNING
            if held > 0:
                log.log(
                    level,
                    "the event loop has been blocked for %.1f s by %s; "
                    "%s in progress %s held up:\n%s",
                    now - asked,
                    name,
                    _number(held, "request" if job is None else "other request"),
                    "is" if held == 1 else "are",
                    stack_of_frames(frames),
                )
            else:
                log.log(
                    level,
                    "the event loop has been blocked for %.1f s by %s, at %s",
                    now - asked,
                    name,
                    place,
                )
        self._loop_blocked = _Blocked(asked, name, level)

    def _look_at_lanes(self, ahead: float) -> None:
        for hub in self._hubs():
            if hub.thread == self._loop_thread:
                continue
            now = self._clock() + ahead
            blocked = self._lanes_blocked.get(hub)
            running, since = hub.running, hub.since
            if blocked is not None:
                if running is not None and since == blocked.since:
                    continue
                del self._lanes_blocked[hub]
                if blocked.level is not None:
                    log.log(
                        blocked.level,
                        "%s goes on, after %.1f s in %s",
                        hub.name,
                        now - blocked.since,
                        blocked.name,
                    )
            if running is None or now - since < self._lane_seconds:
                continue
            job = job_of(running)
            name = "a request" if job is None else job.describe()
            level = self._say_lane(hub, now, since, name)
            self._lanes_blocked[hub] = _Blocked(since, name, level)

    def _say_lane(self, hub: Hub, now: float, since: float, name: str) -> int | None:
        frames = frames_of(sys._current_frames().get(hub.thread))
        held = hub.parked
        place = place_of(frames, "a thread", held > 0)
        if not self._reports.is_due(place, now):
            return None
        if not held:
            log.info(
                "%s has been blocked for %.1f s by %s, at %s", hub.name, now - since, name, place
            )
            return logging.INFO
        log.warning(
            "%s has been blocked for %.1f s by %s; %s of this lane %s held up:\n%s",
            hub.name,
            now - since,
            name,
            _number(held, "waiting request"),
            "is" if held == 1 else "are",
            stack_of_frames(frames),
        )
        return logging.WARNING

    def _say_repeated(self, now: float) -> None:
        for place, times in self._reports.repeated(now):
            level = logging.WARNING if place.held else logging.INFO
            log.log(
                level,
                "%s has blocked %s %s since it was named",
                place,
                place.what,
                _number(times, "more time"),
            )


def stack_of(call: Call, hubs: list[Hub]) -> str:
    """Return the stack of a call whose code runs; empty when it waits, or has not begun.

    From any thread, so it may be a moment old.
    """
    for hub in hubs:
        if job_of(hub.running) is call:
            return stack_of_frames(frames_of(sys._current_frames().get(hub.thread)))
    return ""


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _queued(thread: int) -> float:
    """Return the seconds that a thread has waited for a processor; 0 where nobody counts them."""
    try:
        with open(f"/proc/self/task/{thread}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
