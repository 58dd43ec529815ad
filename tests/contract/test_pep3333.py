"""PEP 3333 over a real connection, for both executors: each statement of it is a test."""

import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from werkzeug import Request, Response

from bide import wait
from bide.errors import LocalProtocolError
from tests import http2
from tests.conftest import Serve
from tests.served import (
    Application,
    Closing,
    Environ,
    Gate,
    Log,
    answering,
    happened,
    request,
    until,
)

PLAIN = [("Content-Type", "text/plain")]
HEAD = pytest.mark.parametrize("method", ["GET", "HEAD"])


def error() -> Any:
    """Return an exc_info, as an application in its `except` has it."""
    try:
        raise LookupError("the first attempt failed")
    except LookupError:
        return sys.exc_info()


# start_response ------------------------------------------------------------------------------


def test_the_head_is_sent_as_the_application_gave_it(serve: Serve) -> None:
    """Status, reason, the order and the spelling of the headers, one header twice."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("299 Quite Good", [("X-b", "1"), ("X-A", "ä"), ("X-b", "2")])
        return [b"x"]

    response = serve(application).get()
    assert response.status == 299
    assert http2.wanted() or response.reason == "Quite Good"  # HTTP/2 has no reasons
    names = ["x-b", "x-a", "x-b"] if http2.wanted() else ["X-b", "X-A", "X-b"]
    assert response.headers[:3] == list(zip(names, ["1", "ä", "2"], strict=True))
    assert response.header("Date")
    assert response.header("Server") == "bide"


def test_date_and_server_are_the_application_s_where_it_gives_them(serve: Serve) -> None:
    """Each comes once."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("date", "then"), ("SERVER", "mine")])
        return [b"x"]

    response = serve(application).get()
    assert response.header("Date") == "then"
    assert response.header("Server") == "mine"


def test_exc_info_replaces_the_head_before_the_first_block(serve: Serve) -> None:
    """Nothing of the first head is sent, though it was given."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-First", "1"), ("Content-Length", "99")])
        start_response("503 Later", [("X-Second", "2")], error())
        return [b"x"]

    response = serve(application).get()
    assert (response.status, response.body) == (503, b"x")
    assert response.header("X-First") is None
    assert response.header("X-Second") == "2"
    assert response.header("Content-Length") == "1"


def test_exc_info_replaces_the_head_after_empty_blocks(serve: Serve) -> None:
    """An empty block sends nothing, and so it is not too late."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b""
        start_response("503 Later", PLAIN, error())
        yield b"x"

    assert serve(application).get().status == 503


def test_exc_info_without_a_head_before_starts_the_response(serve: Serve) -> None:
    """An error handler may be the first to call."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("503 Later", PLAIN, error())
        return [b"x"]

    assert serve(application).get().status == 503


def test_exc_info_is_raised_again_after_the_first_block(serve: Serve, log: Log) -> None:
    """The very error that was given, with its traceback; the response is cut."""
    raised: list[BaseException] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun"
        info = error()
        try:
            start_response("503 Later", PLAIN, info)
        except LookupError as again:
            raised.extend([info[1], again])
            raise

    response = serve(application).get()
    assert (response.status, response.body, response.complete) == (200, b"begun", False)
    record = log.failure()
    assert record.exc_info is not None
    assert raised == [record.exc_info[1]] * 2


def test_exc_info_is_raised_again_after_write(serve: Serve, log: Log) -> None:
    """What `write` sent has the head before it."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)(b"begun")
        start_response("503 Later", PLAIN, error())
        return []

    response = serve(application).get()
    assert (response.status, response.body, response.complete) == (200, b"begun", False)
    log.failure()


def test_exc_info_may_be_caught_and_the_response_go_on(serve: Serve) -> None:
    """It is too late for another head, and the application knows."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun, "
        try:
            start_response("503 Later", PLAIN, error())
        except LookupError:
            yield b"and ended"

    response = serve(application).get()
    assert (response.body, response.complete) == (b"begun, and ended", True)


@pytest.mark.parametrize("sent", [False, True])
def test_start_response_twice_without_exc_info_is_an_error(
    serve: Serve, log: Log, sent: bool
) -> None:
    """Whether or not the first head has been sent."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        if sent:
            yield b"begun"
        start_response("200 OK", PLAIN)
        yield b"x"

    response = serve(application).get()
    assert "start_response" in str(log.failure().exc_info)
    if sent:
        assert (response.status, response.complete) == (200, False)
    else:
        assert (response.status, response.complete) == (500, True)


