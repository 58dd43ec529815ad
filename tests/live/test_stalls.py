"""Five hundred clients stall in every way at once: they hold no thread, and are gone in time."""

import resource
from collections.abc import Iterator

import pytest

from tests.conftest import Serve
from tests.live.faults import FRESH, Arena, Viewer, close_arenas, victim
from tests.serving import Log, request, until

EACH = 100
DESCRIPTORS = 2 * 5 * EACH + 200
SECONDS = 2.0
"""How long each may stall: enough for all of them to have begun."""

UPLOAD = request("/reads", method="POST", headers=["Content-Length: 10"]) + b"x" * 5


@pytest.fixture(autouse=True)
def _arenas(serve: Serve) -> Iterator[None]:
    """End clients before their servers."""
    yield
    close_arenas()


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_five_hundred_stalled_clients_hold_no_thread_and_are_gone_in_time(
    serve: Serve, log: Log, executor: str
) -> None:
    """On four threads: in the head or the body, not reading, idle, half-closed while waited for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.fail(f"this test needs {DESCRIPTORS} descriptors, and may open {hard} at most")
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    try:
        stall(serve, log, executor)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def stall(serve: Serve, log: Log, executor: str) -> None:
    arena = Arena(
        serve,
        log,
        victim,
        executor=executor,
        threads=4,
        limit_threads=4,
        head_timeout=SECONDS,
        idle_timeout=SECONDS,
        request_timeout=2.5 * SECONDS,
        half_close="answer",
    )
    served = arena.served

    def begin(data: bytes, window: int = 0) -> list[Viewer]:
        clients = [arena.connect(window=window) for _ in range(EACH)]
        for client in clients:
            client.send(data)
        return clients

    idle = begin(request("/"))
    for client in idle:
        assert client.response().complete
    in_the_head = begin(request()[:20])
    in_the_body = begin(UPLOAD)
    not_reading = begin(request("/writes"), window=4096)
    half_closed = begin(request("/waits"))
    for client in half_closed:
        client.half_close()
    until(lambda: served.status.waiting == 3 * EACH, "they were not all stalled in time")
    assert served.status.connections == 5 * EACH
    until(lambda: served.status.threads_busy == 0, "a stalled client holds a thread")

    quick = arena.request(FRESH)
    assert quick.response().body == b"fresh"
    quick.close()
    assert served.status.connections >= 5 * EACH, "they were gone before"

    for kind, clients, sees in (
        ("idle", idle, "closed"),
        ("in the head", in_the_head, "408, closed"),
        ("in the body", in_the_body, "408, closed"),
        ("not reading", not_reading, "200 cut, reset"),
        ("half-closed", half_closed, "504, closed"),
    ):
        seen = {client.view() for client in clients} if clients is not not_reading else {sees}
        assert (kind, seen) == (kind, {sees})
    until(lambda: served.status.connections == 0)
    assert {client.view() for client in not_reading} == {"200 cut, reset"}
    arena.settle(
        *["INFO a client that takes too little is given up"] * EACH,
        *["WARNING its wait is ended"] * EACH,
    )
