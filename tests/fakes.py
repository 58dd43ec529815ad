"""Stand-ins for tests of single modules: an event loop with a clock of its own, and simple parts.

Nothing here waits: a test says what happens, and in which order.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any

from greenlet import greenlet

from bide.exchange.channel import Channel
from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.exchange.totals import UNBOUND, Total
from bide.executors.hub import Hub, Job
from bide.protocols import interfaces
from bide.transports.pollable import Pollable
from bide.transports.poller import READ, Poller
from bide.transports.tcp import SocketTransport
from bide.waiting.api import wait as wait_for
from bide.waiting.outcome import Signal, Sink, Wait
from bide.waiting.waiter import Parking, Waiter, current_waiter


class ManualLoop(asyncio.BaseEventLoop):
    """An event loop that runs when the test says so, and whose time passes when the test says so.

    It has no selector: ready callbacks and due timers are all that ever happens on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._selector = self

    def time(self) -> float:
        """Return the time of the test."""
        return self.now

    def select(self, timeout: float | None) -> list[Any]:
        """Find nothing, at once."""
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def turn(self) -> None:
        """Call back once what is ready."""
        self.call_soon(self.stop)
        self.run_forever()

    def settle(self) -> None:
        """Call back until nothing is ready, and no timer due."""
        while self._ready or self._due():  # type: ignore[attr-defined]
            self.turn()

    def _due(self) -> bool:
        scheduled = self._scheduled  # type: ignore[attr-defined]
        return any(each.when() <= self.now and not each.cancelled() for each in scheduled)

    def advance(self, seconds: float) -> None:
        """Advance the time, and call what is due."""
        self.now += seconds
        self.settle()

    def hold(self) -> Callable[[], None]:
        """Take out what is ready; it comes back, behind the rest, when the result is called."""
        held = list(self._ready)  # type: ignore[attr-defined]
        self._ready.clear()  # type: ignore[attr-defined]
        return lambda: self._ready.extend(held)  # type: ignore[attr-defined]

    @property
    def timers(self) -> int:
        """How many timers are to come."""
        scheduled = self._scheduled  # type: ignore[attr-defined]
        return sum(not handle.cancelled() for handle in scheduled)


class HandClock:
    """A clock that stands still unless the test moves it, by whole seconds: sums are exact."""

    def __init__(self) -> None:
        self.now = float(int(monotonic()))  # other clocks may be compared with it

    def __call__(self) -> float:
        """Read it."""
        return self.now

    def advance(self, seconds: int) -> None:
        """Advance the time by some seconds."""
        self.now += seconds


class Outcomes(Sink):
    """A sink that keeps what it is told, and believes the first."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, BaseException | None]] = []

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
        """Keep an outcome."""
        self.told.append((value, error))
        return len(self.told) == 1

    @property
    def value(self) -> Any:
        """The one outcome, which is a value."""
        ((value, error),) = self.told
        assert error is None
        return value

    @property
    def error(self) -> BaseException:
        """The one outcome, which is an error."""
        ((_, error),) = self.told
        assert error is not None
        return error


class Work(Job):
    """A job that calls a function in a hub."""

    def __init__(self, waiter: Waiter, function: Callable[[], object], name: str = "work") -> None:
        self.waiter = waiter
        self.started = 0.0
        self.name = name
        self._function = function

    def run(self) -> None:
        """Call the function."""
        self._function()

    def describe(self) -> str:
        """Return the name."""
        return self.name

    def lost(self) -> None:
        """Nothing is left to end."""


class Bare:
    """The promise of 2004: ``addCallback``, and nothing else."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Any], Any]] = []

    def addCallback(self, callback: Callable[[Any], Any]) -> None:
        """Call back when it is fired."""
        self.callbacks.append(callback)

    def fire(self, value: Any) -> None:
        """Call back, as often as one likes."""
        for callback in self.callbacks:
            callback(value)


class Wakes(Parking):
    """Where a wait's waking goes; a test lets the thread of control go on when it likes."""

    def __init__(self) -> None:
        self.since = 0.0
        self.name = "wakes"
        self.woken: list[Wait] = []

    def wake(self, wait: Wait) -> None:
        """Keep a wait that was woken."""
        self.woken.append(wait)


PEER = Peer("http", ("127.0.0.1", 8000), ("192.0.2.1", 50000))
"""The two ends of a connection that is not there. Tests that look at ``kept`` make their own."""


class Line(Channel):
    """A channel of a protocol that has no framing: what was sent, as it was sent."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[Any] = threading.RLock()
        self.peer = PEER
        self.blocks: list[bytes] = []
        self.ends: list[str] = []
        self.sent = threading.Event()  # a block was
        self.gone = False
        self.behind: Signal | None = None

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Keep a block."""
        if not self.gone:
            self.blocks.append(block)
            self.sent.set()
        return not self.gone

    def room(self, stream: Stream) -> Signal | None:
        """Return the test's signal."""
        return self.behind

    def ended(self, stream: Stream) -> None:
        """Keep how it ended."""
        self.ends.append(stream.state)


def a_stream(line: Channel | None = None) -> Stream:
    """Make a stream of a plain GET."""
    request = Request("GET", b"/", b"/", b"", "1.1", [])
    return Stream(request, Line() if line is None else line, window=65536)