def told(log: Log) -> str:
    """Take the line about an application that failed; a host may have put the error behind it."""
    record = log.take("the application failed")
    return f"{record.getMessage()} {record.exc_info[1] if record.exc_info else ''}"


def never_starting() -> list[Application]:
    def listed(environ: Environ, start_response: Any) -> list[bytes]:
        return [b"x"]

    def empty(environ: Environ, start_response: Any) -> list[bytes]:
        return []

    def generator(environ: Environ, start_response: Any) -> Iterator[bytes]:
        yield b"x"

    def empties(environ: Environ, start_response: Any) -> Iterator[bytes]:
        yield b""

    return [listed, empty, generator, empties]


@pytest.mark.parametrize("application", never_starting(), ids=lambda each: each.__name__)
def test_a_response_that_was_never_started_is_an_error(
    serve: Serve, log: Log, application: Application
) -> None:
    """500, and the log says what is missing."""
    response = serve(application).get()
    assert (response.status, response.body) == (500, b"Internal Server Error\n")
    line = told(log)
    assert f"{application.__module__}.{application.__qualname__} returned " in line
    assert "start_response has not been called: call start_response(" in line


def test_empty_blocks_may_come_before_start_response(serve: Serve) -> None:
    """As middleware yields that is not yet ready; the head is sent with the first block."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        yield b""
        yield b""
        start_response("504 Late", PLAIN)
        yield b""
        yield b"x"

    response = serve(application).get()
    assert (response.status, response.body) == (504, b"x")


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nX: y", []),
        ("200 O\nK", []),
        ("OK", []),
        ("20", []),
        ("99 Low", []),
        (200, []),
        (b"200 OK", []),
        ("200 OK", [("X", "a\r\nSet-Cookie: b")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X", "a\0b")]),
        ("200 OK", [("X\r\nY", "a")]),
        ("200 OK", [("X Y", "a")]),
        ("200 OK", [("", "a")]),
        ("200 OK", [("X", 7)]),
        ("200 OK", [("X", b"a")]),
        ("200 OK", [(b"X", "a")]),
        ("200 OK", [("X", "\u20ac")]),
        ("200 \u20ac", []),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "1"), ("content-length", "1")]),
        ("200 OK", [("Connection", "upgrade")]),
        ("200 OK", {"X": "a"}),
        ("200 OK", [7]),
        ("200 OK", None),
        ("200 OK", [("Transfer-Encoding", "chunked")]),
        ("200 OK", [("Keep-Alive", "1")]),
        ("200 OK", [("Upgrade", "websocket")]),
    ],
    ids=repr,
)
def test_a_head_that_must_not_be_sent_is_refused_at_the_call(
    serve: Serve, log: Log, status: Any, headers: Any
) -> None:
    """Nothing of it reaches the client, who gets a 500."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response(status, headers)
        return [b"x"]

    response = serve(application).get()
    assert (response.status, response.header("X"), response.header("Set-Cookie")) == (
        500,
        None,
        None,
    )
    info = log.failure().exc_info
    assert info is not None
    assert info[0] is LocalProtocolError


def test_a_connection_header_is_dropped_and_logged_once(serve: Serve, log: Log) -> None:
    """As recipes for server-sent events, and views that pass a server's answer on, have it."""

    class Proxy:
        def __call__(self, environ: Environ, start_response: Any) -> list[bytes]:
            start_response("200 OK", [("connection", "keep-alive"), ("X", "a")])
            return [b"x"]

    Proxy.__qualname__ = f"Proxy{uuid.uuid4().hex}"  # of no other test
    served = serve(Proxy())
    for _ in range(2):
        response = served.get()
        assert (response.status, response.header("X"), response.body) == (200, "a", b"x")
    record = log.take("gave the header 'Connection: keep-alive'")
    assert Proxy.__qualname__ in record.getMessage()
    assert log.find("gave the header") is None


