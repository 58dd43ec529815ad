"""Real lanes, and jobs that wait, block and end in any order: none is forgotten, all is given back.

Nothing but the executor's own looks and wakes brings a job to a lane here: no clock flushes again.
"""

import asyncio
import random
import threading
import time

import pytest

from bide.executors.threads import ThreadsExecutor
from bide.waiting.api import wait
from bide.waiting.outcome import Signal
from tests.fakes import Run
from tests.served import DEADLINE


class Firing:
    """Fires signals from a thread of its own, in any order."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._signals: list[Signal] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def signal(self) -> Signal:
        """Make a signal that will fire; from any thread."""
        signal = Signal()
        with self._lock:
            self._signals.append(signal)
        return signal

    def _run(self) -> None:
        while not self._ended.wait(self._chance.choice([0, 0.0005, 0.003])):
            with self._lock:
                self._chance.shuffle(self._signals)
                number = self._chance.randint(0, len(self._signals))
                firing, self._signals = self._signals[:number], self._signals[number:]
            for signal in firing:
                signal.fire()

    def end(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()


async def until_all(executor: ThreadsExecutor, jobs: list[Run]) -> None:
    """Return once all have ended, and every lane is idle."""
    async with asyncio.timeout(DEADLINE):
        while not all(job.ended for job in jobs):
            await asyncio.sleep(0.002)
        while not all(lane.idle for lane in executor.roster.lanes):
            await asyncio.sleep(0.002)


async def play(seed: int, threads: int, limit: int) -> None:
    chance = random.Random(seed)
    executor = ThreadsExecutor(asyncio.get_running_loop(), threads, 100_000, limit=limit)
    firing = Firing(random.Random(seed + 1))

    def work(waits: int, blocks: float) -> None:
        for _ in range(waits):
            wait(firing.signal())
        time.sleep(blocks)

    jobs: list[Run] = []
    try:
        for _ in range(80):
            for _ in range(chance.choice([1, 1, 2, 5, 40])):
                waits, blocks = chance.choice([0, 0, 1, 2]), chance.choice([0.0] * 40 + [0.003])
                job = Run(lambda w=waits, b=blocks: work(w, b), executor.waiter())  # type: ignore[misc]
                job.started = time.monotonic()
                jobs.append(job)
                assert executor.submit(job)
            executor.flush()
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.004]))
        await until_all(executor, jobs)
        assert [job.raised for job in jobs if job.raised] == []
        roster = executor.roster
        assert (roster.begun, roster.coming, executor.queued) == (0, 0, 0)
        assert executor.threads <= executor.lanes_max
    finally:
        firing.end()
        executor.stop()
        await asyncio.to_thread(executor.join, DEADLINE)
    assert not executor.alive


@pytest.mark.parametrize(("threads", "limit"), [(1, 1), (2, 2), (2, 8), (4, 64)])
@pytest.mark.parametrize("seed", range(3))
def test_no_job_is_forgotten_and_no_place_is_lost(seed: int, threads: int, limit: int) -> None:
    """In the end nobody is at a new job, nobody is on its way, and everybody is idle."""
    asyncio.run(play(seed, threads, limit))
