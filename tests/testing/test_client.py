"""The client of applications' tests: Bide's own conversation, without sockets."""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import flask
import httpx
import pytest

import bide
from bide.testing import Client, IncompleteResponse, LiveServer, Overdue, RedirectError
from tests.served import DEADLINE, Closing, Environ, Gate, Log, answering, happened, until

EXECUTORS = pytest.mark.parametrize("executor", ["threads", "loop"])


pytestmark = pytest.mark.usefixtures("all_ends")


def streaming(blocks: Any) -> Any:
    """Make an application that answers with an iterable."""

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return blocks

    return application


class Holding:
    """An application that holds its thread until the test sets ``go_on``."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()

    def __call__(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Hold the thread, and answer."""
        self.began.set()
        happened(self.go_on)
        start_response("200 OK", [])
        return []


# Requests ---------------------------------------------------------------------------------------


@EXECUTORS
def test_a_client_gives_status_headers_and_body(executor: str) -> None:
    """As they would come over the wire, with the length that a server adds."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("201 Made", [("Content-Type", "application/json"), ("X-A", "1")])
        return [b'{"a": 1}']

    with Client(application, executor=executor) as client:
        response = client.get("/")
    assert (response.status, response.reason) == (201, "Made")
    assert response.headers["x-a"] == "1"
    assert response.headers["content-length"] == "8"
    assert response.headers["None"] is None
    assert (response.body, response.text, response.json()) == (b'{"a": 1}', '{"a": 1}', {"a": 1})


def test_a_request_is_what_a_server_would_make_of_it() -> None:
    """The environ has the path decoded, the query, the headers, and what the test adds."""
    seen: Environ = {}

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return []

    with Client(application, headers={"X-One": "1"}, environ={"REMOTE_USER": "ada"}) as client:
        client.get(
            "/a b/é%2Fc?x=1",
            query={"y": [2, 3]},
            headers=[("X-Two", "2"), ("X-Two", "3")],
            environ={"key": "value"},
        )
    assert seen["PATH_INFO"] == "/a b/é/c".encode().decode("latin-1")
    assert seen["QUERY_STRING"] == "x=1&y=2&y=3"
    assert (seen["HTTP_X_ONE"], seen["HTTP_X_TWO"]) == ("1", "2,3")
    assert (seen["REMOTE_USER"], seen["key"]) == ("ada", "value")
    assert (seen["HTTP_HOST"], seen["SERVER_NAME"], seen["SERVER_PORT"]) == (
        "localhost",
        "localhost",
        "80",
    )
    assert (seen["REMOTE_ADDR"], seen["REQUEST_METHOD"]) == ("127.0.0.1", "GET")
    assert "CONTENT_LENGTH" not in seen


def test_another_base_url_is_another_host() -> None:
    """And another scheme."""
    with Client(
        answering(
            lambda environ: " ".join(
                environ[key] for key in ("wsgi.url_scheme", "HTTP_HOST", "SERVER_PORT")
            )
        ),
        base_url="https://shop.example",
    ) as client:
        assert client.get("/").text == "https shop.example 443"
        assert client.get("http://other.example:81/").text == "http other.example:81 81"


@EXECUTORS
@pytest.mark.parametrize(
    ("options", "kind", "sent"),
    [
        ({"body": b"bytes"}, "", b"bytes"),
        ({"body": "té"}, "", "té".encode()),
        ({"json": {"a": [1]}}, "application/json", b'{"a": [1]}'),
        ({"form": {"a": "b c"}}, "application/x-www-form-urlencoded", b"a=b+c"),
        ({"body": [b"pie", b"", b"ces"]}, "", b"pieces"),
        ({"body": b""}, "", b""),
    ],
    ids=["bytes", "text", "json", "form", "pieces", "empty"],
)
def test_a_body_is_sent(executor: str, options: dict[str, Any], kind: str, sent: bytes) -> None:
    """In each of its forms, with its type where that follows."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("X-Kind", environ.get("CONTENT_TYPE", ""))])
        return [body]

    with Client(application, executor=executor) as client:
        response = client.post("/", **options)
    assert response.body == sent
    assert response.headers["X-Kind"] == kind


