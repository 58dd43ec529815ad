"""What a second, sceptical reading of the source found: each fault once, so that it stays away."""

import asyncio
import threading
from typing import Any

import pytest

from bide.executors.threads import ThreadsExecutor
from bide.promises import Signal
from bide.stream import _FIELDS, _STATUSES, Head
from tests.conftest import Serve
from tests.contract.test_races_of_lanes import Job, nothing, turn
from tests.serving import DEADLINE, Environ, happened, request, until


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


@pytest.mark.parametrize("kind", [iter, tuple])
def test_headers_that_are_no_list_are_sent_and_counted_alike(serve: Serve, kind: Any) -> None:
    """An iterator told its Content-Length, and was empty when it came to be sent."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", kind([("Content-Length", "5"), ("X-Kind", "some")]))
        return [b"hello"]

    client = serve(application, executor="loop").connect()
    for _ in range(2):
        client.send(request())
        response = client.response()
        assert response.body == b"hello"
        assert response.header("Content-Length") == "5"
        assert response.header("X-Kind") == "some"


def test_long_statuses_and_header_names_are_not_kept() -> None:
    """An application may make them up of what clients send: the tables stay small."""
    before = len(_STATUSES), len(_FIELDS)
    head = Head("200 " + "x" * 1000, [("X" * 1000, "value")])
    assert (head.code, len(_STATUSES), len(_FIELDS)) == (200, *before)