def test_a_refused_head_can_be_caught_and_replaced(serve: Serve) -> None:
    """An error handler above answers."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        try:
            start_response("200 OK", [("X", "a\nb")])
        except Exception:
            start_response("502 Handled", PLAIN, sys.exc_info())
        return [b"x"]

    assert serve(application).get().status == 502


# The body ------------------------------------------------------------------------------------


def test_one_block_in_a_list_has_its_length(serve: Serve) -> None:
    """And so has none, and one in a tuple."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        chosen: Iterable[bytes] = {"/list": [b"12"], "/tuple": (b"12",), "/none": []}[
            environ["PATH_INFO"]
        ]
        return chosen

    served = serve(application)
    assert served.get("/list").header("Content-Length") == "2"
    assert served.get("/tuple").header("Content-Length") == "2"
    assert served.get("/none").header("Content-Length") == "0"


def in_blocks(environ: Environ, start_response: Any) -> list[bytes]:
    """Answer with several, of which one is empty."""
    start_response("200 OK", PLAIN)
    return [b"1", b"", b"22", b"333"]


def test_several_blocks_are_chunked_each_as_it_is(serve: Serve) -> None:
    """To HTTP/1.1."""
    response = serve(in_blocks).get()
    assert response.header("Transfer-Encoding") == "chunked"
    assert response.chunks == [b"1", b"22", b"333"]


def test_several_blocks_go_to_an_old_client_as_they_are(serve: Serve) -> None:
    """The connection's end ends them."""
    old = serve(in_blocks).get(version="1.0")
    assert (old.header("Transfer-Encoding"), old.body) == (None, b"122333")


