"""The monitor: what blocks is named, and nothing else is.

The test makes its looks and passes its time; what blocks is this thread, or a real one.
"""

import asyncio
import contextlib
import dataclasses
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bide.executors.hub import Hub
from bide.executors.monitor import Monitor, Sight
from bide.executors.places import frames_of
from bide.waiting.api import wait
from bide.waiting.outcome import Signal
from bide.waiting.waiter import Waiter
from tests import fakes
from tests.failures import Failures
from tests.fakes import Busy, Lane, ManualLoop, Run, Seen, Work

TIMEOUT = 20.0


class Answering:
    """An event loop that is asked for a sign, and gives it when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], object]] = []
        self.closed = False

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Keep what is to be called."""
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.asked.append(callback)

    def answer(self) -> None:
        """Answer, as a loop that is not blocked."""
        while self.asked:
            self.asked.pop()()


class Asleep:
    """What the system tells of a thread that sleeps."""

    known = True

    def used(self) -> float:
        """It has used nothing."""
        return 0.0

    def queued(self) -> float:
        """It was not kept waiting."""
        return 0.0

    def is_ready(self) -> bool:
        """It has nothing to do."""
        return False


class Watched:
    """A monitor whose looks and time are the test's, and whose loop's thread is this one."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now = 100.0
        self.loop = Answering()
        self.hubs: list[Any] = []
        self.in_progress = 3
        self.caplog = caplog
        caplog.set_level(logging.INFO, "bide")
        loop: Any = self.loop
        self.monitor = Monitor(
            loop,
            lambda: self.hubs,
            lambda: self.in_progress,
            0.5,
            2.0,
            clock=lambda: self.now,
        )

    def look(self, seconds: float = 0.0) -> None:
        """Advance the clock, and check."""
        self.now += seconds
        self.monitor.look()

    def pass_seconds(self, *seconds: float) -> None:
        """Advance the clock by each of these, and check after each."""
        for each in seconds:
            self.look(each)

    def said(self) -> list[str]:
        """Take the first lines of what was logged."""
        lines = [record.message.partition("\n")[0] for record in self.caplog.records]
        self.caplog.clear()
        return lines


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    """Return a monitor."""
    return Watched(caplog)


def at(name: str) -> Busy:
    """Make what a hub runs: a job of this name."""
    loop: Any = None  # it never waits
    return Busy(Work(Waiter(loop), lambda: None, name))


# The loop --------------------------------------------------------------------------------------


def test_a_loop_that_answers_is_not_named(watched: Watched) -> None:
    """However long the server runs."""
    for _ in range(10):
        watched.look(10)
        watched.loop.answer()
    assert watched.said() == []


def test_a_loop_that_does_not_answer_is_named_once_and_when_it_goes_on(watched: Watched) -> None:
    """With how long, and how many are held up; the stack is the application's alone."""
    with blocked(watched):
        watched.pass_seconds(0, 0.4)
        assert watched.said() == []
        watched.look(0.2)
        (record,) = watched.caplog.records
        assert record.levelno == logging.ERROR
        files = re.findall(r'File "(.*)", line', record.message)
        assert files == [__file__]
        assert "in blocks_the_loop" in record.message
        watched.look(5)
        assert watched.said() == [
            "the event loop has been blocked for 0.6 s by a callback or a coroutine; "
            "3 requests in progress are delayed:"
        ]
    watched.loop.answer()
    watched.look(1)
    assert watched.said() == ["the event loop goes on, after 6.6 s"]
    watched.loop.answer()
    watched.look(1)
    assert watched.said() == []


def test_a_request_that_blocks_the_loop_is_named(watched: Watched) -> None:
    """How many others it holds up; where there are none, the line where it is and no stack."""
    for others, line in (
        (0, f", at {__file__}:N in blocks_the_loop"),
        (1, "; 1 other request in progress is delayed:"),
        (2, "; 2 other requests in progress are delayed:"),
    ):
        watched.in_progress = 1 + others
        with blocked(watched) as thread:
            watched.hubs = [Seen("the event loop", thread, running=at("GET /slow of app"))]
            watched.pass_seconds(0, 0.4, 0.2)
        (said, *_) = watched.said()
        assert re.sub(r":\d+ in", ":N in", said) == (
            f"the event loop has been blocked for 0.6 s by GET /slow of app{line}"
        )
        watched.loop.answer()
        watched.look(100)
        watched.look(100)
        watched.loop.answer()
        watched.said()


