"""The access log's forms, requests' ids, and files that are opened anew."""

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

import bide
from bide.errors import SettingError
from bide.exchange.identity import trace_of
from bide.exchange.messages import Request
from bide.serving import lines, stamps
from bide.serving.access_log import FIELDS, Entry, form_of
from bide.serving.formatters import JSONFormatter, LineFormatter
from bide.serving.lines import Writer
from bide.serving.logs import MarkedRecords
from bide.serving.request_ids import RequestIds
from bide.waiting.times import Sums
from tests.conftest import Serve
from tests.failures import Failures
from tests.served import DEADLINE, Environ, Log

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def entry(status: int | None = 200) -> Entry:
    """Return an entry."""
    made = Entry("192.0.2.1", "GET /a?b HTTP/1.1", status, 1234)
    made.method, made.target, made.version = "GET", "/a?b", "1.1"
    made.sums = Sums(0.25, 0.125, 0.5, 0.0)
    return made


def test_an_entry_is_written_in_each_form() -> None:
    """A dash stands for what there is not: a Unix socket has no address, a client got no status."""
    nobody = entry(None)
    nobody.client = ""
    with Failures() as failures:
        for form, given, wanted in (
            ("plain", entry(), '192.0.2.1 "GET /a?b HTTP/1.1" 200 1234 0.875s'),
            ("plain", nobody, '- "GET /a?b HTTP/1.1" - 1234 0.875s'),
            (
                "times",
                entry(),
                '192.0.2.1 "GET /a?b HTTP/1.1" 200 1234 0.875s '
                "queued=0.250 running=0.125 waiting=0.500 sending=0.000",
            ),
            ("{client} {{{path}}} {status}", nobody, "- {/a} -"),
            ("{request_id} {trace_id} {agent} {thread}", entry(), "- - - -"),
            (
                "{method} {target} {version} {bytes} {seconds} "
                "{queued} {running} {waiting} {sending}",
                entry(),
                "GET /a?b 1.1 1234 0.875 0.250 0.125 0.500 0.000",
            ),
            ("{process}", entry(), str(os.getpid())),
        ):
            with failures.of(form):
                assert form_of(form)(given) == wanted


def test_a_wrong_form_is_the_deployers_mistake() -> None:
    """In one line, with what there is instead."""
    with Failures() as failures:
        for form, wanted in (
            ("", "it may be plain, times, json, or a text with fields like {client}"),
            ("common", "it may be plain, times, json, or a text with fields like {client}"),
            ("{clinet}", "did you mean {client}?"),
            ("{zzz}", f"the fields are {', '.join(FIELDS)}"),
            ("{}", "the fields are"),
            ("{client!r}", "a field has a name and nothing else"),
            ("{client:>3}", "a field has a name and nothing else"),
            ("{client", "access_format is '{client': "),
        ):
            with failures.of(form), pytest.raises(SettingError) as caught:
                form_of(form)
            with failures.of(f"{form}: the message"):
                assert wanted in str(caught.value)
                assert "\n" not in str(caught.value)


def hello(environ: Environ, start_response: Any) -> list[bytes]:
    """Answer with what identifies the request."""
    logging.getLogger("shop").warning("in the view")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr([environ.get("bide.request_id"), environ.get("HTTP_X_REQUEST_ID")]).encode()]


def test_lines_in_json_have_one_schema(serve: Serve, log: Log) -> None:
    """Of a request that was answered, and of one that was refused; whatever the client sends."""
    served = serve(hello, access_format="json", request_id="X-Request-ID")
    served.get(
        '/"\\x?y',
        headers=(
            'User-Agent: a"b\\u0022\x9b',
            "Referer: there",
            f"traceparent: {PARENT}",
            "X-Request-ID: forged",
        ),
    )
    one = json.loads(log.take('"status": 200').getMessage())
    client = served.connect()
    client.send(b"GET /\x01 HTTP/1.1\r\n\r\n")
    assert client.response().status == 400
    text = log.take('"status": 400').getMessage()
    assert text.isascii()
    other = json.loads(text)
    assert list(one) == list(other)
    assert (one["method"], one["target"], one["bytes"] > 0) == ("GET", '/"\\x?y', True)
    assert (one["agent"], one["referer"]) == ('a"b\\u0022\x9b', "there")
    assert one["trace_id"] == TRACE
    assert re.fullmatch("[0-9a-f]{20}", one["request_id"])
    assert one["seconds"] == pytest.approx(
        sum(one[each] for each in ("queued", "running", "waiting", "sending")), abs=1e-5
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", one["time"])
    assert (other["method"], other["target"]) == ("", "GET /\\x01 HTTP/1.1")


def test_a_request_has_an_id_wherever_it_is_looked_for(serve: Serve, log: Log) -> None:
    """In the environ, in the response, in the log; on a thread of the application's, too.

    What an untrusted client sends as its id is replaced.
    """
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(MarkedRecords(before))
    told: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record)

    keeping = Keeping()
    logging.getLogger("shop").addHandler(keeping)
    seen: list[str] = []

    async def waited() -> None:
        seen.append(bide.request_id())

    def application(environ: Environ, start_response: Any) -> Any:
        record = logging.LogRecord("bide", logging.INFO, __file__, 1, "a\nb", (), None)
        seen.append(LineFormatter("%(message)s").format(record).splitlines()[0])
        bide.wait(waited())
        bide.wait(bide.in_thread(lambda: seen.append(bide.request_id())))
        seen.append(bide.request_id())
        return hello(environ, start_response)

    try:
        served = serve(application, access_format="{request_id}", request_id="X-Request-ID")
        answer = served.get("/", headers=["X-Request-ID: forged"])
    finally:
        logging.setLogRecordFactory(before)
        logging.getLogger("shop").removeHandler(keeping)
    given = answer.header("x-request-id")
    assert given
    assert given != "forged"
    assert answer.body.decode() == repr([given, given])
    assert seen == [f"a [{given}]", *[given] * 3]
    assert [each.__dict__["request_id"] for each in told] == [given]
    assert log.take(given).getMessage() == given
    assert bide.request_id() == ""