def test_a_length_that_was_given_is_kept(serve: Serve) -> None:
    """And the blocks are not chunked."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        return [b"1", b"22"]

    response = serve(application).get()
    assert (response.header("Content-Length"), response.body) == ("3", b"122")
    assert response.header("Transfer-Encoding") is None


def test_each_block_is_sent_before_the_next_is_asked_for(serve: Serve) -> None:
    """The generator goes on only once the client has the block before."""
    gates = [Gate() for _ in range(5)]

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for number, gate in enumerate(gates):
            yield b"%d" % number
            wait(gate.promise())

    client = serve(application).request()
    client.head()
    for number, gate in enumerate(gates):
        assert client.chunk() == b"%d" % number
        gate.open()
    assert client.chunk() == b""


@pytest.mark.parametrize("executor", ["threads"])
def test_each_block_is_sent_while_the_application_blocks(serve: Serve) -> None:
    """No turn of the loop is needed for it."""
    events = [threading.Event() for _ in range(5)]

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for number, event in enumerate(events):
            yield b"%d" % number
            happened(event)

    client = serve(application).request()
    client.head()
    for number, event in enumerate(events):
        assert client.chunk() == b"%d" % number
        event.set()
    assert client.chunk() == b""


@pytest.mark.parametrize("pause", ["wait", "block"])
@pytest.mark.parametrize("how", ["yield", "write"])
def test_many_blocks_that_come_fast_are_all_sent_while_the_application_pauses(
    serve: Serve, executor: str, pause: str, how: str
) -> None:
    """Those that were held to leave together, too; in order, each as it is."""
    if pause == "block" and executor == "loop":
        pytest.skip("nothing may block the loop")
    gate, event = Gate(), threading.Event()
    blocks = [b"%d" % number for number in range(300)]

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", PLAIN)
        for block in blocks:
            if how == "yield":
                yield block
            else:
                write(block)
        if pause == "wait":
            wait(gate.promise())
        else:
            happened(event)
        yield b"end"

    client = serve(application).request()
    client.head()
    assert [client.chunk() for _ in blocks] == blocks
    gate.open()
    event.set()
    assert [client.chunk() for _ in range(2)] == [b"end", b""]


def test_the_head_waits_for_the_first_block(serve: Serve) -> None:
    """PEP 3333: until then the application may change its mind."""
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        wait(gate.promise())
        start_response("503 Later", PLAIN, error())
        yield b"x"

    served = serve(application)
    client = served.request()
    served.until_waiting(1)
    assert client.is_silent()
    gate.open()
    assert client.response().status == 503


@pytest.mark.parametrize(
    "block", ["text", 7, None, bytearray(b"x"), memoryview(b"x")], ids=lambda it: type(it).__name__
)
def test_a_block_that_is_not_bytes_is_a_type_error_at_the_yield(serve: Serve, block: Any) -> None:
    """Where a generator can catch it."""

    def application(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", PLAIN)
        try:
            yield block
        except TypeError as error:
            yield str(error).encode()

    name = type(block).__name__
    assert f" yielded {block!r} ({name})".encode() in serve(application).get().body


@pytest.mark.parametrize("blocks", [["text"], ["text", "more"], [b"begun", "text"]])
def test_blocks_that_are_not_bytes_fail_the_application(
    serve: Serve, log: Log, blocks: Any
) -> None:
    """A list has no yield."""

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return blocks

    response = serve(application).get()
    log.failure()
    if blocks[0] == b"begun":
        assert (response.status, response.complete) == (200, False)
    else:
        assert response.status == 500


def test_a_subclass_of_bytes_is_bytes(serve: Serve) -> None:
    """In a list, in a generator, by `write`."""

    class Bytes(bytes):
        pass

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", PLAIN)
        write(Bytes(b"1"))
        yield Bytes(b"2")

    def listed(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        return [Bytes(b"12")]

    assert serve(application).get().body == b"12"
    assert serve(listed).get().body == b"12"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "returned None: return an iterable of bytes"),
        (7, "returned 7 (int): return an iterable of bytes"),
        ("text", "returned 'text' (str): encode it"),
        (b"data", "returned b'data' (bytes): return it in a list"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_what_is_no_iterable_of_bytes_fails_the_application(
    serve: Serve, log: Log, result: Any, said: str
) -> None:
    """None, too, unless `finish` was taken: one line names it, and what to return."""

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return result

    assert serve(application).get().status == 500
    assert f"{application.__qualname__} {said}" in told(log)


def test_write_sends_before_the_iterable_does(serve: Serve) -> None:
    """At once, in order; the iterable goes on behind it."""
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"1")
        write(b"")
        wait(gate.promise())
        write(b"2")
        return [b"3", b"4"]

    client = serve(application).request()
    client.head()
    assert client.chunk() == b"1"
    gate.open()
    assert [client.chunk() for _ in range(4)] == [b"2", b"3", b"4", b""]


def test_write_alone_makes_a_body(serve: Serve) -> None:
    """With an empty iterable behind it, and with a length."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "4")])
        write(b"12")
        write(b"34")
        return []

    response = serve(application).get()
    assert (response.body, response.complete) == (b"1234", True)


@pytest.mark.parametrize("data", ["text", 7, None, bytearray(b"x")], ids=repr)
def test_write_takes_nothing_but_bytes(serve: Serve, data: Any) -> None:
    """TypeError at the call."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        try:
            write(data)
        except TypeError as error:
            return [str(error).encode()]
        return []

    assert b"write() takes bytes" in serve(application).get().body


def test_write_after_the_end_is_refused(serve: Serve) -> None:
    """The next response on the connection is not mixed with it."""
    kept: list[Any] = []
    raised: list[str] = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/second":
            try:
                kept[0](b"late")
            except Exception as error:
                raised.append(str(error))
        kept.append(start_response("200 OK", PLAIN))
        return [b"x"]

    client = serve(application).request("/first")
    assert client.response().body == b"x"
    client.send(request("/second"))
    assert client.response().body == b"x"
    assert raised == ["the response has ended"]


@pytest.mark.parametrize("extra", [b"3", b"345"])
def test_more_than_content_length_is_an_error_and_not_sent(
    serve: Serve, log: Log, extra: bytes
) -> None:
    """The client has what was announced, and the connection ends."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"12", extra]

    client = serve(application).request()
    assert client.rest().endswith(b"\r\n\r\n12")
    assert "longer than its Content-Length" in str(log.failure().exc_info)


