"""What a server refuses is in its log: each kind with its number, once a second at most."""

import logging
import math
import re
import threading

import pytest

from bide.serving.loggers import access
from bide.serving.refusals import (
    QUEUE_FULL,
    QUEUE_TIMEOUT,
    STOPPING,
    WAITED,
    Refusals,
    refused,
)
from tests.conftest import Serve
from tests.failures import Failures
from tests.served import LONG, Log, answering, happened, until


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Hear what is logged, from info on."""
    caplog.set_level(logging.INFO, "bide")
    return caplog


def test_refusals_are_logged_with_their_number_one_line_for_each_kind(
    heard: pytest.LogCaptureFixture,
) -> None:
    """Overload is a warning; what is the client's own doing is not."""
    refusals = Refusals()
    for kind, number in ((QUEUE_FULL, 13_376), (refused(431), 2), (QUEUE_TIMEOUT, 1)):
        for _ in range(number):
            refusals.count(kind, "the request line is too long")
    refusals.report(100.0)
    assert [(each.levelname, each.getMessage()) for each in heard.records] == [
        ("WARNING", QUEUE_FULL.format(13376)),
        ("WARNING", QUEUE_TIMEOUT.format(1)),
        (
            "INFO",
            "requests refused: 2 were refused with 431 Request Header Fields Too "
            "Large; the last: the request line is too long",
        ),
    ]
    assert not refusals.some


def test_refusals_are_logged_once_a_second_at_most(heard: pytest.LogCaptureFixture) -> None:
    """What comes meanwhile is counted; what is left at the end is said."""
    refusals = Refusals()
    for now in (100.0, 100.5, 100.99, 101.0, 101.5):
        refusals.count(QUEUE_FULL)
        refusals.report(now)
    refusals.count(STOPPING)
    refusals.report(math.inf)
    assert [each.getMessage() for each in heard.records] == [
        QUEUE_FULL.format(1),
        QUEUE_FULL.format(3),
        QUEUE_FULL.format(1),
        STOPPING.format(1),
    ]


def test_few_of_many_refused_requests_have_lines_of_their_own() -> None:
    """A client that is refused again and again fills no disk: a line a second, after a few."""
    refusals = Refusals(told=20)
    refusals.report(100.0)
    assert sum(refusals.may_tell() for _ in range(1000)) == 20
    told = 0
    for tenth in range(1001, 2001):
        refusals.report(tenth / 10)
        told += refusals.may_tell()
    assert told == 100
    for second in range(200, 300):
        refusals.report(float(second))
    assert sum(refusals.may_tell() for _ in range(1000)) == 20


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_a_refused_request_is_in_the_access_log_and_the_log_says_why(
    serve: Serve, log: Log, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every way to refuse one: at once, in pieces, for its time, and for its body."""
    monkeypatch.setattr(access, "level", logging.INFO)
    monkeypatch.setattr(logging.getLogger("bide"), "level", logging.DEBUG)
    log.setLevel(logging.DEBUG)
    access.manager._clear_cache()  # type: ignore[attr-defined]
    served = serve(
        answering(lambda environ: str(len(environ["wsgi.input"].read()))),
        executor=executor,
        limit_body=10,
        limit_request_line=64,
        head_timeout=LONG,
    )
    long = b"/" + b"a" * 300
    chunked = b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Failures() as failures:
        for sent, status, line, reason in (
            (b"GET / HTTP/1.1\r\n\r\n", 400, "GET / HTTP/1.1", "no Host header"),
            (b"GET " + long, 414, f"GET /{'a' * 195}...", "line is too long"),
            (b"GET /slow HTTP/1.1\r\nHo", 408, "GET /slow HTTP/1.1", "took too long"),
            (b"GET /sl", 408, "GET /sl...", "took too long"),
            (chunked + b"b\r\n01234567890\r\n", 413, "POST / HTTP/1.1", "longer than 10 bytes"),
        ):
            with failures.of(line):
                client = served.connect()
                client.send(sent)
                if status == 408:
                    until(lambda: served.receiving)
                    served.advance(LONG)
                assert client.response().status == status
                client.close()
                said = log.take(f' "{line}" {status} ').getMessage()
                assert said.startswith("127.0.0.1 ")
                why = log.take(f"refused with {status}: ").getMessage()
                assert reason in why


def test_a_server_without_refusals_says_nothing(heard: pytest.LogCaptureFixture) -> None:
    """And its quiet second does not begin."""
    refusals = Refusals()
    refusals.report(100.0)
    refusals.count(QUEUE_FULL)
    refusals.report(100.1)
    assert len(heard.records) == 1


def test_a_full_queue_and_one_that_is_too_slow_are_logged_with_counts(
    serve: Serve, log: Log
) -> None:
    """Of a real server; every request is in one of the lines."""
    release = threading.Event()
    began = threading.Event()

    def answer(_: object) -> str:
        began.set()
        happened(release)
        return "served"

    served = serve(answering(answer), threads=1, queue=2, queue_timeout=0.2)
    running = served.request()
    happened(began)
    queued = [served.request() for _ in range(2)]
    until(lambda: served.status.queued == 2)
    for _ in range(5):
        assert served.get().status == 503
    for client in queued:
        assert client.response().status == 503
    # A busy machine may need two lines for the five.
    until(lambda: total(log, QUEUE_FULL) == 5 and total(log, QUEUE_TIMEOUT) == 2)
    release.set()
    assert running.response().text == "served"
    log.records.clear()


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_connections_that_had_to_wait_for_others_are_logged(
    serve: Serve, log: Log, executor: str
) -> None:
    """They were not refused, but their clients saw a server that does not answer."""
    served = serve(answering(lambda _: "served"), executor=executor, limit_connections=1)
    first = served.connect()
    until(lambda: served.status.connections == 1)
    # One is turned away to make room for the next, and so on.
    others = [served.request() for _ in range(3)]
    log.take("all 1 connections are in use")
    first.close()
    for client in others:
        assert client.response().text == "served"
        client.close()
    until(lambda: total(log, WAITED) == 3)


def total(log: Log, kind: str) -> int:
    """Return how many of a kind the log tells of."""
    pattern = re.escape(kind).replace(r"\{\}", r"(\d+)", 1).replace(r"\{\}", ".+")
    lines = [re.fullmatch(pattern, each.getMessage()) for each in list(log.records)]
    return sum(int(line[1]) for line in lines if line)


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_requests_that_are_refused_are_logged_by_their_status(
    serve: Serve, log: Log, executor: str
) -> None:
    """For their head, or for their body, which the application has begun to read."""
    served = serve(
        answering(lambda environ: str(len(environ["wsgi.input"].read()))),
        executor=executor,
        limit_body=10,
    )
    for _ in range(3):
        client = served.connect()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.response().status == 400
    client = served.connect()
    client.send(
        b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    )
    served.until_waiting(1)
    client.send(b"a\r\n0123456789\r\n")
    assert client.response().status == 413
    served.begin_stop()
    served.join()
    assert total(log, refused(400)) == 3
    assert total(log, refused(413)) == 1
