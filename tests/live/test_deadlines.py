"""Clients and applications that take too long: what ends them, and that it ends nobody else.

Each time-out of a row is longer than any test. The test brings its request where the row wants it,
and then has the server look at the time as if that much had passed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import Serve
from tests.fault_proxy import Fault
from tests.live.faults import LEFT, Arena, Viewer, victim
from tests.served import LONG, Log, request, until

pytestmark = pytest.mark.usefixtures("arenas", "log_for_us_alone")
both = pytest.mark.parametrize("executor", ["threads", "loop"])

HEAD = request("/reads", method="POST", headers=["Content-Length: 100"])
ASKING = request("/reads", method="POST", headers=["Content-Length: 100", "Expect: 100-continue"])
TAKEN = "WARNING its wait is ended"


def connected(arena: Arena) -> None:
    """Return once the client's connection is the server's."""
    until(lambda: arena.served.status.connections == 1)


def begun(arena: Arena) -> None:
    """Return once the server has a part of a request."""
    until(lambda: arena.served.receiving)


def waiting(arena: Arena) -> None:
    """Return once the application waits."""
    arena.served.until_waiting(1)


Pass = Callable[[Arena, Viewer], None]


def passes(reached: Callable[[Arena], None], *seconds: float) -> Pass:
    """Advance the time once the request is there; check that nothing comes before its end."""

    def pass_time(arena: Arena, client: Viewer) -> None:
        reached(arena)
        for each in seconds[:-1]:
            arena.served.advance(each)
            assert client.is_silent(), f"ended too early, in {each} s"
        arena.served.advance(seconds[-1])

    return pass_time


def drips_a_head(arena: Arena, client: Viewer) -> None:
    """Advance a tenth of the time after each byte of a head."""
    for at in range(1, len(HEAD) - 1):
        begun(arena)
        arena.served.advance(LONG / 10)
        if not client.is_silent():
            assert at == 10, f"ended after {at} tenths of its time"
            return
        client.send(HEAD[at : at + 1])
    raise AssertionError("not ended in time")


def drips_a_body(arena: Arena, client: Viewer) -> None:
    """Advance a tenth of the time after each 20 bytes of a body, which earn a moment."""
    stage = arena.stage

    def has_read() -> bool:
        return bool(stage.raised) or (stage.read == sent and arena.served.status.waiting == 1)

    assert client.head().status == 100
    for number in range(1, 40):
        client.send(b"x" * 20)
        sent = number * 20
        until(has_read)
        if stage.raised:
            assert 11 <= number <= 12, f"ended after {number - 1} tenths of its time"
            return
        arena.served.advance(LONG / 10)
    raise AssertionError("not ended in time")


def pours(seconds: float) -> Pass:
    """Send a body of 100 bytes in five pieces, and let so much time pass after each."""

    def pass_time(arena: Arena, client: Viewer) -> None:
        assert client.head().status == 100  # else all of the body is waited for before the request
        for read in range(20, 101, 20):
            client.send(b"x" * 20)
            until(lambda read=read: arena.stage.read == read)  # type: ignore[misc]
            arena.served.advance(seconds)

    return pass_time


def overruns(arena: Arena, client: Viewer) -> None:
    """Take all the time for the request, and then all for what is left of its bytes."""
    waiting(arena)
    arena.served.advance(LONG)
    arena.served.until_idle()
    arena.served.advance(3 * LONG)


@dataclass(frozen=True)
class Late:
    """What takes too long.

    Attributes:
        sends: the client's bytes.
        passes: how the time passes.
        sees: what the client sees, as :meth:`Viewer.view` says it.
        calls: how often the application is called.
        raised: what is raised in the application.
        log: the lines.
        settings: the server's.
    """

    name: str
    sends: bytes
    passes: Pass
    sees: str = "408, closed"
    calls: int = 1
    raised: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


REFUSED = ("RemoteProtocolError",)
OVERDUE = ("RequestTimeout",)
LATE = [
    Late("half a head", HEAD[:30], passes(begun, LONG / 2, LONG / 2), calls=0,
         settings={"head_timeout": LONG}),
    Late("dripped head", HEAD[:1], drips_a_head, calls=0,
         settings={"head_timeout": LONG}),
    Late("nothing at all", b"", passes(connected, LONG), sees="closed", calls=0,
         settings={"idle_timeout": LONG}),
    Late("half a body", HEAD + b"x" * 10, passes(waiting, LONG), raised=REFUSED,
         settings={"idle_timeout": LONG}),
    Late("dripped body", ASKING.replace(b"100", b"1000", 1), drips_a_body, raised=REFUSED,
         settings={"idle_timeout": LONG}),
    Late("poured body, fast enough", ASKING, pours(15.0), sees="200, goes on",
         settings={"idle_timeout": 60.0, "min_rate": 1}),
    Late("poured body, of any rate", ASKING, pours(LONG / 2), sees="200, goes on",
         settings={"idle_timeout": LONG, "min_rate": 0}),
    Late("half a head for a whole request's time", HEAD[:30], passes(begun, LONG, 2 * LONG),
         calls=0, settings={"head_timeout": 3 * LONG, "request_timeout": LONG}),
    Late("waits for ever", request("/waits"), passes(waiting, LONG / 2, LONG), sees="504, goes on",
         raised=OVERDUE, log=(TAKEN,), settings={"request_timeout": LONG}),
    Late("waits for ever in its response", request("/begins"), passes(waiting, LONG),
         sees="200 cut, closed", raised=OVERDUE, log=(TAKEN,), settings={"request_timeout": LONG}),
    Late("a body that never comes", HEAD + b"x" * 10, overruns, sees="504, closed",
         raised=OVERDUE, log=(TAKEN,),
         settings={"request_timeout": LONG, "head_timeout": 3 * LONG}),
    Late("a response without an end", request("/begins"), passes(waiting, LONG),
         sees="200 cut, reset", raised=(LEFT,),
         log=("INFO a client that takes too long is disconnected: 127.0.0.1",),
         settings={"response_timeout": LONG}),
]  # fmt: skip


@both
@pytest.mark.parametrize("row", LATE, ids=[each.name for each in LATE])
def test_who_takes_too_long_is_ended_alone(
    serve: Serve, log: Log, executor: str, row: Late
) -> None:
    """What its client is told, what its request is told, and that nobody else notices."""
    # A client is answered first, and then read on: it may still send, and never sees a reset.
    arena = Arena(serve, log, victim, executor=executor, linger_timeout=LONG, **row.settings)
    client = arena.connect()
    client.send(row.sends)
    row.passes(arena, client)
    assert client.view() == row.sees
    stage = arena.stage
    until(lambda: len(stage.calls) >= row.calls and len(stage.raised) >= len(row.raised))
    arena.settle(*row.log)
    assert (len(stage.calls), tuple(stage.raised)) == (row.calls, row.raised)


@both
def test_an_idle_connection_is_closed_in_time(serve: Serve, log: Log, executor: str) -> None:
    """Between two requests, without a word."""
    arena = Arena(serve, log, victim, executor=executor, idle_timeout=LONG)
    client = arena.request()
    assert client.response().complete
    arena.served.advance_until(lambda: not client.is_silent(), LONG)
    assert client.view() == "closed"
    arena.settle()


@both
@pytest.mark.parametrize("path", ["/writes", "/much"])
def test_a_reader_that_stalls_is_reset(serve: Serve, log: Log, executor: str, path: str) -> None:
    """Its response is none that could pass for a whole one; the iterable is closed."""
    arena = Arena(serve, log, victim, executor=executor, idle_timeout=LONG)
    proxy = arena.proxy(down=Fault("stall", 1000), window=4096)
    client = arena.request(path, proxy)
    waiting(arena)
    # Again and again: the systems between may take some more meanwhile.
    arena.served.advance_until(lambda: arena.stage.raised, LONG)
    until(lambda: arena.served.status.connections == 0)
    proxy.release()
    assert client.view() == "200 cut, reset"
    assert arena.stage.raised == ["GeneratorExit"]
    arena.settle("INFO a client that reads too slowly is disconnected: 127.0.0.1")