def test_less_than_content_length_is_an_error_and_cut(serve: Serve, log: Log) -> None:
    """The client must not take it for all, nor wait for more."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        return [b"1", b"2"]

    response = serve(application).get()
    assert (response.body, response.complete) == (b"12", False)
    assert "ended after 2 bytes" in str(log.failure().exc_info)


def test_a_single_block_of_the_wrong_length_is_a_500(serve: Serve, log: Log) -> None:
    """Nothing was sent yet."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", environ["QUERY_STRING"])])
        return [b"12"]

    served = serve(application)
    for length in ("1", "3"):
        assert served.get(f"/?{length}").status == 500
        log.failure()


def test_responses_without_a_body_have_none(serve: Serve) -> None:
    """204 and 304, and to HEAD: whatever the application yields; the connection goes on."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response(environ["QUERY_STRING"].replace("+", " "), [("ETag", '"1"')])
        yield b"not to be"
        yield b"sent"

    served = serve(application)
    client = served.connect()
    for method, status in [("GET", "204+None"), ("GET", "304+Same"), ("HEAD", "200+OK")]:
        client.send(request(f"/?{status}", method=method))
        response = client.response(method)
        assert response.status == int(status[:3])
        assert response.header("ETag") == '"1"'
        assert response.header("Transfer-Encoding") is None or method == "HEAD"
    client.send(request("/?200+OK"))
    assert client.response().body == b"not to besent"


def test_head_of_a_list_has_the_length_that_get_would_have(serve: Serve) -> None:
    """Of one block; a length that was given is kept."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        given = environ["QUERY_STRING"]
        start_response("200 OK", [("Content-Length", given)] if given else PLAIN)
        return [b"12345"]

    served = serve(application)
    assert served.get("/", method="HEAD").header("Content-Length") == "5"
    assert served.get("/?5", method="HEAD").header("Content-Length") == "5"


# close ---------------------------------------------------------------------------------------


Ending = Callable[[Any], Iterable[Any]]


def test_close_is_called_once_when_all_was_sent(serve: Serve) -> None:
    """After the last block, on the conversation's thread."""
    iterables: list[Closing] = []
    threads: list[int] = []

    def application(environ: Environ, start_response: Any) -> Closing:
        threads.append(threading.get_ident())
        start_response("200 OK", PLAIN)
        iterables.append(Closing([b"1", b"2"]))
        return iterables[0]

    served = serve(application)
    assert served.get().body == b"12"
    served.until_idle()
    assert iterables[0].threads == threads


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "204 None", "304 Same"])
@pytest.mark.parametrize("blocks", [[], [b"1"], [b"", b"1", b"2"]], ids=repr)
def test_close_is_called_once_whatever_the_response(
    serve: Serve, method: str, status: str, blocks: list[bytes]
) -> None:
    """With and without a body."""
    iterable = Closing(blocks)

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response(status, PLAIN)
        return iterable

    served = serve(application)
    assert served.get(method=method).complete
    happened(iterable.closed)
    served.until_idle()
    assert iterable.count == 1


@pytest.mark.parametrize("before", [[], [b"1"]], ids=repr)
def test_close_is_called_once_when_the_iteration_fails(
    serve: Serve, log: Log, before: list[bytes]
) -> None:
    """Before and after the head was sent."""

    def failing() -> Iterator[bytes]:
        yield from before
        raise LookupError("no")

    iterable = Closing(failing())

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", PLAIN)
        return iterable

    served = serve(application)
    assert served.get().complete is not bool(before)
    served.until_idle()
    assert iterable.count == 1
    log.failure()


def test_close_is_called_once_when_sending_fails(serve: Serve, log: Log) -> None:
    """A block too many: the error is raised in the server, not in the iterable."""
    iterable = Closing([b"1", b"2"])

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", [("Content-Length", "1")])
        return iterable

    served = serve(application)
    served.get()
    served.until_idle()
    assert iterable.count == 1
    log.failure()


def test_close_is_called_once_when_the_client_leaves(serve: Serve) -> None:
    """While the iteration waits."""
    gate = Gate()

    def waiting() -> Iterator[bytes]:
        yield b"1"
        wait(gate.promise())

    iterable = Closing(waiting())

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", PLAIN)
        return iterable

    served = serve(application)
    client = served.request()
    client.head()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert iterable.count == 1


