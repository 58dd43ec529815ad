"""What time limits: the looks at one connection, at hand-made times, and what each phase allows."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator

import pytest

from bide.serving.deadlines import Allowances, Look
from bide.transports.poller import WRITE
from bide.waiting.outcome import Signal
from tests.contract.test_races_of_connections import Server, answer
from tests.served import Log, request

UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
"""An upload that the application is called for before its body comes."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a server without threads, whose one connection is looked at by the test."""
    server = Server()
    yield server
    server.close()


def look(server: Server, seconds: float = 10.0, crowded: bool = False, **allowances: float) -> bool:
    """Advance the time by so many seconds; return whether the connection is still there."""
    chosen = Allowances(**{"head": 15.0, "idle": 60.0, "rate": 100} | allowances)
    server.connection.mind_time(Look(seconds, chosen, server.unsent_total, crowded))
    server.turn()
    return not server.lost


def received(server: Server) -> bytes:
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        return server.client.recv(1 << 20)
    return b""


def test_a_connection_without_a_request_is_closed_when_its_time_is_over(server: Server) -> None:
    """Its time begins with the first look at it."""
    for _ in range(6):
        assert look(server)
    assert not look(server)


def test_a_request_gives_an_idle_connection_its_time_anew(server: Server) -> None:
    """However short it was, and whenever between two looks it came."""
    for _ in range(6):
        assert look(server)
    server.receive(request())
    answer(server.begun[0].stream)
    server.turn()
    for _ in range(6):
        assert look(server)


def test_an_idle_connection_of_a_crowded_server_is_closed_at_the_second_look(
    server: Server,
) -> None:
    """Others wait for its place; one that has just come has a moment to send its request."""
    assert look(server, 1.0, crowded=True)
    assert not look(server, 1.0, crowded=True)


def test_a_busy_connection_of_a_crowded_server_goes_on(server: Server) -> None:
    """Nobody's request is given up for another's."""
    server.receive(request())
    for _ in range(9):
        assert look(server, crowded=True)
    answer(server.begun[0].stream)
    assert b"200 OK" in received(server)


@pytest.mark.parametrize("drip", [b"", b"a"])
def test_a_head_has_its_time_from_the_first_byte(server: Server, drip: bytes) -> None:
    """Bytes do not prolong it."""
    server.receive(b"GET / HTTP/1.1\r\n")
    assert look(server, 5.0)
    for _ in range(2):
        if drip:
            server.receive(drip)
        assert look(server, 5.0)
    if drip:
        server.receive(drip)
    look(server, 5.0)
    assert received(server).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


@pytest.mark.parametrize(
    "steps",
    [[b"\r", b"\n"], [b"\r\n"], [b"\r\n\r", b"\n"], [b"\r\n" * 100], [b"\r", b"\n\r", b"\n\r\n"]],
    ids=["CR and LF", "a line", "a line and a half", "many lines", "halves"],
)
def test_empty_lines_do_not_prolong_the_time_of_a_head(server: Server, steps: list[bytes]) -> None:
    """Whatever comes, it has begun with the second one, and ends in 15 seconds of it."""
    looks = 0
    while not server.stopped:
        server.receive(steps[looks % len(steps)])
        assert look(server, 1.0)
        looks += 1
        assert looks < 25
    assert received(server).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_one_empty_line_behind_a_request_begins_no_head(server: Server) -> None:
    """Some clients send one behind a body (RFC 9112 section 2.2): their connection is idle."""
    server.receive(request(method="POST", body=b"x") + b"\r\n")
    answer(server.begun[0].stream)
    server.turn()
    for _ in range(6):
        assert look(server)
    assert received(server).count(b"HTTP/1.1 ") == 1
    assert not look(server)
    assert b"408" not in received(server)


