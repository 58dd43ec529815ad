"""No byte of a client's steers a terminal or makes a log line of its own (CVE-2020-7694).

Every call that logs a request is made, for targets that are hostile. They are shown as they were
sent, never decoded; and what would have to be escaped beyond that is refused before.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from bide import wait
from bide.serving.formatters import escaped
from bide.serving.loggers import access
from bide.serving.refusals import Refusals
from bide.waiting.cleanups import cleanup_time
from tests.conftest import Serve
from tests.served import LONG, Busy, Environ, Gate, Log, answering, happened, until

TARGETS = [
    "/%1b%5b31mred",
    "/%0d%0a2026-11-25%20INFO%20forged",
    "/%00%7f%80%9f%c2%9b",
    "/\\x1b[31m\\n",
    "/\"'`<>{}|^",
    "/%s%(name)s{}",
]
hostile = pytest.mark.parametrize("target", TARGETS)
only_threads = pytest.mark.parametrize("executor", ["threads"])
only_loop = pytest.mark.parametrize("executor", ["loop"])


def check(record: logging.LogRecord, target: str) -> None:
    """Check that a record names the target as it was sent, in a first line without controls."""
    line = record.getMessage().partition("\n")[0]
    assert f"GET {target} of " in line
    assert re.fullmatch(r"[\x20-\x7e]+", line)


@hostile
@pytest.mark.parametrize("where", ["call", "close()"])
def test_a_failure_names_its_request_as_it_was_sent(
    serve: Serve, log: Log, target: str, where: str
) -> None:
    """In the call, and in ``close()``."""

    class Failing:
        def __iter__(self) -> Any:
            return iter([b"x"])

        def close(self) -> None:
            raise LookupError

    def application(environ: Environ, start_response: Any) -> Any:
        if where == "call":
            raise LookupError
        start_response("200 OK", [])
        return Failing()

    serve(application).get(target)
    check(log.take("the application failed"), target)


@hostile
def test_a_lost_finish_names_its_request_as_it_was_sent(
    serve: Serve, log: Log, target: str
) -> None:
    """In the message of the error itself."""

    def application(environ: Environ, start_response: Any) -> None:
        start_response("200 OK", []).finish  # noqa: B018 - taken, and dropped

    serve(application).get(target)
    record = log.failure()
    check(record, target)
    assert record.exc_info
    assert f"GET {target} of " in str(record.exc_info[1])


@hostile
@only_threads
def test_a_blocked_lane_names_its_request_as_it_was_sent(
    serve: Serve, log: Log, target: str
) -> None:
    """When it is noticed, and when it goes on."""
    busy = Busy()
    served = serve(busy.application, blocked_thread=LONG)
    client = served.request(target)
    happened(busy.begun)
    served.notice(LONG)
    check(log.take("has been blocked for"), target)
    busy.release.set()
    assert client.response().status == 200
    record = served.goes_on(log, "bide-thread-1")
    assert record.getMessage().endswith(f"in GET {target} of {log_name(record)}")


def log_name(record: logging.LogRecord) -> str:
    """Return the application's name, which ends the line."""
    return record.getMessage().rpartition(" of ")[2]


@hostile
@only_loop
def test_a_blocked_loop_names_its_request_as_it_was_sent(
    serve: Serve, log: Log, target: str
) -> None:
    """Though the loop itself can do nothing about it."""
    busy = Busy()
    served = serve(busy.application, blocked_loop=LONG)
    client = served.request(target)
    happened(busy.begun)
    check(served.blocked_loop(log, LONG), target)
    busy.release.set()
    assert client.response().status == 200
    served.goes_on(log, "the event loop")


