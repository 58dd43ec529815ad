"""Names what blocks: a thread that watches the loop and the lanes, and writes to the log.

It reads when a hub last switched, and whether the loop still answers, and changes nothing. It takes
no locks, so a figure may be a moment old; what it reports has lasted far longer.

A loop that is late may not be blocked: the machine may be busy, or threads may have the
interpreter. It is blocked when two checks find it in the same call of the application's, and that
call either sleeps at one instruction, or has used the processor for half of the time. When the
monitor's own checks come late, nobody gets the processor in time, and more patience is needed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from types import FrameType
from typing import Final

from bide.exchange.call import Call
from bide.executors.hub import Hub, Job, job_of
from bide.executors.places import Place, Reports, frames_of, place_of, stack_of_frames
from bide.executors.processor import Usage

log = logging.getLogger("bide")

PATIENCE: Final = 1.0
"""Seconds for which a loop may stand still when the monitor's own checks come late."""
NAMED: Final = 5
"""The most lanes that one line names."""


def _no_one(_: str) -> None:
    """Tell no one what is blocked."""


@dataclass(slots=True)
class _Blocked:
    since: float
    name: str
    level: int | None  # of the line in the log; None: there was none, it was only counted


@dataclass(slots=True, frozen=True)
class _Found:
    """A lane that is found blocked, and is to be named."""

    hub: Hub
    seconds: float
    name: str
    held: int  # requests that it holds up
    place: Place
    frames: list[FrameType]
    frame: FrameType | None  # the innermost

    def in_short(self) -> str:
        held = f" ({self.held} delayed)" if self.held else ""
        return f"{self.hub.name} by {self.name}, at {self.place}{held}"


@dataclass(slots=True, frozen=True)
class Sight:
    """What the loop's thread was doing, at one check."""

    at: float
    stint: float  # when its hub last switched
    call: int  # the outermost frame of the application's
    point: tuple[int, int]  # the innermost frame, and its instruction
    queued: float  # seconds that the thread has waited for a processor, in all
    ready: bool = False  # whether it runs, or waits for a processor now