def test_an_applications_own_header_with_an_id_stays(serve: Serve) -> None:
    """There is one such header."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("x-request-id", "mine")])
        return [b""]

    served = serve(application, request_id="X-Request-ID")
    assert served.get("/").all("x-request-id") == ["mine"]


def asked(*headers: tuple[bytes, bytes]) -> Request:
    """Return a request with headers."""
    return Request("GET", b"/", b"/", b"", "1.1", list(headers))


def test_an_id_is_taken_only_from_whom_it_may_come() -> None:
    """And only a plain one: it stands in logs and in headers."""
    ids = RequestIds("X-Request-ID")
    name = b"x-request-id"
    assert ids.identify(asked((name, b"abc-1")), trusted=True).id == "abc-1"
    made = [
        ids.identify(request, trusted).id
        for request, trusted in (
            (asked((name, b"abc-1")), False),
            (asked(), True),
            (asked((name, b"a b")), True),
            (asked((name, b'a"')), True),
            (asked((name, b"")), True),
            (asked((name, b"x" * 129)), True),
            (asked((name, b"a"), (name, b"b")), True),
        )
    ]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[0-9a-f]{20}", each) for each in made)


def test_a_header_that_cannot_carry_an_id_is_refused() -> None:
    """When the server is made."""
    with Failures() as failures:
        for name in ("Connection", "Date", "Server", "Content-Length", "Upgrade", "X_Id", "a b"):
            with failures.of(name), pytest.raises(SettingError, match=f"request_id is '{name}'"):
                bide.Server(hello, request_id=name)


def test_a_trace_is_known_by_a_right_header_alone() -> None:
    """W3C Trace Context, section 3.2."""
    later = PARENT.replace("00-", "cc-", 1)
    with Failures() as failures:
        for value, wanted in (
            (PARENT, TRACE),
            (f"{later}-more", TRACE),
            (f"{PARENT}-more", ""),
            (PARENT.replace("00-", "ff-", 1), ""),
            (PARENT.upper(), ""),
            (PARENT[:-1], ""),
            (f"{later}more", ""),
            (PARENT.replace("00-", "0-", 1), ""),
            (PARENT.replace("-", "_"), ""),
            (PARENT.replace("b7-", "bg-"), ""),
            (f"{PARENT[:-2]}0G", ""),
            (f"{PARENT[:-2]}ff", TRACE),
            (f" {PARENT}", ""),
            (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
            (f"00-{TRACE}-{'0' * 16}-01", ""),
            ("", ""),
        ):
            with failures.of(value):
                assert trace_of(asked((b"Traceparent", value.encode()))) == wanted
        with failures.of("two"):
            assert trace_of(asked(*[(b"traceparent", PARENT.encode())] * 2)) == ""


def test_a_record_in_json_is_one_line_with_its_traceback() -> None:
    """What a client wrote into an error stays inside a string."""
    record = logging.LogRecord("bide", logging.ERROR, __file__, 1, "it %s", ("failed\n{",), None)
    try:
        raise ValueError('\n{"level": "info"}\x9b')
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    line = JSONFormatter().format(record)
    assert line.isascii()
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["message"]) == (
        "error",
        "bide",
        "it failed\n{",
    )
    assert '\n{"level": "info"}' in fields["error"]
    assert "request_id" not in fields


def test_a_stamp_has_a_zone_and_changes_with_it() -> None:
    """A second's text is made once."""
    first = stamps.stamp(1_700_000_000.5)
    assert re.fullmatch(r"2023-11-1\d \d\d:\d\d:20\.500[+-]\d\d:\d\d", first)
    assert stamps.stamp(1_700_000_000.75) == first.replace(".500", ".750")
    assert stamps.stamp(1_700_000_001.0)[17:23] == "21.000"
    assert stamps.stamp(1_700_000_001.0, "T")[10] == "T"


def test_a_renamed_file_is_opened_anew(tmp_path: Path) -> None:
    """Lines from then on are in the new file; none is lost, and none is in both."""
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    writer = Writer(str(path), "the access log")
    writer.put("one\n")
    assert writer.flush(DEADLINE)
    path.rename(old)
    writer.put("two\n")
    assert writer.flush(DEADLINE)
    lines.reopen()
    assert writer.flush(DEADLINE)
    assert path.exists()  # at once, and not with the next line
    writer.put("three\n")
    assert writer.flush(DEADLINE)
    assert old.read_text() == "one\ntwo\n"
    assert path.read_text() == "three\n"


def test_a_file_that_cannot_be_opened_anew_is_written_to_as_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so."""
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "access.log"
    writer = Writer(str(path), "the access log")
    writer.put("one\n")
    assert writer.flush(DEADLINE)
    directory.rename(tmp_path / "away")
    writer.reopen()
    writer.put("two\n")
    assert writer.flush(DEADLINE)
    assert (tmp_path / "away" / "access.log").read_text() == "one\ntwo\n"
    (record,) = caplog.records
    assert record.getMessage() == (
        f"cannot open the access log again, and write to the old file: {path}: "
        "No such file or directory"
    )