def test_an_idle_servers_loop_is_left_asleep(watched: Watched) -> None:
    """It is not woken to be asked."""
    watched.in_progress = 0
    watched.look(10)
    assert watched.loop.asked == []
    watched.in_progress = 1
    watched.look(10)
    assert len(watched.loop.asked) == 1


def test_a_late_loop_that_runs_nothing_of_the_application_is_not_blocked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The machine is busy, or threads compute: in its own select, or anywhere in asyncio."""
    with real_loop() as (loop, thread):
        starved = Watched(caplog)
        starved.monitor._loop_thread = thread
        until_in(thread, "select")
        starved.pass_seconds(0, 10, 10)
        assert starved.said() == []
        release = threading.Event()
        loop.call_soon_threadsafe(release.wait, TIMEOUT)  # no frame is the application's
        until_in(thread, "wait")
        starved.pass_seconds(10, 10)
        assert starved.said() == []
        release.set()


def test_a_loop_is_blocked_by_one_call_that_is_there_at_two_looks(watched: Watched) -> None:
    """One that sleeps, or computes; not one that others keep from the processor.

    Where the monitor's own check is late, only one that has slept for long.
    """
    seen = Sight(at=1.0, stint=5.0, call=1, point=(2, 3), queued=0.0)
    elsewhere = (2, 4)
    ready = {"ready": True}
    with Failures() as failures:
        for name, changed, used, late, seconds, stuck in (
            ("at one instruction", {}, 0.0, False, 0.5, True),
            ("the same, and all are late", {}, 0.0, True, 0.9, False),
            ("the same, for long", {}, 0.0, True, 1.0, True),
            ("it computes in one instruction, and all are late", ready, 0.25, True, 0.5, True),
            ("it has waited for a processor from the start", ready, 0.2, False, 9.0, False),
            ("it goes on, and has computed", {"point": elsewhere}, 0.25, False, 0.5, True),
            ("it goes on, and has hardly computed", {"point": elsewhere}, 0.2, False, 0.5, False),
            ("it has waited for a processor", {"queued": 0.06}, 0.0, False, 0.5, False),
            ("another job", {"stint": 6.0}, 9.0, False, 0.5, False),
            ("another call", {"call": 9}, 9.0, False, 0.5, False),
        ):
            with failures.of(name):
                monitor = watched.monitor
                monitor._late = late
                monitor._used = monitor._loop_used() - used
                monitor._loop_seconds = 0.5 if used != 0.2 else 60.0
                now = dataclasses.replace(seen, at=1.1, **changed)
                assert monitor._is_stuck(seen, now, seconds) is stuck
    assert not watched.monitor._is_stuck(None, seen, 9.0)
    assert not watched.monitor._is_stuck(seen, None, 9.0)


def test_a_standing_loop_is_not_named_at_once_when_the_monitors_checks_come_late(
    watched: Watched,
) -> None:
    """The machine is busy: nobody has the processor in time."""

    class Turns:
        """Passes seconds in place of waiting: half of ``blocked_loop``, or more."""

        def __init__(self, *seconds: float) -> None:
            self.seconds = list(seconds)

        def wait(self, interval: float) -> bool:
            assert interval == 0.25
            if self.seconds:
                watched.now += self.seconds.pop(0)
                return False
            return True

    for turns, lines in (
        ((0.3, 0.3, 0.3), ["the event loop has been blocked for 0.6 s by "]),
        ((0.25, 0.4, 0.4), []),
        ((0.25, 0.4, 0.4, 0.4), ["the event loop has been blocked for 1.2 s by "]),
    ):
        with blocked(watched):
            ended: Any = Turns(*turns)
            watched.monitor._ended = ended
            watched.monitor._run()
            found = [each.partition("a callback")[0] for each in watched.said()]
            assert found == lines
        watched.loop.answer()
        watched.monitor._ended = threading.Event()
        watched.look(100)  # it has gone on, and the place is forgotten
        watched.loop.answer()
        watched.said()
        watched.monitor._asked = watched.monitor._seen = None


def test_an_application_that_selects_blocks_the_loop(watched: Watched) -> None:
    """As ``subprocess.communicate`` does: not every ``select`` is the loop's own."""

    def select(release: threading.Event) -> None:
        release.wait(TIMEOUT)

    with blocked(watched, select):
        watched.pass_seconds(0, 0.4, 0.2)
    assert watched.said()[0].startswith("the event loop has been blocked for 0.6 s by ")