class Monitor:
    """Watches one server's loop and lanes until stopped.

    Args:
        loop: the server's loop, which is the running one.
        hubs: returns the hubs to watch; called on the monitor's thread.
        held_up: returns how many requests a blocked loop holds up; called there, too.
        loop_seconds: how long the loop may take to answer.
        lane_seconds: how long a conversation may run on a lane without waiting.
        blocked: called there with "loop" or "thread" when one is found blocked, also where that is
            not in the log.
        clock: returns monotonic seconds.

    Attributes:
        thread: the thread that watches.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hubs: Callable[[], list[Hub]],
        held_up: Callable[[], int],
        loop_seconds: float,
        lane_seconds: float,
        blocked: Callable[[str], None] = _no_one,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.thread = threading.Thread(target=self._run, name="bide-monitor", daemon=True)
        self._blocked = blocked
        self._clock = clock
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._loop_usage = Usage()
        self._hubs = hubs
        self._held_up = held_up
        self._loop_seconds = loop_seconds
        self._lane_seconds = lane_seconds
        self._ended = threading.Event()
        self._late = False  # whether this check comes late
        self._asked: float | None = None  # when the loop was asked to answer; None: it has
        self._used = 0.0  # processor time of the loop's thread, when it was asked
        self._seen: Sight | None = None  # at the last check since then
        self._loop_blocked: _Blocked | None = None
        self._lanes_blocked: dict[Hub, _Blocked] = {}
        self._reports = Reports()

    def start(self) -> None:
        """Begin to watch."""
        self.thread.start()

    def _run(self) -> None:
        """Check twice within the shorter limit, until stopped."""
        # Bounded, since a limit may be infinite.
        interval = min(self._loop_seconds, self._lane_seconds, 60.0) / 2
        due = self._clock() + interval
        while not self._ended.wait(interval):
            self._late = self._clock() - due > interval / 2
            self.look()
            due = self._clock() + interval
        self._say_repeated(math.inf)

    def look(self, ahead: float = 0.0) -> None:
        """Check the loop and the lanes once; on the monitor's thread, or in a test.

        Args:
            ahead: seconds to add to the time of the clock, for tests.
        """
        self._look_at_loop(ahead)
        self._look_at_lanes(ahead)
        self._say_repeated(self._clock() + ahead)

    def unanswered(self) -> float:
        """Return for how many seconds the loop has not answered a check; from any thread."""
        asked = self._asked
        return 0.0 if asked is None else self._clock() - asked

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
            frame = sys._current_frames().get(self._loop_thread)
            frames = frames_of(frame, on_loop=True)
            before, self._seen = self._seen, self._see(frames, running)
            if now - asked >= self._loop_seconds and self._is_stuck(
                before, self._seen, now - asked
            ):
                job = job_of(running[0].running) if running else None
                self._say_loop(now, asked, job, frames, frame)

    def _see(self, frames: list[FrameType], running: list[Hub]) -> Sight | None:
        """Return what the loop's thread is doing; None if it runs no code of the application's."""
        if not frames:
            return None
        return Sight(
            self._clock(),
            running[0].since if running else 0.0,
            id(frames[0]),
            (id(frames[-1]), frames[-1].f_lasti),
            self._loop_usage.queued(),
            self._loop_usage.is_ready(),
        )

    def _is_stuck(self, before: Sight | None, now: Sight | None, seconds: float) -> bool:
        """Whether one call blocks the loop; not so if the machine or other threads delay it.

        Args:
            before: what was seen at the check before.
            now: what is seen.
            seconds: for how long the loop has not answered.
        """
        if before is None or now is None:
            return False
        if (before.stint, before.call) != (now.stint, now.call):
            return False
        if now.queued - before.queued > (now.at - before.at) / 2:
            return False
        if not self._loop_usage.known:
            return True
        if self._loop_used() - self._used >= self._loop_seconds / 2:
            return True
        # A wait for a processor is in ``queued`` only once it is over, hence ``ready``. A thread
        # that waits for the interpreter sleeps: then the monitor waits for it, too, and is late.
        if before.point != now.point or now.ready:
            return False
        return not self._late or seconds >= PATIENCE

    def _loop_used(self) -> float:
        """Return the seconds of processor time that the loop's thread has used."""
        try:
            return self._loop_usage.used()
        except OSError:  # the thread has ended
            return 0.0

    def _say_loop(
        self,
        now: float,
        asked: float,
        job: Job | None,
        frames: list[FrameType],
        frame: FrameType | None,
    ) -> None:
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
                    "%s in progress %s delayed:\n%s",
                    now - asked,
                    name,
                    _number(held, "request" if job is None else "other request"),
                    "is" if held == 1 else "are",
                    _stack(frames, frame),
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
        self._blocked("loop")

    def _look_at_lanes(self, ahead: float) -> None:
        """Look for lanes that are blocked or go on. All of one look are in one line of the log."""
        gone: list[tuple[int, str]] = []
        found: list[_Found] = []
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
                    seconds = now - blocked.since
                    gone.append(
                        (
                            blocked.level,
                            f"{hub.name} goes on, after {seconds:.1f} s in {blocked.name}",
                        )
                    )
            if running is None or now - since < self._lane_seconds:
                continue
            job = job_of(running)
            name = "a request" if job is None else job.describe()
            self._lanes_blocked[hub] = _Blocked(since, name, None)
            self._blocked("thread")
            frame = sys._current_frames().get(hub.thread)
            frames = frames_of(frame)
            held = hub.parked
            place = place_of(frames, "a thread", held > 0)
            found.append(_Found(hub, now - since, name, held, place, frames, frame))
        if gone:
            log.log(max(level for level, _ in gone), "%s", "; ".join(text for _, text in gone))
        # Those that hold up others first: a place is then not named again for the others.
        found.sort(key=lambda each: -each.held)
        due = [each for each in found if self._reports.is_due(each.place, self._clock() + ahead)]
        if due:
            self._say_lanes(due)

    def _say_lanes(self, due: list[_Found]) -> None:
        first, more = due[0], due[1:]
        level = logging.WARNING if first.held else logging.INFO
        for each in due[:NAMED]:
            self._lanes_blocked[each.hub].level = level
        if first.held:
            effect = (
                f"; {_number(first.held, 'waiting request')} on this thread "
                f"{'is' if first.held == 1 else 'are'} delayed"
            )
        else:
            effect = f", at {first.place}"
        also = "".join(f"; also {each.in_short()}" for each in more[: NAMED - 1])
        left = len(more) - (NAMED - 1)
        log.log(
            level,
            "%s has been blocked for %.1f s by %s%s%s%s%s",
            first.hub.name,
            first.seconds,
            first.name,
            effect,
            also,
            f"; and {_number(left, 'other thread')}" if left > 0 else "",
            f":\n{_stack(first.frames, first.frame)}" if first.held else "",
        )

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
            frame = sys._current_frames().get(hub.thread)
            return _stack(frames_of(frame), frame)
    return ""


def _stack(frames: list[FrameType], frame: FrameType | None) -> str:
    """Return the application's frames as text; at the level debug all of the stack's.

    Args:
        frames: the application's.
        frame: the innermost of all.
    """
    return stack_of_frames(frames, frame if log.isEnabledFor(logging.DEBUG) else None)


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
