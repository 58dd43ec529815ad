"""Random waits against a model: nothing that was acquired is lost, and no result goes twice.

    python -m soak.waits 1000000 [SEED]

Conversations of one thread wait beside a loop that runs when this says so, in any interleaving:
they acquire from pools, locks and semaphores, take from queues, and wait for every kind of promise,
alone, together and in ``using`` and ``iterate``, with time-outs; meanwhile clients leave, requests
take too long, and the server stops. The model counts:

- a place is with the pool, or with one conversation, which gives it back in ``finally:``, though it
  was cancelled while its code ran, or while it gave it back;
- an item of a queue is taken once, by the wait that returned it, or it is still there;
- a result goes to the wait that it was made for, and what a wait was told is the result, the
  promise's own error, ``TimeoutError`` if it had one, or the cancellation that came.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import Any

from bide import ClientDisconnected, RequestTimeout, ServerStopping, using, wait, wait_all
from bide.errors import Cancelled
from bide.waiting import waiter
from bide.waiting.api import iterate
from bide.waiting.cleanups import cleanup_time
from bide.waiting.outcome import Signal
from tests.fakes import Lane, ManualLoop, Run

CANCELLATIONS = (ClientDisconnected, RequestTimeout, ServerStopping)
PLACES = 3
PEOPLE = 12
"""How many conversations there are at once: four for each place."""


class Own(Exception):  # noqa: N818 - a promise's error
    """What a promise fails with."""


class Pool:
    """Places, acquired and given back in a coroutine each, which may take a few turns."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._places: asyncio.Queue[int] = asyncio.Queue()
        for place in range(PLACES):
            self._places.put_nowait(place)
        self.held: set[int] = set()

    async def acquire(self) -> int:
        """Wait for a place."""
        place = await self._places.get()
        assert place not in self.held, "a place was given twice"
        self.held.add(place)
        return place

    async def release(self, place: int) -> None:
        """Return a place back; it takes a while, in which it must not be interrupted."""
        for _ in range(self._model.random.randrange(3)):
            await asyncio.sleep(0)
        assert place in self.held, "a place was given back twice"
        self.held.remove(place)
        self._places.put_nowait(place)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[int]:
        """Hold a place."""
        place = await self.acquire()
        try:
            await asyncio.sleep(0)
            yield place
        finally:
            await self.release(place)

    @property
    def whole(self) -> bool:
        """Whether every place is back."""
        return not self.held and self._places.qsize() == PLACES


