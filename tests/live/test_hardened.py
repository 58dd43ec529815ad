"""What a second, sceptical reading of the source found: each fault once, so that it stays away."""

import asyncio
import threading

from bide.executors.threads import ThreadsExecutor
from bide.promises import Signal
from tests.contract.test_races_of_lanes import Job, held, nothing, turn
from tests.serving import DEADLINE, happened, until


def test_a_woken_lane_takes_its_job_before_a_wait_that_was_settled_since() -> None:
    """What the wait goes on with may block for long, and no other lane was told of the job."""
    loop = asyncio.new_event_loop()
    executor = ThreadsExecutor(loop, 2, queue=10)
    release, signal, late = threading.Event(), Signal(), threading.Event()

    def park_then_block(job: Job) -> None:
        job.waiter.wait(signal)
        late.set()
        happened(release)

    waiting, job = Job(executor, park_then_block), Job(executor, nothing)
    try:
        assert executor.submit(waiting)
        executor.flush()
        happened(waiting.begun)
        lane = executor._lanes[0]
        until(lambda: lane.idle)
        # One after another without a turn for the lane: its queue gets the word, then the wait.
        assert executor.submit(job)
        executor.flush()
        signal.fire()
        happened(late)
        turn(loop, job.begun)
    finally:
        release.set()
        executor.stop()
        executor.join(DEADLINE)
        loop.close()