def blocks_the_loop(release: threading.Event) -> None:
    """Block as an application does."""
    release.wait(TIMEOUT)


@contextlib.contextmanager
def blocked(
    watched: Watched, function: Callable[[threading.Event], None] = blocks_the_loop
) -> Iterator[int]:
    """Replace the loop's thread by one that is in a function of the application's."""
    release = threading.Event()
    thread = threading.Thread(target=function, args=(release,))
    thread.start()
    assert thread.ident is not None
    until_in(thread.ident, "wait")
    watched.monitor._loop_thread = thread.ident
    asleep: Any = Asleep()
    watched.monitor._loop_usage = asleep
    yield thread.ident
    release.set()
    thread.join(TIMEOUT)


def until_in(thread: int, function: str) -> None:
    """Return once a thread is in a function's own frame."""
    pause = threading.Event()
    for _ in range(int(TIMEOUT / 0.001)):
        frame = sys._current_frames().get(thread)
        if frame is not None and frame.f_code.co_name == function:
            return
        pause.wait(0.001)
    raise AssertionError(f"it never was in {function}")


@contextlib.contextmanager
def real_loop() -> Iterator[tuple[asyncio.AbstractEventLoop, int]]:
    """Return an event loop that runs in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert thread.ident is not None
    yield loop, thread.ident
    loop.call_soon_threadsafe(loop.stop)
    thread.join(TIMEOUT)
    loop.close()


# Lanes -----------------------------------------------------------------------------------------


def test_a_lane_that_is_long_at_one_stretch_is_named_once_and_when_it_goes_on(
    watched: Watched,
) -> None:
    """With the request, and how many of the lane are held up."""
    busy = Seen(running=at("GET /slow of app"), since=watched.now, parked=7)
    watched.hubs = [busy]
    watched.look(1.9)
    watched.loop.answer()
    assert watched.said() == []
    watched.look(0.2)
    watched.loop.answer()
    watched.look(1)
    watched.loop.answer()
    assert watched.said() == [
        "bide-thread-1 has been blocked for 2.1 s by GET /slow of app; "
        "7 waiting requests on this thread are delayed:"
    ]
    busy.running = None
    watched.look(1)
    assert watched.said() == ["bide-thread-1 goes on, after 4.1 s in GET /slow of app"]
    watched.loop.answer()
    watched.look(1)
    assert watched.said() == []


def test_a_lane_that_switched_meanwhile_is_not_blocked(watched: Watched) -> None:
    """It runs something whenever one looks, and never the same."""
    busy = Seen(running=Busy(), since=watched.now)
    watched.hubs = [busy]
    for _ in range(10):
        watched.look(1.9)
        watched.loop.answer()
        busy.since = watched.now
    assert watched.said() == []


def test_a_place_that_blocks_again_is_counted_and_named_once_a_minute(watched: Watched) -> None:
    """However many requests block there, and on whichever lane."""
    watched.in_progress = 0
    lanes = [Seen(name) for name in ("bide-thread-1", "bide-thread-2")]
    watched.hubs = lanes
    for _ in range(12):
        for lane in lanes:
            lane.running, lane.since = at("GET /slow of app"), watched.now
        watched.look(2.1)
        for lane in lanes:
            lane.running = None
        watched.look()
    assert watched.said() == [
        "bide-thread-1 has been blocked for 2.1 s by GET /slow of app, at code without a line",
        "bide-thread-1 goes on, after 2.1 s in GET /slow of app",
    ]
    watched.look(60)
    assert watched.said() == [
        "code without a line has blocked a thread 23 more times since it was named"
    ]
    lanes[0].running, lanes[0].since = at("GET /slow of app"), watched.now
    watched.look(3)
    watched.look(60)
    assert watched.said() == [
        "code without a line has blocked a thread 1 more time since it was named"
    ]
    lanes[0].running = None
    watched.look(60)
    watched.look(60)
    assert watched.said() == []
    assert not watched.monitor._reports._places


def test_lanes_that_block_at_one_time_are_named_in_one_line(watched: Watched) -> None:
    """First the one that holds up most; a few others in short. They go on in one line, too."""
    watched.in_progress = 0
    with contextlib.ExitStack() as opened:
        lanes = []
        for number, parked in enumerate((0, 2, 1, 0, 0, 0, 0), 1):
            thread = opened.enter_context(blocked(watched, at_a_line(number)))
            busy = at(f"GET /{number} of app")
            lane = Seen(
                f"bide-thread-{number}", thread, running=busy, since=watched.now, parked=parked
            )
            lanes.append(lane)
        watched.monitor._loop_thread = -2
        watched.hubs = lanes
        watched.look(2.1)
        (record,) = watched.caplog.records
        assert record.levelno == logging.WARNING
        assert "in line_2" in record.message.partition(":\n")[2]
        (line,) = watched.said()
        assert re.sub(r"at \S+:\d+ in", "at F:N in", line) == (
            "bide-thread-2 has been blocked for 2.1 s by GET /2 of app; "
            "2 waiting requests on this thread are delayed; "
            "also bide-thread-3 by GET /3 of app, at F:N in line_3 (1 delayed); "
            "also bide-thread-1 by GET /1 of app, at F:N in line_1; "
            "also bide-thread-4 by GET /4 of app, at F:N in line_4; "
            "also bide-thread-5 by GET /5 of app, at F:N in line_5; "
            "and 2 other threads:"
        )
        for lane in lanes:
            lane.running = None
        watched.look(1)
        (line,) = watched.said()
        assert line.startswith(
            "bide-thread-1 goes on, after 3.1 s in GET /1 of app; bide-thread-2 goes on, "
        )
        assert line.count("goes on") == 5


def at_a_line(number: int) -> Callable[[threading.Event], None]:
    """Make a function of its own place and name."""
    names: dict[str, Any] = {"TIMEOUT": TIMEOUT}
    code = f"def line_{number}(release):\n    release.wait(TIMEOUT)\n"
    exec(compile(code, f"/srv/shop/{number}.py", "exec"), names)
    made: Callable[[threading.Event], None] = names[f"line_{number}"]
    return made


def test_a_place_that_has_held_others_up_is_known_when_it_holds_nobody_up(
    watched: Watched,
) -> None:
    """It is counted; the other way round it is a warning that was not there yet."""
    for first, lines in ((2, 1), (0, 2)):
        watched.in_progress = 0
        for parked in (first, 2 - first):
            watched.hubs = [
                Seen(running=at("GET / of app"), since=watched.now, parked=parked),
            ]
            watched.look(2.1)
            watched.hubs[0].running = None
            watched.look()
            watched.hubs = []
        said = watched.said()
        assert len([each for each in said if "has been blocked" in each]) == lines
        watched.look(61)
        watched.look(61)
        watched.said()


def test_at_the_level_debug_the_whole_stack_is_shown(watched: Watched) -> None:
    """Bide's frames, Python's and the frameworks' are shown to who asks for them."""
    for level, functions in (
        (logging.INFO, ["blocks_the_loop"]),
        (logging.DEBUG, ["_bootstrap", "blocks_the_loop", "wait"]),
    ):
        watched.caplog.set_level(level, "bide")
        with blocked(watched):
            watched.pass_seconds(0, 0.4, 0.2)
            found = re.findall(r'File ".*", line \d+, in (\w+)', watched.caplog.messages[0])
            if level == logging.INFO:
                assert found == functions
            else:
                assert set(found) >= set(functions)
        watched.loop.answer()
        watched.look(100)
        watched.loop.answer()
        watched.look(100)
        watched.loop.answer()
        watched.said()