def test_close_is_called_once_when_the_server_stops(serve: Serve, log: Log) -> None:
    """After the time to finish is over, on the conversation's own thread."""
    threads: list[int] = []

    def waiting() -> Iterator[bytes]:
        threads.append(threading.get_ident())
        yield b"1"
        wait(Gate().promise())

    iterable = Closing(waiting())

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", PLAIN)
        return iterable

    served = serve(application, graceful_timeout=0.05)
    client = served.request()
    client.head()
    served.until_waiting(1)
    served.begin_stop()
    log.take("they are cancelled")
    served.join(leaving=True)
    assert iterable.threads == threads


def test_a_generator_s_finally_runs_before_the_connection_is_used_again(serve: Serve) -> None:
    """`close` belongs to the request: of two on one connection they do not overlap."""
    running: list[str] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        running.append(environ["PATH_INFO"])
        start_response("200 OK", PLAIN)
        try:
            yield b"1"
            yield b"2"
        finally:
            running.remove(environ["PATH_INFO"])

    served = serve(application)
    client = served.connect()
    for number in range(3):
        client.send(request(f"/{number}", method="HEAD"))
        assert client.response("HEAD").complete
    served.until_idle()
    assert running == []


def test_an_error_in_close_is_logged_and_the_response_stays(serve: Serve, log: Log) -> None:
    """It was complete; the next request is served."""

    class Failing(Closing):
        def close(self) -> None:
            super().close()
            raise LookupError("no")

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", PLAIN)
        return Failing([b"1"])

    client = serve(application).request("/path")
    for _ in range(2):
        response = client.response()
        assert (response.status, response.body, response.complete) == (200, b"1", True)
        record = log.take("failed in close()")
        assert "GET /path" in record.getMessage()
        client.send(request("/path"))
    client.response()
    log.take("failed in close()")


def test_a_generator_that_swallows_generator_exit_is_left(serve: Serve, log: Log) -> None:
    """Python's RuntimeError is logged, and the request ends."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        try:
            yield b"x"
        except GeneratorExit:
            yield b"not yet"

    served = serve(application)
    assert served.get(method="HEAD").complete
    record = log.take("failed in close()")
    assert record.exc_info is not None
    assert "ignored GeneratorExit" in str(record.exc_info[1])
    served.until_idle()


# environ -------------------------------------------------------------------------------------


def test_the_environ_tells_the_request(serve: Serve) -> None:
    """Types and values as PEP 3333 and CGI have them."""
    environs: list[Environ] = []
    served = serve(answering(environs.append))
    client = served.connect()
    client.send(
        b"POST /a%20b/%E4%C3%A4/c?x=%20&y HTTP/1.1\r\nHost: name:81\r\nX-One-Two: 1\r\n"
        b"x-one-two: 2\r\nCookie: a=1\r\nCookie: b=2\r\nX_Sly: 3\r\nProxy: 4\r\n"
        b"Content-Type: text/x\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert client.response().status == 200
    host, _, port = served.address.rpartition(":")
    environ = environs[0]
    assert type(environ) is dict
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/\xe4\xc3\xa4/c",
        "QUERY_STRING": "x=%20&y",
        "RAW_URI": "/a%20b/%E4%C3%A4/c?x=%20&y",
        "REQUEST_URI": "/a%20b/%E4%C3%A4/c?x=%20&y",
        "SERVER_PROTOCOL": "HTTP/2" if http2.wanted() else "HTTP/1.1",
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(client.sock.getsockname()[1]),
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "3",
        "HTTP_HOST": "name:81",
        "HTTP_X_ONE_TWO": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http" if served.context is None else "https",
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {name: environ.get(name) for name in expected} == expected
    assert not any(name.startswith("HTTP_X_SLY") or name == "HTTP_PROXY" for name in environ)
    assert all(type(environ[name]) is str for name in environ if name.isupper())


@pytest.mark.parametrize(
    ("threads", "multithread"), [(1, {"threads": False, "loop": False}), (2, {"threads": True})]
)
def test_multithread_tells_the_truth(
    serve: Serve, executor: str, threads: int, multithread: dict[str, bool]
) -> None:
    """Whether another thread may call the application meanwhile."""
    environs: list[Environ] = []
    served = serve(answering(environs.append), threads=threads)
    assert served.get().status == 200
    assert environs[0]["wsgi.multithread"] is multithread.get(executor, False)


def test_each_request_has_an_environ_of_its_own(serve: Serve) -> None:
    """What one puts in, or takes out, the next on the connection does not see."""
    environs: list[Environ] = []

    def answer(environ: Environ) -> None:
        environs.append(dict(environ))
        environ.clear()
        environ["mine"] = 1

    client = serve(answering(answer)).request()
    client.response()
    client.send(request())
    assert client.response().status == 200
    assert set(environs[0]) == set(environs[1])


def test_wsgi_errors_is_a_text_stream(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    """It goes to standard error."""

    def answer(environ: Environ) -> None:
        errors = environ["wsgi.errors"]
        errors.write("wärning\n")
        errors.writelines(["two\n", "three\n"])
        print("four", file=errors)
        errors.flush()

    assert serve(answering(answer)).get().status == 200
    assert capfd.readouterr().err.endswith("wärning\ntwo\nthree\nfour\n")


def test_the_status_and_the_departure_can_be_asked_for(serve: Serve) -> None:
    """Bide's own two keys."""

    def answer(environ: Environ) -> str:
        return f"{environ['bide.status']().running} {environ['bide.disconnected']()}"

    assert serve(answering(answer)).get().text == "1 False"


