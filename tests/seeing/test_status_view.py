"""What the status page shows of an instance."""

from bide.seeing.status_view import LISTED, PARKED, THREADS, view
from tests.seeing.instances import instance, request, snapshot, thread


def test_the_workers_are_added_up() -> None:
    """The states of all requests, the counts, and what was refused: also by those that ended."""
    seen = view(
        instance(
            snapshot(
                1,
                requests=[request(1), request(2, state="running"), request(3, state="sending")],
                counts={"threads": 4, "websockets": 1, "stopping": True},
                counters={"bide_rejected_total": {"queue_full": 2}},
            ),
            snapshot(2, requests=[request(1, 2)], counts={"threads": 3}),
            ended={"bide_rejected_total": {"queue_full": 1, "client_requests": 5}},
        )
    )
    assert seen["states"] == {"running": 1, "waiting": 2, "queued": 0, "reading": 0, "sending": 1}
    assert (seen["counts"]["threads"], seen["counts"]["websockets"]) == (7, 1)
    assert seen["refused"] == [("client_requests", 5), ("queue_full", 3)]
    assert seen["stopping"]
    assert [each["waiting"] for each in seen["workers"]] == [1, 1]


def test_a_viewer_is_sent_some_of_ten_thousand_requests() -> None:
    """The oldest, and those whose code has run longest; their number is told."""
    many = [request(each, total=float(each), running=1.0 / each) for each in range(1, 10_001)]
    seen = view(instance(snapshot(1, requests=many)))
    assert seen["requests"] == 10_000
    assert [each["id"] for each in seen["oldest"]] == [
        f"1-{10_000 - each}" for each in range(LISTED)
    ]
    assert [each["id"] for each in seen["slowest"]] == [f"1-{1 + each}" for each in range(LISTED)]


def test_a_lane_shows_what_runs_and_some_of_what_is_parked_there() -> None:
    """By their names; how many there are is the lane's own number."""
    requests = [request(0, state="running", thread="thread-2", method="POST", target="/report")]
    requests += [request(each, thread="thread-2") for each in range(1, 9)]
    lane = thread("thread-2", state="blocked", request="1-0", waiting=8)
    (seen,) = view(instance(snapshot(1, requests=requests, threads=[lane])))["threads"]
    assert seen["runs"] == "POST /report"
    assert seen["parked"] == [f"GET /orders/{each}" for each in range(1, 1 + PARKED)]
    assert (seen["worker"], seen["waiting"]) == (1, 8)


def test_of_too_many_threads_those_that_block_are_shown() -> None:
    """Then those that run; as long as there are few, they stay in their places."""
    few = [thread("thread-1"), thread("thread-2", state="blocked")]
    seen = view(instance(snapshot(1, threads=few)))
    assert [each["name"] for each in seen["threads"]] == ["thread-1", "thread-2"]
    many = [thread(f"thread-{each}") for each in range(THREADS)]
    many += [thread("runs", state="running"), thread("blocks", state="blocked")]
    seen = view(instance(snapshot(1, threads=many)))
    assert [each["name"] for each in seen["threads"][:3]] == ["blocks", "runs", "thread-0"]
    assert len(seen["threads"]) == THREADS