def test_an_idle_lane_and_one_that_waits_are_not_named(watched: Watched) -> None:
    """They run nothing, for however long."""
    watched.hubs = [Seen(since=1.0), Seen(parked=100, since=1.0)]
    watched.look(100)
    assert watched.said() == []


def test_a_blocked_lane_that_holds_others_up_is_a_warning_with_the_applications_stack(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """Where others are held up; else it is a line without a stack."""
    release = threading.Event()
    lanes: list[Hub] = []

    def blocks_a_lane() -> None:
        release.wait(TIMEOUT)

    def lane() -> None:
        loop = ManualLoop()
        lanes.append(Hub("bide-thread-1", lambda wait: None))
        lanes[0].run(Run(blocks_a_lane, Waiter(loop, lanes[0])))
        lanes[0].close()
        loop.close()

    thread = threading.Thread(target=lane)
    thread.start()
    assert thread.ident is not None
    until_in(thread.ident, "wait")
    watched.hubs = list(lanes)
    watched.now = lanes[0].since
    watched.look(3)
    lanes[0].parked = 1  # another place: others are held up
    watched.monitor._lanes_blocked.clear()
    watched.look()
    lanes[0].parked = 0
    release.set()
    thread.join(TIMEOUT)
    alone, holding = [each for each in caplog.records if "thread" in each.message]
    assert alone.levelno == logging.INFO
    assert re.search(r" by blocks_a_lane, at \S+:\d+ in blocks_a_lane$", alone.message)
    assert holding.levelno == logging.WARNING
    first, _, stack = holding.message.partition("\n")
    assert first == (
        "bide-thread-1 has been blocked for 3.0 s by blocks_a_lane; "
        "1 waiting request on this thread is delayed:"
    )
    assert "in blocks_a_lane" in stack
    assert set(re.findall(r'File "(.*)", line', stack)) <= {__file__, fakes.__file__}


def test_a_lane_whose_thread_has_ended_meanwhile_has_no_stack(watched: Watched) -> None:
    """The look is without locks."""
    watched.hubs = [Seen(running=at("GET / of app"), since=watched.now, parked=1)]
    watched.look(3)
    assert "(no code of the application)" in watched.caplog.text


INSTALLED = "/venv/lib/python3.13/site-packages/"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([INSTALLED + "bide/stream.py", INSTALLED + "bide/files.py"], []),
        ([INSTALLED + "bide/stream.py", INSTALLED + "flask/app.py"], ["flask/app.py"]),
        ([INSTALLED + "bide/stream.py", INSTALLED + "bide_shop/app.py"], ["bide_shop/app.py"]),
        ([INSTALLED + "flask/app.py", "/srv/shop.py", INSTALLED + "bide/a.py"], ["/srv/shop.py"]),
    ],
)
def test_frames_of_bide_are_nobodys_where_it_is_an_installed_package(
    files: list[str], expected: list[str]
) -> None:
    """As it is for most; those of other packages count where there are no others."""
    frame: Any = None
    for file in files:
        code = SimpleNamespace(co_filename=file, co_name="call")
        frame = SimpleNamespace(f_code=code, f_back=frame)
    names = [
        each.f_code.co_filename.removeprefix(INSTALLED)
        for each in frames_of(frame, bide=INSTALLED + "bide/")
    ]
    assert names == expected