@pytest.mark.parametrize("method", ["get", "head", "post", "put", "patch", "delete", "options"])
def test_every_method_has_its_function(method: str) -> None:
    """And a HEAD request is answered without a body, but with its length."""
    with Client(answering(lambda environ: environ["REQUEST_METHOD"])) as client:
        response = getattr(client, method)("/")
    assert response.text == ("" if method == "head" else method.upper())
    assert response.headers["Content-Length"] == str(len(method))


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("no-slash", {}, "must begin with /"),
        ("/", {"headers": {"X": "a\r\nY: b"}}, "cannot be sent"),
        ("/", {"body": b"", "json": {}}, "one of data, json, form and body"),
    ],
)
def test_what_cannot_be_sent_is_refused(path: str, options: dict[str, Any], words: str) -> None:
    """At the line that asks for it."""
    with Client(answering(lambda environ: b"")) as client, pytest.raises(ValueError, match=words):
        client.get(path, **options)


def test_a_client_must_be_open() -> None:
    """It has threads to end: whoever forgets the ``with`` is told."""
    client = Client(answering(lambda environ: b""))
    with pytest.raises(bide.BideError, match="with Client"):
        client.get("/")
    with client:
        pass
    client.close()
    with pytest.raises(bide.BideError, match="with Client"):
        client.get("/")


def test_what_is_no_application_is_refused() -> None:
    """When the client is opened, in Bide's own words."""
    nothing: Any = 1
    with pytest.raises(bide.StartError), Client(nothing):
        pass


# Cookies and redirections -----------------------------------------------------------------------