@pytest.mark.parametrize("target", ["/" + "".join(TARGETS)])  # each takes a second
@only_threads
def test_a_request_that_is_left_running_is_named_as_it_was_sent(
    serve: Serve, log: Log, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a server that stops without it."""
    monkeypatch.setattr(cleanup_time, "seconds", 0.01)
    busy = Busy()
    served = serve(busy.application, graceful_timeout=0.01)
    served.request(target)
    happened(busy.begun)
    served.begin_stop()
    check(log.take("left running"), target)
    busy.release.set()
    log.take("requests have not ended in time")
    served.join()
    served.until_idle()


@hostile
def test_a_request_that_takes_too_long_is_named_as_it_was_sent(
    serve: Serve, log: Log, target: str
) -> None:
    """One whose wait is ended."""
    gate = Gate()
    served = serve(answering(lambda environ: wait(gate.promise())), request_timeout=LONG)
    client = served.request(target)
    served.until_waiting(1)
    served.advance(LONG)
    assert client.response().status == 504
    check(log.take(": its wait is ended"), target)


@hostile
@only_threads
def test_code_that_takes_too_long_is_named_as_it_was_sent(
    serve: Serve, log: Log, target: str
) -> None:
    """One that cannot be ended, with its stack."""
    busy = Busy()
    served = serve(busy.application, request_timeout=LONG)
    client = served.request(target)
    happened(busy.begun)
    served.advance(LONG)
    check(log.take("and its code goes on"), target)
    busy.release.set()
    assert client.response().status == 200


@pytest.fixture
def accesses() -> Any:
    """Return the lines of the access log."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Handler()
    access.addHandler(handler)
    level = access.level
    access.setLevel(logging.INFO)
    yield lines
    access.removeHandler(handler)
    access.setLevel(level)


@hostile
def test_the_access_log_escapes_what_would_end_its_quotes(
    serve: Serve, accesses: list[str], target: str
) -> None:
    """Quotes and backslashes; the line has two quotes, whatever was asked."""
    serve(answering(lambda environ: b"")).get(target)
    until(lambda: accesses, "nothing was logged")
    (line,) = accesses
    assert f'"GET {escaped(target)} HTTP/1.1" 200 0 ' in line
    assert line.count('"') == 2
    assert re.fullmatch(r"[\x20-\x7e]+", line)


def test_raw_bytes_that_would_have_to_be_escaped_are_refused(
    serve: Serve, accesses: list[str], log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Controls, blanks and everything that is not ASCII in a target (RFC 3986 section 2).

    A line of the access log, and of the log where it says why, escapes them and is cut.
    """
    monkeypatch.setattr(Refusals, "may_tell", lambda refusals: True)
    log.setLevel(logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("bide"), "level", logging.DEBUG)
    logging.getLogger("bide").manager._clear_cache()  # type: ignore[attr-defined]
    served = serve(answering(lambda environ: b""))
    for raw in [*range(0x21), *range(0x7F, 0x100)]:
        client = served.connect()
        client.send(b"GET /a" + bytes([raw]) + b"b HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().status == 400, raw
        assert client.rest() == b""
        client.close()
    client = served.connect()
    client.send(b"\x16\x03\x01" + b"\x00" * 300 + b"\n\n")
    assert client.response().status == 400
    client.close()
    reasons = [each.getMessage() for each in log.records if each.levelno == logging.DEBUG]
    assert reasons.pop(0).startswith("Bide is ")
    assert len(accesses) == len(reasons) == 33 + 129 + 1
    for line, reason in zip(accesses, reasons, strict=True):
        request, _, rest = line.removeprefix('127.0.0.1 "').rpartition('" ')
        assert re.fullmatch(r"400 [1-9]\d* 0\.000s", rest)
        assert re.fullmatch(r"[\x20-\x7e]{1,850}", line)
        assert line.count('"') == 2
        assert reason.startswith("refused with 400: ")
        assert reason.endswith(f': 127.0.0.1 "{request}"')
    assert 'GET /a\\xffb HTTP/1.1"' in accesses[-2]
    assert accesses[-1].startswith('127.0.0.1 "\\x16\\x03\\x01\\x00')