class Model:
    """Everything: the conversations, what they share, and what is known of them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.loop = ManualLoop()
        self.lane = Lane(self.loop)
        self.waits = 0
        self.outcomes: Counter[str] = Counter()
        self.pool = Pool(self)
        self.lock = asyncio.Lock()
        self.semaphore = asyncio.Semaphore(PLACES)
        self.inside = Counter[str]()
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        self.put = self.taken = 0
        self.last = -1  # of what was taken: a queue keeps its order
        self.pending: deque[tuple[Callable[[], object], Callable[[], object]]] = deque()
        self.runs: list[Run] = []
        self.told: dict[int, set[type[BaseException]]] = {}

    # What conversations do -----------------------------------------------------------------------

    def waited(self, promise: Any, wanted: Any = None, timeout: float | None = None) -> Any:
        """Wait, and check that what comes may come; ``wanted`` is the only result, if given."""
        self.waits += 1
        try:
            value = wait(promise, timeout)
        except TimeoutError:
            assert timeout is not None, "a time-out that nobody asked for"
            self.outcomes["time-out"] += 1
            raise
        except BaseException as error:
            self.check(error)
            raise
        assert wanted is None or value == wanted, "another wait's result"
        self.outcomes["result"] += 1
        return value

    def check(self, error: BaseException) -> None:
        """See that an error is the promise's own, or a cancellation that came."""
        kind = type(error)
        if isinstance(error, Cancelled):
            assert kind in self.told[id(self.current())], "nobody cancelled this one"
        else:
            assert kind is Own, f"not a promise's error: {error!r}"
        self.outcomes[kind.__name__] += 1

    def current(self) -> waiter.Waiter:
        """Return the waiter of the conversation that runs."""
        current = waiter.current_waiter()
        assert current is not None
        return current

    def timeout(self) -> float | None:
        """Choose one, or none."""
        return self.random.choice([None, 0.0, 1.0, 2.0, 5.0])

    def running(self) -> None:
        """Run code, in the midst of which the conversation may be cancelled."""
        if self.random.random() < 0.1:
            self.cancel(self.current())

    def plainly(self) -> None:
        """Acquire, use and give back with ``finally:``."""
        place = self.waited(self.pool.acquire(), timeout=self.timeout())
        try:
            self.running()
            if self.random.random() < 0.5:
                self.waited(asyncio.sleep(self.random.randrange(3)), timeout=self.timeout())
            self.running()
        finally:
            self.waited(self.pool.release(place))

    def entered(self) -> None:
        """Hold a place, a lock or a semaphore with ``using``; perhaps two, one in the other."""
        name = self.random.choice(["pool", "lock", "semaphore", "both"])
        if name == "both":
            with using(self.lock):
                self.hold("lock", 1, lambda: self.hold_place())
        elif name == "pool":
            self.hold_place()
        else:
            self.waits += 2
            with using(getattr(self, name)):
                self.hold(name, 1 if name == "lock" else PLACES, self.inner)

    def hold_place(self) -> None:
        """Hold a place."""
        self.waits += 2
        with using(self.pool.place()) as place:
            assert place in self.pool.held
            self.running()
            self.inner()

    def hold(self, name: str, most: int, function: Callable[[], None]) -> None:
        """Enter where only so many may be at once."""
        self.inside[name] += 1
        assert self.inside[name] <= most, f"too many hold the {name}"
        try:
            self.running()
            function()
        finally:
            self.inside[name] -= 1

    def inner(self) -> None:
        """Wait for a while, or not at all."""
        if self.random.random() < 0.7:
            self.waited(asyncio.sleep(self.random.randrange(3)), timeout=self.timeout())

    def taking(self) -> None:
        """Take items with a heartbeat, as a stream of events does."""
        for _ in range(self.random.randrange(1, 5)):
            with suppress(TimeoutError):
                item = self.waited(self.queue.get(), timeout=self.random.choice([0.0, 1.0, 2.0]))
                self.taken += 1
                assert item < self.put, "an item that was never put"
            self.running()

    def promised(self) -> None:
        """Wait for a promise of any kind, which somebody keeps or breaks."""
        promise, wanted = self.promise()
        with suppress(TimeoutError, Own):
            self.waited(promise, wanted, self.timeout() or 3.0)

    def together(self) -> None:
        """Wait for several."""
        several = [self.promise() for _ in range(self.random.randrange(1, 4))]
        self.waits += len(several)
        with suppress(TimeoutError, Own):
            values = wait_all(*[promise for promise, _ in several], timeout=3.0)
            assert values == [wanted for _, wanted in several]

    def iterated(self) -> None:
        """Iterate, to the end or not; what was begun is closed."""
        count = self.random.randrange(4)

        async def items() -> AsyncIterator[int]:
            self.inside["iterating"] += 1
            try:
                for number in range(count):
                    await asyncio.sleep(self.random.randrange(2))
                    yield number
            finally:
                try:
                    await asyncio.sleep(0)
                finally:
                    self.inside["iterating"] -= 1

        with suppress(TimeoutError):
            for number, item in enumerate(iterate(items(), timeout=2.0)):
                self.waits += 1
                assert number == item, "an item was lost"
                self.running()

    def promise(self) -> tuple[Any, Any]:
        """Make a promise, and have it kept or broken some time; and say what with."""
        wanted = self.random.random()
        kind = self.random.choice(["signal", "concurrent", "future", "coroutine", "task"])
        if kind == "signal":
            signal = Signal()
            self.pending.append((partial(signal.fire, wanted), partial(signal.fire, None, Own())))
            return signal, wanted
        future: Any = (
            concurrent.futures.Future() if kind == "concurrent" else self.loop.create_future()
        )
        promise: Any = _awaiting(future) if kind in ("coroutine", "task") else future
        if kind == "task":
            promise = self.loop.create_task(promise)
        self.pending.append((partial(_keep, future, wanted), partial(_break, future)))
        for each in (future, promise):
            if isinstance(each, asyncio.Future):
                each.add_done_callback(_seen)  # asyncio wants an error to be asked for
        return promise, wanted

    # What happens to them ------------------------------------------------------------------------

    def cancel(self, whose: waiter.Waiter) -> None:
        """Make the client leave, the request take too long, or the server stop."""
        kind = self.random.choice(CANCELLATIONS)
        told = self.told.get(id(whose))
        if told is None:
            return  # it has ended meanwhile
        told.add(kind)
        whose.cancel(kind("now"), firm=kind is not ClientDisconnected)

    def begin(self) -> None:
        """Begin a conversation."""
        kinds = [self.plainly, self.entered, self.taking, self.promised, self.together]
        doing = self.random.choice([*kinds, self.iterated])

        def conversation() -> None:
            self.told[id(self.current())] = set()
            with suppress(TimeoutError):
                for _ in range(self.random.randrange(1, 4)):
                    doing()

        self.runs.append(self.lane.begin(conversation))

    def step(self) -> None:
        """Do one step."""
        random = self.random.random()
        if random < 0.25:
            self.loop.turn()
        elif random < 0.45:
            self.lane.go_on()
        elif random < 0.55:
            self.loop.now += self.random.choice([0.5, 1.0, 3.0])
        elif random < 0.65 and self.pending:
            keep, fail = self.pending.popleft()
            (keep if self.random.random() < 0.8 else fail)()
        elif random < 0.75:
            self.queue.put_nowait(self.put)
            self.put += 1
        elif random < 0.8 and self.runs:
            run = self.random.choice(self.runs)
            if not run.ended:
                # On the loop, as a server does; or, as a host does, from another place.
                if self.random.random() < 0.5:
                    self.loop.call_soon(self.cancel, run.waiter)
                else:
                    self.cancel(run.waiter)
        elif len(self.runs) < PEOPLE:
            self.begin()
        self.collect()

    def collect(self) -> None:
        """Take out those that have ended, and see how."""
        for run in [each for each in self.runs if each.ended]:
            self.runs.remove(run)
            told = self.told.pop(id(run.waiter), set())
            if isinstance(run.raised, Cancelled):
                assert type(run.raised) in told
            elif run.raised is not None:
                raise run.raised

    def settle(self) -> None:
        """Run everything to its end, and check that everything is back."""
        rounds = 0
        while self.runs or self.lane.woken:
            rounds += 1
            assert rounds < 10_000, f"{len(self.runs)} conversations never end"
            for _ in range(len(self.pending)):
                self.pending.popleft()[0]()
            if self.queue.empty() and self.runs:
                self.queue.put_nowait(self.put)
                self.put += 1
            self.loop.now += 1.0
            self.lane.settle()
            self.collect()
        self.loop.now += 1e10  # also what is left of the timer for cleaning up
        self.lane.settle()
        assert self.pool.whole, f"places are lost: {self.pool.held}"
        assert not self.lock.locked(), "the lock is held"
        assert self.semaphore._value == PLACES, "the semaphore is held"
        assert not +self.inside, f"never left: {+self.inside}"
        assert self.taken + self.queue.qsize() == self.put, "items are lost"
        assert not asyncio.all_tasks(self.loop), "tasks are left"
        assert not self.loop.timers, "timers are left"
        assert not self.lane.hub.parked, "somebody is parked"

    def run(self, waits: int) -> None:
        """Make so many waits more, and settle."""
        end = self.waits + waits
        seconds, cleanup_time.seconds = cleanup_time.seconds, 1e9  # time leaps here
        try:
            while self.waits < end:
                self.step()
            self.settle()
        finally:
            cleanup_time.seconds = seconds

    def close(self) -> None:
        """End."""
        self.lane.hub.close()
        self.loop.close()


def _keep(future: Any, value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _break(future: Any) -> None:
    if not future.done():
        future.set_exception(Own())


def _seen(future: asyncio.Future[Any]) -> None:
    future.cancelled() or future.exception()


async def _awaiting(future: asyncio.Future[Any]) -> Any:
    return await future


def main(arguments: list[str]) -> None:
    """Make as many waits as asked for, settling every 10,000, and say what came of them."""
    waits, seed = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 1
    begun = time.monotonic()
    outcomes: Counter[str] = Counter()
    made = 0
    while made < waits:
        model = Model(seed)
        try:
            model.run(min(10_000, waits - made))
        except BaseException:
            print(f"seed {seed}, after {made:,} waits", file=sys.stderr)
            raise
        model.close()
        made += model.waits
        outcomes += model.outcomes
        seed += 1
    print(f"{made:,} waits in {time.monotonic() - begun:.0f} s, no difference from the model")
    for outcome, count in outcomes.most_common():
        print(f"{count:>12,}  {outcome}")


if __name__ == "__main__":
    main(sys.argv[1:])