# The validator ---------------------------------------------------------------------------------


def listed(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", PLAIN)
    return [b"1", b"2"]


def generated(environ: Environ, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", PLAIN)
    yield b"1"
    yield b"2"


def written(environ: Environ, start_response: Any) -> list[bytes]:
    write = start_response("200 OK", PLAIN)
    write(b"1")
    return [b"2"]


def closing(environ: Environ, start_response: Any) -> Closing:
    start_response("200 OK", PLAIN)
    return Closing([b"1", b"2"])


def reading(environ: Environ, start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"]
    blocks = [body.read(1), body.readline(), *body.readlines(), *body, body.read(10)]
    start_response("200 OK", PLAIN)
    return [b"".join(blocks)]


def replaced(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", PLAIN)
    start_response("500 Failed", PLAIN, error())
    return [b"12"]


class Instance:
    """An application in the shape of an object."""

    def __call__(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Answer."""
        return listed(environ, start_response)


class Class:
    """An application in the shape of a class, whose instance is the iterable."""

    def __init__(self, environ: Environ, start_response: Any) -> None:
        start_response("200 OK", PLAIN)

    def __iter__(self) -> Iterator[bytes]:
        yield b"12"


@pytest.mark.parametrize(
    "application",
    [listed, generated, written, closing, reading, replaced, Instance(), Class],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_the_validator_finds_nothing(serve: Serve, application: Application) -> None:
    """The standard library's, around an application of each plain kind."""
    served = serve(validator(application))
    response = served.get(method="POST", body=b"1\n2")
    assert response.complete
    assert response.body.replace(b"\n", b"") == b"12"
    assert served.get(method="HEAD").complete


def test_a_decorated_application_is_served(serve: Serve) -> None:
    """Werkzeug's decorator makes one of a function that takes a request, by functools.wraps."""

    @Request.application
    def application(request: Request) -> Response:
        return Response(f"{request.method} {request.path}")

    assert serve(application).get("/path").text == "GET /path"


def test_an_unread_body_does_not_end_the_connection(serve: Serve) -> None:
    """What the application left is dropped, and the next request found behind it."""
    served = serve(answering(lambda environ: environ["PATH_INFO"]))
    client = served.connect()
    for path in ("/1", "/2"):
        client.send(request(path, method="POST", body=b"x" * 100_000))
        assert client.response().text == path
    chunked = "Transfer-Encoding: chunked"
    client.send(request("/3", method="POST", headers=[chunked]) + b"5\r\nhello\r\n")
    assert client.response().text == "/3"
    client.send(b"0\r\n\r\n" + request("/4"))
    assert client.response().text == "/4"
    client.close()
    until(lambda: not served.status.connections)