def test_a_new_request_has_its_head_s_time_anew(server: Server) -> None:
    """The empty lines before the last one are forgotten with it."""
    server.receive(b"\r\n" * 10 + request())
    answer(server.begun[0].stream)
    server.turn()
    for _ in range(6):
        assert look(server)
    assert not look(server)


def awaited(server: Server) -> Signal:
    """Receive the head of an upload whose body the application waits for."""
    server.receive(UPLOAD % 1000000)
    signal = server.begun[0].stream.receive()
    assert isinstance(signal, Signal)
    return signal


def read_all(server: Server) -> None:
    """Read what has come of the body, and wait for more."""
    while not isinstance(server.begun[0].stream.receive(), Signal):
        pass


@pytest.mark.parametrize(
    ("each", "looks"),
    [(0, 6), (10, 7), (500, 12), (900, 60)],
    ids=["nothing", "a hundredth", "half the rate", "nine tenths"],
)
def test_a_body_that_is_slower_than_the_rate_uses_its_time_up(
    server: Server, each: int, looks: int
) -> None:
    """Each second costs one of 60, each 100 bytes bring one back; so it lasts the longer."""
    awaited(server)
    assert look(server)
    survived = 0
    while survived < 100:
        if each:
            server.receive(b"x" * each)
            read_all(server)
        if not look(server) or server.stopped:
            break
        survived += 1
    assert survived == looks - 1
    error = None
    try:
        server.begun[0].stream.receive()
    except Exception as raised:
        error = raised
    assert getattr(error, "status", None) == 408


def test_a_body_at_the_rate_goes_on_for_ever(server: Server) -> None:
    """What the client earns is bounded: hours of quickness do not pay for hours of nothing."""
    awaited(server)
    look(server)
    for _ in range(100):
        server.receive(b"x" * 1000)
        read_all(server)
        assert look(server)
    for _ in range(5):
        look(server)
        assert not server.stopped
    look(server)
    assert server.stopped


def test_a_body_that_nobody_waits_for_costs_its_client_no_time(server: Server) -> None:
    """The application takes its time: that is not the client's."""
    server.receive(UPLOAD % 10)
    for _ in range(100):
        assert look(server)
    assert not server.stopped


def test_the_time_of_a_body_goes_on_where_it_was_when_the_application_has_worked(
    server: Server,
) -> None:
    """Else a byte for each piece of work would be as good as the whole rate."""
    awaited(server)
    for _ in range(5):
        look(server)
    server.receive(b"x")  # nobody waits now
    look(server)
    read_all(server)
    for _ in range(2):
        look(server)
        assert not server.stopped
    look(server)
    assert server.stopped


def behind(server: Server) -> None:
    """Start a response that the client does not take."""
    server.receive(request())
    stream = server.begun[0].stream
    stream.start("200 OK", [])
    server.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while not server.transport.behind:
        stream.send(b"x" * 100_000)


def take(server: Server, size: int) -> None:
    """Take so many bytes of the queue, as the client."""
    server.count_unsent(-size)


def test_sending_and_taking_by_turns_does_not_prolong_the_time(server: Server) -> None:
    """A body and a response share it; else each turn would bring all of it anew."""
    signal = awaited(server)
    stream = server.begun[0].stream
    stream.start("200 OK", [])
    server.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    survived = 0
    # At a rate that makes nothing of what the client takes and sends.
    while look(server, rate=10**9) and not server.stopped:
        if survived % 2:  # the client takes all, and the application reads on
            while server.transport.behind:
                received(server)
                server.transport.ready(WRITE)
            server.receive(b"x")
            assert signal.fired
            read_all(server)
        else:
            while not server.transport.behind:
                stream.send(b"x" * 1000)
        survived += 1
        assert survived < 50


