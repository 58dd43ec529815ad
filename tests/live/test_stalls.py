"""Five hundred clients stall in every way at once: they hold no thread, and are gone in time."""

import resource

import pytest

from tests.conftest import Serve
from tests.live.faults import FRESH, Arena, Viewer, victim
from tests.served import LONG, Log, request, until

EACH = 100
DESCRIPTORS = 2 * 5 * EACH + 200

UPLOAD = request("/reads", method="POST", headers=["Content-Length: 10"]) + b"x" * 5


pytestmark = pytest.mark.usefixtures("arenas")


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
        head_timeout=LONG,
        idle_timeout=LONG,
        request_timeout=2 * LONG,
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
    until(lambda: served.status.waiting == 3 * EACH, "they were not all stalled")
    assert served.status.connections == 5 * EACH
    until(lambda: served.status.threads_busy == 0, "a stalled client holds a thread")
    until(lambda: served.receiving == 2 * EACH, "not all of the halves have come")

    quick = arena.request(FRESH)
    assert quick.response().body == b"fresh"
    quick.close()
    # Again and again: the systems between may take some more meanwhile.
    served.advance_until(lambda: served.status.waiting == EACH, LONG)
    check(idle, "closed")
    check(in_the_head, "408, closed")
    check(in_the_body, "408, closed")
    check(not_reading, "200 cut, reset")
    until(lambda: served.status.connections == EACH)
    assert served.status.waiting == EACH
    served.advance(2 * LONG)
    check(half_closed, "504, closed")
    until(lambda: served.status.connections == 0)
    arena.settle(
        *["INFO a client that reads too slowly is disconnected"] * EACH,
        *["WARNING its wait is ended"] * EACH,
    )


def check(clients: list[Viewer], sees: str) -> None:
    """Check what each sees, and have it leave."""
    for client in clients:
        assert client.view() == sees
        client.close()