# The thread ------------------------------------------------------------------------------------


class Heard(logging.Handler):
    """What the log says, with an event for its first line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())
        self.heard.set()


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Listen to the log."""
    heard = Heard()
    logging.getLogger("bide").addHandler(heard)
    yield heard
    logging.getLogger("bide").removeHandler(heard)


def test_the_thread_looks_by_itself_until_it_is_stopped(heard: Heard) -> None:
    """A loop that waits for the monitor's own word is blocked until that comes."""

    async def main() -> None:
        monitor = Monitor(asyncio.get_running_loop(), list, lambda: 1, 0.01, 0.01)
        monitor.start()
        await asyncio.sleep(0)
        assert heard.heard.wait(TIMEOUT)
        monitor.stop()
        await asyncio.to_thread(monitor.thread.join, TIMEOUT)
        assert not monitor.thread.is_alive()
        assert monitor.thread.daemon

    asyncio.run(main())
    assert "has been blocked" in heard.lines[0]
    assert "in main" in heard.lines[0]


def test_the_thread_ends_when_its_loop_is_closed() -> None:
    """A server that was never stopped does not keep it."""
    loop = Answering()
    loop.closed = True
    watching: Any = loop
    monitor = Monitor(watching, list, lambda: 1, 0.01, 0.01)
    monitor.start()
    monitor.thread.join(TIMEOUT)
    assert not monitor.thread.is_alive()


def test_a_lane_that_waits_is_not_blocked_while_it_does(watched: Watched) -> None:
    """A conversation that runs for long in all, but waits in between."""
    lane = Lane(ManualLoop())
    lane.hub.thread = -1
    watched.hubs = [lane.hub]
    signal = Signal()
    run = lane.begin(lambda: wait(signal))
    watched.now = lane.hub.since
    watched.look(100)
    signal.fire()
    lane.settle()
    assert run.ended
    assert not [line for line in watched.said() if "thread-" in line or "test has" in line]
    lane.loop.close()