class Run(Job):
    """A conversation that a hub runs on this thread, and what came of it."""

    def __init__(self, function: Callable[[], Any], waiter: Waiter) -> None:
        self.waiter = waiter
        self.started = 0.0
        self.function = function
        self.ended = False
        self.was_lost = False
        self.raised: BaseException | None = None
        self._value: Any = None

    def run(self) -> None:
        """Run to the end."""
        try:
            self._value = self.function()
        except BaseException as error:
            self.raised = error
        self.ended = True

    def describe(self) -> str:
        """Return the function's name."""
        return self.function.__name__

    def lost(self) -> None:
        """Note that it will not run to its end."""
        self.was_lost = self.was_lost or not self.ended

    @property
    def value(self) -> Any:
        """What the function returned."""
        assert self.ended
        assert self.raised is None, self.raised
        return self._value

    @property
    def error(self) -> BaseException:
        """What the function raised."""
        assert self.raised is not None
        return self.raised


class Seen(Hub):
    """A hub that runs nothing: a test sets what others see of it. It has no thread unless given."""

    def __init__(self, name: str = "bide-thread-1", thread: int = -1, **state: Any) -> None:
        super().__init__(name, Wakes().wake)
        self.thread = thread
        for attribute, value in state.items():
            setattr(self, attribute, value)


class Busy(greenlet):
    """A greenlet that is never begun, with what it would run."""

    def __init__(self, job: Job | None = None) -> None:
        super().__init__()
        self.job = job


class Lane:
    """A hub on the test's own thread, beside a loop that runs when the test says so."""

    def __init__(self, loop: ManualLoop) -> None:
        self.loop = loop
        self.woken: list[Wait] = []
        self.hub = Hub("test", self.woken.append)

    def begin(self, function: Callable[[], Any]) -> Run:
        """Run a function as a conversation, until it ends or waits."""
        run = Run(function, Waiter(self.loop, self.hub))
        self.hub.run(run)
        return run

    def go_on(self) -> None:
        """Resume what has been woken."""
        woken, self.woken[:] = self.woken[:], []
        for wait in woken:
            self.hub.resume(wait)

    def settle(self) -> None:
        """Run the loop and the conversations until nothing happens any more."""
        self.loop.settle()
        while self.woken:
            self.go_on()
            self.loop.settle()

    def end(self) -> None:
        """See that nothing is left on the loop: no task, no timer, nobody parked."""
        self.settle()
        assert self.hub.parked == 0
        assert not asyncio.all_tasks(self.loop), "a task was never ended"
        self.loop.advance(1e10)  # time-outs that were taken back may leave their common timer
        assert self.loop.timers == 0, "a timer was left on the loop"
        self.hub.close()


class Calling(Parking):
    """A parking that makes the test's calls while it parks."""

    def __init__(self, waiter: Waiter) -> None:
        assert waiter.parking is not None
        self.waiter = waiter
        self.inner: Parking = waiter.parking
        self.since = 0.0
        self.name = "calling"
        self.calls: deque[Callable[[], None]] = deque()
        self.waits: list[Wait] = []

    def park(self, wait: Wait) -> None:
        """Make calls until the wait is settled or interrupted."""
        self.waits.append(wait)
        while not (wait.reason or wait.interrupted):
            if self.calls:
                self.waiter.call(self.calls.popleft())
            else:
                self.inner.park(wait)

    def wake(self, wait: Wait) -> None:
        """Go on."""
        self.inner.wake(wait)

    def call(self, function: Callable[[], None]) -> None:
        """Make the conversation call a function."""
        self.calls.append(function)
        self.wake(self.waits[-1])


def waiting_with_calls(into: list[Calling], promise: Any) -> Any:
    """Wait with a parking that makes calls."""
    waiter = current_waiter()
    assert waiter is not None
    calling = Calling(waiter)
    waiter.parking = calling
    into.append(calling)
    return wait_for(promise)


class Receiver(interfaces.Receiver):
    """Keeps what a transport tells.

    Attributes:
        told: each piece of data, ``"eof"``, ``"eof ahead"`` where the end is behind what is not
            read, and ``"lost"``.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self.told.append(data)

    def eof_received(self) -> None:
        """Keep that it ended."""
        self.told.append("eof")

    def eof_ahead(self) -> None:
        """Keep that it ends behind what is not read."""
        self.told.append("eof ahead")

    def connection_lost(self) -> None:
        """Keep that it is lost."""
        self.told.append("lost")


class HandPoller(Poller):
    """A poller that keeps what it is asked to watch for; the test calls ``ready`` itself.

    Like epoll it knows no descriptor that is not registered. It never rests.
    """

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.after: Callable[[], None] = lambda: None
        self.watched: dict[int, int] = {}

    def register(self, descriptor: int, target: Pollable) -> None:
        """Begin to watch a descriptor, to read."""
        assert descriptor not in self.watched
        self.watched[descriptor] = READ

    def watch(self, descriptor: int, events: int) -> None:
        """Set what a registered descriptor is watched for."""
        assert descriptor in self.watched
        self.watched[descriptor] = events

    def unregister(self, descriptor: int) -> None:
        """Watch no more."""
        del self.watched[descriptor]

    def rest(self, then: Callable[[], None]) -> None:
        """Do not rest."""

    def wake(self) -> None:
        """Do not rest."""

    def close(self) -> None:
        """End."""


HIGH_WATER = 64 * 1024
LINGER = 2.0


def a_transport(
    sock: Any,
    poller: Poller,
    receiver: interfaces.Receiver,
    high_water: int = HIGH_WATER,
    unsent: Total = UNBOUND,
) -> SocketTransport:
    """Make a transport on one end of a pair of sockets, and begin to read."""
    transport = SocketTransport(sock, poller, receiver, high_water, LINGER, unsent)
    transport.start()
    return transport