def test_cookies_are_kept_and_sent_back() -> None:
    """Where their path and their time allow it; and a test can take them away."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        headers = [("Content-Type", "text/plain")]
        if environ["PATH_INFO"] == "/log-in":
            headers += [("Set-Cookie", "session=7; Path=/"), ("Set-Cookie", "deep=1; Path=/deep")]
        elif environ["PATH_INFO"] == "/log-out":
            headers += [("Set-Cookie", "session=; Path=/; Max-Age=0")]
        start_response("200 OK", headers)
        return [environ.get("HTTP_COOKIE", "").encode()]

    with Client(application) as client:
        client.get("/log-in")
        assert client.get("/").text == "session=7"
        assert set(client.get("/deep/er").text.split("; ")) == {"deep=1", "session=7"}
        assert client.get("/", headers={"Cookie": "own=1"}).text == "own=1"
        client.get("/log-out")
        assert client.get("/").text == ""
        client.get("/log-in")
        client.cookies.clear()
        assert client.get("/").text == ""


def redirecting(environ: Environ, start_response: Any) -> list[bytes]:
    """Answer ``/CODE`` with a redirection, ``/round`` with one to itself."""
    path = environ["PATH_INFO"].strip("/")
    if path.isdigit():
        start_response(f"{path} Elsewhere", [("Location", "here?x=1")])
        return [b"elsewhere"]
    if path == "round":
        start_response("302 Found", [("Location", "/round")])
        return []
    start_response("200 OK", [("Content-Type", "text/plain")])
    body = environ["wsgi.input"].read()
    return [f"{environ['REQUEST_METHOD']} {environ['QUERY_STRING']} ".encode() + body]


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (301, b"GET x=1 "),
        (302, b"GET x=1 "),
        (303, b"GET x=1 "),
        (307, b"POST x=1 body"),
        (308, b"POST x=1 body"),
    ],
)
def test_redirections_are_followed_when_asked_for(code: int, answer: bytes) -> None:
    """Else their response is the response."""
    with Client(redirecting) as client:
        assert client.post(f"/{code}", body=b"body").status == code
        assert client.post(f"/{code}", body=b"body", follow_redirects=True).body == answer
    with Client(redirecting, follow_redirects=True) as client:
        assert client.post(f"/{code}", body=b"body").body == answer


def test_redirections_have_an_end() -> None:
    """Those in a circle, and those whose body is spent."""
    with Client(redirecting, follow_redirects=True) as client:
        with pytest.raises(RedirectError, match="more than 20"):
            client.get("/round")
        with pytest.raises(RedirectError, match="iterable"):
            client.post("/307", body=iter([b"once"]))


# Waiting ----------------------------------------------------------------------------------------


@EXECUTORS
def test_requests_wait_side_by_side(executor: str) -> None:
    """On one thread; the status tells how many."""
    gate = Gate()

    def answer(environ: Environ) -> str:
        bide.wait(gate.promise())
        return str(environ["PATH_INFO"])

    with Client(answering(answer), executor=executor, threads=1) as client:
        responses = [client.stream("GET", f"/{number}") for number in range(5)]
        client.until_waiting(5)
        assert client.status().waiting == 5
        gate.open()
        assert [response.text for response in responses] == [f"/{n}" for n in range(5)]
        client.until_waiting(0)


@EXECUTORS
def test_every_kind_of_wait_is_possible(executor: str) -> None:
    """Promises in the iterable, push, coroutines: it is Bide's own conversation."""

    async def later() -> bytes:
        await asyncio.sleep(0)
        return b"promised"

    def yielding(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", [])
        yield later()

    def pushing(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", [])

        def push() -> None:
            write(b"pushed")
            finish()

        threading.Thread(target=push).start()

    async def awaiting(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [await later()]

    for application, body in (
        (yielding, b"promised"),
        (pushing, b"pushed"),
        (awaiting, b"promised"),
    ):
        with Client(application, executor=executor) as client:
            assert client.get("/").body == body


def test_the_application_runs_on_the_executor_that_it_declares() -> None:
    """As on the server; ``wsgi.multithread`` says so."""
    application = answering(
        lambda environ: f"{threading.current_thread().name} {environ['wsgi.multithread']}"
    )
    with Client(application) as client:
        assert client.get("/").text.endswith("True")
    with Client(bide.capable("async")(application)) as client:
        assert client.get("/").text == "bide-test-client False"


def test_requests_from_several_threads_are_made_at_once() -> None:
    """None is behind another, as long as there are lanes."""
    meeting = threading.Barrier(4, timeout=DEADLINE)

    def answer(environ: Environ) -> str:
        meeting.wait()
        return str(environ["PATH_INFO"])

    with (
        Client(answering(answer), threads=4) as client,
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        texts = list(pool.map(lambda n: client.get(f"/{n}").text, range(4)))
    assert texts == ["/0", "/1", "/2", "/3"]


# Streams ----------------------------------------------------------------------------------------


@EXECUTORS
def test_blocks_come_as_they_are_sent(executor: str) -> None:
    """The next one is made when the test has had the one before."""
    gates = [Gate(), Gate()]

    def blocks() -> Iterator[bytes]:
        yield b"one"
        bide.wait(gates[0].promise())
        yield b"two"
        bide.wait(gates[1].promise())
        yield b"three"

    with (
        Client(streaming(blocks()), executor=executor) as client,
        client.stream("GET", "/") as response,
    ):
        assert response.status == 200
        assert next(response) == b"one"
        gates[0].open()
        assert next(response) == b"two"
        assert response.received == b"onetwo"
        gates[1].open()
        assert list(response) == [b"three"]
        assert response.body == b"onetwothree"


@EXECUTORS
def test_leaving_in_the_middle_is_the_clients_departure(executor: str) -> None:
    """The wait raises ClientDisconnected, and close() has been called, once, when ``with`` ends."""
    seen: list[BaseException] = []

    def blocks() -> Iterator[bytes]:
        yield b"one"
        try:
            bide.wait(Gate().promise())
        except BaseException as error:
            seen.append(error)
            raise

    iterable = Closing(blocks())
    with Client(streaming(iterable), executor=executor) as client:
        with client.stream("GET", "/") as response:
            assert next(response) == b"one"
            client.until_waiting(1)
        assert [type(error) for error in seen] == [bide.ClientDisconnected]
        assert iterable.count == 1
        with pytest.raises(IncompleteResponse, match="has left"):
            _ = response.body
    assert iterable.count == 1


@EXECUTORS
def test_leaving_before_the_head_ends_the_request_too(executor: str) -> None:
    """A client may leave at any time."""
    left: list[bool] = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        try:
            bide.wait(Gate().promise())
        finally:
            left.append(environ["bide.disconnected"]())
        return []

    with Client(application, executor=executor) as client:
        with client.stream("GET", "/"):
            client.until_waiting(1)
        assert left == [True]


def test_leaving_need_not_wait_for_the_application() -> None:
    """One whose code runs learns of it when it looks, or sends."""
    began, go_on = threading.Event(), threading.Event()
    saw: list[bool] = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        began.set()
        happened(go_on)
        saw.append(environ["bide.disconnected"]())
        start_response("200 OK", [])
        return [b"too late"]

    with Client(application) as client, client.stream("GET", "/") as response:
        happened(began)
        response.leave()
        until(lambda: response._exchange.stream.gone)
        go_on.set()
    assert saw == [True]


@EXECUTORS
def test_a_client_that_takes_nothing_holds_the_application_up(executor: str) -> None:
    """The window is that of a connection: an endless stream takes no endless memory."""
    made: list[int] = []

    def blocks() -> Iterator[bytes]:
        while True:
            made.append(1)
            yield b"x" * 16384

    with (
        Client(streaming(blocks()), executor=executor) as client,
        client.stream("GET", "/") as response,
    ):
        client.until_waiting(1)
        stopped = len(made)
        assert stopped < 16
        for _ in range(stopped + 1):
            next(response)
        until(lambda: len(made) > stopped)


def test_an_endless_stream_ends_at_the_deadline_of_a_whole_request() -> None:
    """Though each block is in time."""
    began = threading.Event()

    def blocks() -> Iterator[bytes]:
        while True:
            began.set()
            bide.wait(asyncio.sleep(0.001))
            yield b"x"

    with Client(streaming(blocks())) as client:
        response = client.stream("GET", "/", timeout=0.2)
        happened(began)
        with pytest.raises(Overdue, match="its response has not come in time"):
            response.read()
        client.until_waiting(0)


# Uploads ----------------------------------------------------------------------------------------


@EXECUTORS
def test_a_body_comes_in_pieces_as_the_application_reads(executor: str) -> None:
    """A piece is asked for when there is room for it: both directions at once."""
    read = [threading.Event() for _ in range(3)]

    def pieces() -> Iterator[bytes]:
        for number, event in enumerate(read):
            yield b"%d" % number * 100_000
            happened(event)

    def echo(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for event in read:
            yield environ["wsgi.input"].read(100_000)[:1]
            event.set()

    with Client(echo, executor=executor) as client:
        assert client.post("/", body=pieces()).body == b"012"


@EXECUTORS
def test_pieces_wait_while_the_application_does_not_read(executor: str) -> None:
    """The window is a connection's; what is not asked for is not made."""
    asked: list[int] = []
    gate = Gate()

    def pieces() -> Iterator[bytes]:
        for number in range(20):
            asked.append(number)
            yield b"x" * 40_000

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        bide.wait(gate.promise())
        size = len(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [str(size).encode()]

    with (
        Client(application, executor=executor) as client,
        client.stream("POST", "/", body=pieces()) as response,
    ):
        client.until_waiting(1)
        until(lambda: len(asked) >= 2)
        assert len(asked) <= 3
        gate.open()
        assert response.text == "800000"


def test_an_application_that_does_not_read_ends_the_upload() -> None:
    """Nobody makes the rest."""
    asked: list[int] = []

    def pieces() -> Iterator[bytes]:
        while True:
            asked.append(1)
            yield b"x" * 40_000

    with Client(answering(lambda environ: b"no, thanks")) as client:
        assert client.post("/", body=pieces()).text == "no, thanks"
    assert len(asked) < 10


@EXECUTORS
@pytest.mark.parametrize("wrong", ["raises", "text"])
def test_an_error_of_the_pieces_is_the_tests(executor: str, wrong: str) -> None:
    """The application sees a client that leaves in the middle of its body."""
    seen: list[str] = []

    def pieces() -> Iterator[Any]:
        yield b"x"
        if wrong == "raises":
            raise KeyError("the test's")
        yield "text"

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except bide.ClientDisconnected as error:
            seen.append(str(error))
            raise
        return []

    expected, words = (KeyError, "the test's") if wrong == "raises" else (TypeError, "not str")
    with Client(application, executor=executor) as client:
        with pytest.raises(expected, match=words):
            client.post("/", body=pieces())
        client.until_waiting(0)
    assert seen == ["the client has failed while it sent its body"]


# Errors -----------------------------------------------------------------------------------------


def failing_at_once(environ: Environ, start_response: Any) -> list[bytes]:
    """Fail before anything was sent."""
    raise LookupError("here")


def failing_later(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Fail after a block."""
    start_response("200 OK", [])
    yield b"sent"
    raise LookupError("here")


@EXECUTORS
@pytest.mark.parametrize("application", [failing_at_once, failing_later])
def test_an_error_of_the_application_is_raised_in_the_test(executor: str, application: Any) -> None:
    """The same object, with the application's lines in its traceback; the next request works."""
    with Client(application, executor=executor) as client:
        for _ in range(2):
            with pytest.raises(LookupError, match="here") as raised:
                client.get("/")
            names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
            assert application.__name__ in names


@EXECUTORS
def test_what_was_sent_before_an_error_comes_before_it(executor: str) -> None:
    """As a client would see it."""
    with (
        Client(failing_later, executor=executor) as client,
        client.stream("GET", "/") as response,
    ):
        assert response.status == 200
        assert next(response) == b"sent"
        with pytest.raises(LookupError):
            next(response)
        with pytest.raises(IncompleteResponse):
            next(response)


def test_an_error_that_nobody_asked_for_is_raised_when_the_block_is_left() -> None:
    """It would be lost else."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        try:
            bide.wait(Gate().promise())
        finally:
            raise LookupError("while it cleaned up")

    def fail() -> None:
        client.until_waiting(1)
        raise BrokenPipeError

    with Client(application) as client:
        with pytest.raises(LookupError, match="cleaned up"), client.stream("GET", "/"):
            client.until_waiting(1)
        with pytest.raises(BrokenPipeError), client.stream("GET", "/"):
            fail()  # the test's own failure counts


@EXECUTORS
def test_an_error_in_close_is_raised_too(executor: str) -> None:
    """A server logs it; a test shall see it."""

    class Blocks(list[bytes]):
        def close(self) -> None:
            raise LookupError("in close")

    application = streaming(Blocks([b"whole"]))
    with (
        Client(application, executor=executor) as client,
        pytest.raises(LookupError, match="in close"),
    ):
        client.get("/")


def test_an_error_in_close_after_another_error_is_logged(log: Log) -> None:
    """One can be raised: the first. A server logs both."""

    class Failing:
        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            raise LookupError("in the block")

        def close(self) -> None:
            raise ValueError("in close")

    with Client(streaming(Failing())) as client, pytest.raises(LookupError, match="in the block"):
        client.get("/")
    record = log.take("the application failed in close(): GET /")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "in close"


def test_an_exit_of_the_application_is_raised_as_it_is() -> None:
    """A server lives on; a test that did not see it would pass."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        raise SystemExit(3)

    with Client(application) as client, pytest.raises(SystemExit):
        client.get("/")


@EXECUTORS
def test_errors_can_be_the_servers_answer_instead(
    executor: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A 500 and a line in the log; or a response that is cut."""
    with Client(failing_at_once, executor=executor, raise_errors=False) as client:
        response = client.get("/")
    assert (response.status, response.text) == (500, "Internal Server Error\n")
    assert "the application failed" in caplog.text
    with (
        Client(failing_later, executor=executor) as client,
        client.stream("GET", "/", raise_errors=False) as response,
    ):
        assert next(response) == b"sent"
        with pytest.raises(IncompleteResponse, match="cut"):
            next(response)


@pytest.mark.parametrize("raises", [True, False])
def test_what_breaks_pep_3333_is_an_error_of_the_application(
    raises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The conversation checks it, as behind a socket."""
    with Client(lambda environ, start_response: [b"x"], raise_errors=raises) as client:
        if raises:
            with pytest.raises(bide.LocalProtocolError, match="start_response"):
                client.get("/")
        else:
            assert client.get("/").status == 500
    assert ("start_response" in caplog.text) is not raises


def test_raised_errors_are_not_logged_as_well(caplog: pytest.LogCaptureFixture) -> None:
    """The test has them; a log full of tracebacks hides others."""
    caplog.set_level(logging.INFO)
    with Client(failing_at_once) as client, pytest.raises(LookupError):
        client.get("/")
    assert "failed" not in caplog.text


def test_a_full_queue_is_answered_503() -> None:
    """As by the server: it is not an error of the application."""
    application = Holding()
    with Client(application, threads=1, queue=0) as client, client.stream("GET", "/") as first:
        happened(application.began)
        response = client.get("/")
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        application.go_on.set()
        assert first.status == 200


# Deadlines --------------------------------------------------------------------------------------


@EXECUTORS
def test_a_request_that_waits_for_too_long_says_where(executor: str) -> None:
    """The test fails in place of hanging; the request is left, and its wait cancelled."""
    seen: list[str] = []

    def asks_nobody() -> None:
        bide.wait(Gate().promise())

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        try:
            asks_nobody()
        except bide.ClientDisconnected as error:
            seen.append(str(error))
            raise
        return []

    with Client(application, executor=executor) as client:
        response = client.stream("GET", "/slow", timeout=0.05)
        client.until_waiting(1)
        with pytest.raises(Overdue, match="its response has not come in time; it waits:") as late:
            response.read()
        client.until_waiting(0)
    text = str(late.value)
    assert "GET /slow of " in text
    assert "in asks_nobody" in text
    assert "bide.wait(Gate().promise())" in text
    assert "/bide/" not in text.replace(__file__, "")
    assert seen == ["the test's client has waited for too long"]


@EXECUTORS
def test_code_that_runs_for_too_long_is_shown(executor: str) -> None:
    """On a lane as on the loop, where it holds all up; and the client can still be closed."""
    began, go_on = threading.Event(), threading.Event()

    def blocks_its_thread(environ: Environ, start_response: Any) -> list[bytes]:
        began.set()
        happened(go_on)
        start_response("200 OK", [])
        return []

    with Client(blocks_its_thread, executor=executor) as client:
        response = client.stream("GET", "/", timeout=0.05)
        happened(began)
        with pytest.raises(Overdue, match="its code runs") as late:
            response.read()
        go_on.set()
    assert "in blocks_its_thread" in str(late.value)


def test_one_that_waits_for_a_thread_is_said_to() -> None:
    """Nothing of the application is to blame."""
    application = Holding()
    with Client(application, threads=1) as client, client.stream("GET", "/"):
        happened(application.began)
        response = client.stream("GET", "/", timeout=0.1)
        until(lambda: client.status().queued == 1)
        with pytest.raises(Overdue, match="has not begun: 1 threads are busy"):
            response.read()
        application.go_on.set()


def test_a_promise_that_was_yielded_is_said_to_be_late() -> None:
    """The application has no line that waits."""

    def blocks() -> Iterator[Any]:
        yield Gate().promise()

    with Client(streaming(blocks())) as client:
        response = client.stream("GET", "/", timeout=0.05)
        client.until_waiting(1)
        with pytest.raises(Overdue, match="a promise that it has yielded"):
            response.read()


def test_a_request_before_it_on_a_blocked_loop_is_shown() -> None:
    """It is not the one that was asked for, but it is the one to blame."""
    began, go_on = threading.Event(), threading.Event()

    def blocks_the_loop(environ: Environ, start_response: Any) -> list[bytes]:
        began.set()
        happened(go_on)
        start_response("200 OK", [])
        return []

    with Client(blocks_the_loop, executor="loop") as client, client.stream("GET", "/"):
        happened(began)
        with pytest.raises(Overdue, match="the event loop is blocked") as late:
            client.get("/", timeout=0.1)
        go_on.set()
    assert "in blocks_the_loop" in str(late.value)


def test_waiting_for_a_number_has_a_deadline() -> None:
    """And says what there is instead."""
    with (
        Client(answering(lambda environ: b""), timeout=0.05) as client,
        pytest.raises(Overdue, match="never 1 waiting: 0 wait, 0 run, 0 are queued"),
    ):
        client.until_waiting(1)


# Life -------------------------------------------------------------------------------------------


@EXECUTORS
def test_closing_cancels_what_waits(executor: str) -> None:
    """It is told that the server stops; nothing is left."""
    seen: list[type[BaseException]] = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        try:
            bide.wait(Gate().promise())
        except BaseException as error:
            seen.append(type(error))
            raise
        return []

    with Client(application, executor=executor) as client:
        response = client.stream("GET", "/")
        client.until_waiting(1)
    assert seen == [bide.ServerStopping]
    assert response.status == 503


def test_a_client_made_outside_a_request_belongs_to_the_same_loop() -> None:
    """As with a server: what the test's thread makes by ``wait`` works in requests."""

    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    seen: list[asyncio.AbstractEventLoop] = []
    with Client(answering(lambda environ: seen.append(bide.wait(loop())))) as client:
        client.get("/")
        assert bide.wait(loop()) is seen[0]


def test_a_client_can_be_opened_by_hand_and_again() -> None:
    """For setUp and tearDown."""
    client = Client(answering(lambda environ: b"x"))
    for _ in range(2):
        client.open()
        try:
            assert client.get("/").body == b"x"
        finally:
            client.close()


def test_it_can_be_used_where_a_loop_runs() -> None:
    """In a test that is a coroutine; its thread is blocked meanwhile."""

    async def test() -> bytes:
        with Client(answering(lambda environ: b"x")) as client:
            return client.get("/").body

    assert asyncio.run(test()) == b"x"


def test_a_flask_application_is_tested_as_it_is() -> None:
    """Its sessions, its streams and its errors, by ``app`` and by ``app.wsgi_app``."""
    app = flask.Flask(__name__)
    app.secret_key = "a test's"
    app.testing = True

    @app.post("/log-in")
    def log_in() -> Any:
        flask.session["name"] = flask.request.form["name"]
        return flask.redirect("/name")

    @app.get("/name")
    def name() -> Any:
        def parts() -> Iterator[str]:
            yield bide.wait(asyncio.sleep(0, "I am "))
            yield flask.session["name"]

        return flask.Response(flask.stream_with_context(parts()), mimetype="text/plain")

    @app.get("/broken")
    def broken() -> str:
        raise LookupError("in a view")

    for application in (app, app.wsgi_app):
        with Client(application, follow_redirects=True) as client:
            assert client.post("/log-in", form={"name": "Ada"}).text == "I am Ada"
            with client.stream("GET", "/name") as response:
                assert list(response) == [b"I am ", b"Ada"]
            with pytest.raises(LookupError, match="in a view"):
                client.get("/broken")


# The live server --------------------------------------------------------------------------------


def test_a_live_server_answers_until_its_block_is_left() -> None:
    """Over a real socket, on a port that is free."""
    with LiveServer(answering(lambda environ: environ["SERVER_PORT"]), threads=2) as server:
        import httpx

        assert httpx.get(server + "/", trust_env=False).text == str(server.port)
        assert str(server) == server.url == f"http://127.0.0.1:{server.port}"
        assert server.status().threads_max == 2
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)


def test_a_live_server_that_cannot_start_leaves_nothing() -> None:
    """The error is the server's."""
    with LiveServer(answering(lambda environ: b"")) as server:
        second = LiveServer(answering(lambda environ: b""), bind=server.address)
        with pytest.raises(bide.StartError):
            second.start()
    with pytest.raises(bide.StartError):
        LiveServer(answering(lambda environ: b""), threads=0)


def test_a_live_server_that_is_stopped_cancels_what_waits() -> None:
    """A test that forgets a request does not hang the suite."""
    ended = threading.Event()

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        try:
            bide.wait(Gate().promise())
        finally:
            ended.set()
        return []

    with contextlib.ExitStack() as leaving:
        pool = leaving.enter_context(concurrent.futures.ThreadPoolExecutor(1))
        server = leaving.enter_context(LiveServer(application, graceful_timeout=0.05))
        asked = pool.submit(httpx.get, server.url, trust_env=False, timeout=DEADLINE)
        until(lambda: server.status().waiting == 1)
    assert asked.result().status_code == 503
    assert ended.is_set()
