"""What a server refuses is in its log: each kind with its number, once a second at most."""

import logging
import math
import re
import threading

import pytest

from bide.refusals import QUEUE_FULL, QUEUE_TIMEOUT, STOPPING, WAITED, Refusals, refused
from tests.conftest import Serve
from tests.serving import Log, answering, happened, until


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
    for kind, number in ((QUEUE_FULL, 13_376), (refused(413), 2), (QUEUE_TIMEOUT, 1)):
        for _ in range(number):
            refusals.count(kind)
    refusals.report(100.0)
    assert [(each.levelname, each.getMessage()) for each in heard.records] == [
        ("WARNING", QUEUE_FULL.format(13376)),
        ("WARNING", QUEUE_TIMEOUT.format(1)),
        ("INFO", refused(413).format(2)),
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
    """Give how many of a kind the log tells of."""
    pattern = re.escape(kind).replace(r"\{\}", r"(\d+)")
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