@pytest.mark.parametrize(
    ("held", "rate", "goes_on"),
    [
        (20_000_000, 240, False),
        (20_000_000, 5_000, False),
        (20_000_000, 12_000, True),
        (180_000, 110, True),
    ],
)
def test_the_rate_grows_with_what_is_held(
    server: Server, held: int, rate: int, goes_on: bool
) -> None:
    """20 MB at 240 bytes a second would be held for 23 hours: at most half an hour is asked."""
    server.receive(request())
    server.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stream = server.begun[0].stream
    stream.start("200 OK", [])
    stream.end(b"x" * held)
    missing = held - server.transport.queued
    server.count_unsent(missing)
    look(server)
    for _ in range(7 if goes_on else 200):
        take(server, 10 * rate)
        if not look(server):
            break
    assert bool(server.lost) is not goes_on
    if not server.lost:
        server.count_unsent(-missing)


def test_any_rate_will_do_for_whatever_is_held(server: Server) -> None:
    """With ``--min-rate 0``."""
    behind(server)
    server.count_unsent(20_000_000)
    for _ in range(100):
        take(server, 1)
        assert look(server, 60.0, rate=0)
    server.count_unsent(100 - 20_000_000)


@pytest.mark.parametrize("min_rate", [0, 100])
def test_a_slow_client_is_given_up_soon_when_all_together_hold_too_much(
    server: Server, min_rate: int
) -> None:
    """Within five seconds, if it takes less than it should take in a minute."""
    behind(server)
    assert look(server, 1.0, rate=min_rate)
    server.unsent_total.bound = 1
    server.unsent_total.add(0)
    for _ in range(4):
        assert look(server, 1.0, rate=min_rate)
    assert not look(server, 1.0, rate=min_rate)
    assert server.unsent_total.used == 0


def test_a_quick_client_goes_on_when_all_together_hold_too_much(server: Server) -> None:
    """It is not the one who holds."""
    behind(server)
    server.count_unsent(1_000_000)
    server.unsent_total.bound = 1
    server.unsent_total.add(0)
    for _ in range(40):
        take(server, 20_000)
        assert look(server, 1.0)
    server.count_unsent(40 * 20_000 - 1_000_000)


def test_a_client_that_takes_nothing_is_reset_when_its_time_is_over(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """And the application learns of it."""
    behind(server)
    caplog.set_level(logging.INFO, "bide")
    for _ in range(6):
        assert look(server)
    assert not look(server)
    assert server.begun[0].stream.gone
    assert "a client that reads too slowly is disconnected" in caplog.text


def test_the_end_of_a_response_brings_no_time_for_its_last_bytes(server: Server) -> None:
    """The application has ended: what its client has not taken is the same response's."""
    behind(server)
    for _ in range(4):
        assert look(server)
    server.begun[0].stream.end()
    for _ in range(2):
        assert look(server)
    assert not look(server)


def test_a_response_that_takes_longer_than_it_may_is_reset(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """However quickly its client takes it."""
    server.receive(request())
    stream = server.begun[0].stream
    stream.start("200 OK", [])
    look(server, response=25)
    look(server, response=25)  # it has not begun
    stream.send(b"first")
    caplog.set_level(logging.INFO, "bide")
    look(server, response=25)
    assert look(server, response=25)
    assert not look(server, response=25)
    assert "a client that takes too long is disconnected" in caplog.text


def test_each_response_has_its_time(server: Server) -> None:
    """A connection in constant use is not one long response."""
    for number in range(20):
        server.receive(request())
        stream = server.begun[number].stream
        stream.start("200 OK", [])
        stream.send(b"first")
        assert look(server, response=25)
        stream.end()
        server.turn()


def test_pipelined_requests_earn_no_time_for_a_client_that_takes_nothing(server: Server) -> None:
    """They wait for the response in progress, and so does the clock."""
    behind(server)
    for _ in range(6):
        assert look(server)
        server.receive(request("/next"))
    assert not look(server)


def test_a_log_fixture_sees_no_warning(log: Log, server: Server) -> None:
    """Clients that are given up are their own affair: no more than a line of information."""
    behind(server)
    for _ in range(7):
        look(server)
    assert not log.lines(logging.WARNING)
