"""``wsgi.input`` through a real socket: exact reads, waiting like any promise."""

import asyncio
import io
import threading
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide import ClientDisconnected, WaitError, in_thread, wait
from tests.conftest import Serve
from tests.served import Client, Environ, Gate, Log, answering, ends, happened, request, until

BODY = b"one\ntwo two\n\nthree, without an end\nfour"


def post(
    path: str = "/", *, chunked: bool = False, length: int | None = None, expect: bool = False
) -> bytes:
    """Make the head of a request whose body comes later; ``expect``: the application is called."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
    more = ["Expect: 100-continue"] if expect else []
    return request(path, method="POST", headers=[framing, *more])


def chunk(data: bytes) -> bytes:
    """Encode one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def wrapped(file: Any) -> Any:
    """Read what is wrapped, and close the wrapper, and what it wraps."""
    with file:
        return file.read()


READS: dict[str, Callable[[Any], bytes]] = {
    "read()": lambda body: body.read(),
    "read(-1)": lambda body: body.read(-1),
    "read(None)": lambda body: body.read(None),
    "read(n)": lambda body: b"".join(iter(lambda: body.read(7), b"")),
    "read(1)": lambda body: b"".join(iter(lambda: body.read(1), b"")),
    "read(1), read()": lambda body: body.read(1) + body.read(),
    "readline()": lambda body: b"".join(iter(body.readline, b"")),
    "readline(n)": lambda body: b"".join(iter(lambda: body.readline(3), b"")),
    "readlines()": lambda body: b"".join(body.readlines()),
    "readlines(hint), read()": lambda body: b"".join(body.readlines(5)) + body.read(),
    "iteration": lambda body: b"".join(body),
    "text": lambda body: wrapped(io.TextIOWrapper(body, "ascii", newline="")).encode(),
    "buffer": lambda body: wrapped(io.BufferedReader(body, 7)),
    "line, line, rest": lambda body: body.readline() + next(iter(body)) + body.read(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_is_read_whole_by_every_way(
    serve: Serve, read: Callable[[Any], bytes], chunked: bool
) -> None:
    """However it is cut on its way; and at its end there is nothing more."""
    ends: list[bytes] = []

    def answer(environ: Environ) -> bytes:
        body = environ["wsgi.input"]
        whole = read(body)
        ends.extend([body.read(), body.read(5), body.readline(), *body.readlines(), *body])
        return whole

    served = serve(answering(answer))
    client = served.connect()
    client.send(post(chunked=chunked, length=len(BODY)))
    for at in range(0, len(BODY), 5):
        part = BODY[at : at + 5]
        client.send(chunk(part) if chunked else part)
    client.send(b"0\r\n\r\n" if chunked else b"")
    assert client.response().body == BODY
    assert ends == [b"", b"", b""]


def test_reads_are_exact(serve: Serve) -> None:
    """As a file's are: the same calls on the same bytes give the same blocks."""

    def calls(body: Any) -> list[Any]:
        numbers = array("B", bytes(2))  # a buffer that is neither a bytearray nor a memoryview
        return [
            body.read(2),
            body.readline(),
            body.readline(2),
            body.readline(100),
            body.read(0),
            body.readline(0),
            body.readline(),
            body.read(3),
            body.readlines(1),
            body.read(Two()),
            body.readline(Two()),
            (body.readinto(numbers), numbers),
            body.read(100),
            body.read(1),
        ]

    class Two:  # as numbers of other libraries are
        def __index__(self) -> int:
            return 2

    served = serve(answering(lambda environ: repr(calls(environ["wsgi.input"]))))
    for size in (1, 3, len(BODY)):
        client = served.connect()
        client.send(post(length=len(BODY)))
        for at in range(0, len(BODY), size):
            client.send(BODY[at : at + size])
        assert client.response().text == repr(calls(io.BytesIO(BODY)))


def test_a_request_without_a_body_has_an_empty_input(serve: Serve) -> None:
    """GET, and a POST of no bytes."""
    served = serve(answering(lambda environ: repr(environ["wsgi.input"].read())))
    assert served.get().text == "b''"
    client = served.connect()
    client.send(post(length=0))
    assert client.response().text == "b''"


def test_reading_waits_and_holds_no_thread(serve: Serve) -> None:
    """On one thread a slow upload is parked, and a quick request answered."""

    def answer(environ: Environ) -> bytes:
        before = threading.get_ident()
        body: bytes = environ["wsgi.input"].read()
        assert threading.get_ident() == before
        return body

    served = serve(answering(answer), threads=1)
    client = served.connect()
    client.send(post(length=6) + b"sl")
    served.until_waiting(1)
    assert served.get().complete
    client.send(b"ow")
    served.until_waiting(1)
    client.send(b"ly")
    assert client.response().body == b"slowly"


def test_a_block_is_given_as_soon_as_it_has_come(serve: Serve) -> None:
    """A line is read before the next is sent."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for line in environ["wsgi.input"]:
            yield b"got " + line

    client = serve(application).connect()
    client.send(post(chunked=True))
    for number in range(3):
        client.send(chunk(b"%d\n" % number))
        if not number:
            client.head()
        assert client.chunk() == b"got %d\n" % number
    client.send(b"0\r\n\r\n")
    assert client.chunk() == b""


def test_input_is_read_below_middleware_and_greenlets_and_in_threads(serve: Serve) -> None:
    """Wherever `wait` works: a thread of the application blocks for it."""

    def answer(environ: Environ) -> bytes:
        body = environ["wsgi.input"]
        return bytes(wait(in_thread(body.read, 3)) + b"|" + body.read())

    client = serve(answering(answer)).connect()
    client.send(post(length=6))
    client.send(b"ab")
    client.send(b"cdef")
    assert client.response().body == b"abc|def"


def test_a_coroutine_reads_the_body_in_a_thread(serve: Serve) -> None:
    """On the loop it cannot wait, and is told so; what is there already it can read."""
    tried = threading.Event()

    async def application(environ: Environ, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"]
        try:
            body.read(1)
        except WaitError:
            waited = b"told"
        else:
            waited = b"read"
        tried.set()
        start_response("200 OK", [])
        return [waited + b" " + await asyncio.to_thread(body.read)]

    served = serve(application)
    client = served.connect()
    client.send(post(length=4, expect=True))
    happened(tried)
    assert client.head().status == 100
    client.send(b"body")
    assert client.response().body == b"told body"


def test_memory_is_bounded_by_a_window(serve: Serve) -> None:
    """A client that sends without end is held up while the application reads nothing."""
    gate = Gate()
    total = 64 * 1024 * 1024

    def answer(environ: Environ) -> str:
        wait(gate.promise())
        size = 0
        while block := environ["wsgi.input"].read(1024 * 1024):
            size += len(block)
        return str(size)

    served = serve(answering(answer))
    client = served.connect()
    client.send(post(length=total))
    served.until_waiting(1)
    client.sock.setblocking(False)
    block = b"x" * 65536
    sent = 0
    stuck = 0
    while stuck < 20:  # the kernel's buffers are full, and the server's window
        try:
            sent += client.sock.send(block)
            stuck = 0
        except BlockingIOError:
            stuck += 1
            served.call(lambda: None)  # a turn of the loop, which would read
    assert sent < total // 2
    client.sock.settimeout(20)
    gate.open()
    client.sock.sendall(b"x" * (total - sent))
    assert client.response().text == str(total)


@pytest.mark.parametrize("ending", ["close", "half_close", "reset"])
def test_a_body_that_breaks_off_raises_at_the_read(serve: Serve, ending: str) -> None:
    """ClientDisconnected, after what came before; the application is not answered for."""
    raised: list[Any] = []

    def answer(environ: Environ) -> None:
        body = environ["wsgi.input"]
        raised.append(body.read(2))
        try:
            body.read()
        except BaseException as error:
            raised.append(type(error))
            raise

    served = serve(answering(answer))
    client = served.connect()
    if ending == "reset":  # else the request would wait for its body, and end with it
        client.send(post(length=6, expect=True))
        served.until_waiting(1)
        client.send(b"slow")
        until(lambda: bool(raised))
    else:
        client.send(post(length=6) + b"slow")
        served.until_waiting(1)
    getattr(client, ending)()
    served.until_idle()
    assert raised == [b"sl", ClientDisconnected]
    if ending == "half_close":
        assert client.rest() == b""


def test_a_malformed_chunk_raises_at_the_read_and_answers_400(serve: Serve) -> None:
    """The application may catch it; if it does not, the application has not failed."""
    raised: list[str] = []

    def answer(environ: Environ) -> None:
        try:
            environ["wsgi.input"].read()
        except Exception as error:
            raised.append(type(error).__name__)
            raise

    client = serve(answering(answer)).connect()
    client.send(post(chunked=True) + chunk(b"good") + b"nonsense\r\n")
    assert client.response().status == 400
    assert client.rest() == b""
    assert raised == ["RemoteProtocolError"]


def test_a_malformed_chunk_after_the_head_cuts_the_response(serve: Serve) -> None:
    """There is no other way to tell the client."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        yield environ["wsgi.input"].read()

    served = serve(application)
    client = served.connect()
    client.send(post(chunked=True))
    client.head()
    assert client.chunk() == b"begun"
    client.send(b"nonsense\r\n")
    assert client.rest() == b""


def expecting(client: Client, path: str = "/", body: int = 4) -> None:
    client.send(
        request(path, method="POST", headers=[f"Content-Length: {body}", "Expect: 100-continue"])
    )


def test_100_continue_is_sent_when_the_application_reads(serve: Serve) -> None:
    """Not before, and once."""
    gate = Gate()

    def answer(environ: Environ) -> bytes:
        wait(gate.promise())
        body = environ["wsgi.input"]
        return bytes(body.read(2) + body.read(2))

    served = serve(answering(answer))
    client = served.connect()
    expecting(client)
    served.until_waiting(1)
    assert client.is_silent()
    gate.open()
    assert client.reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert client.reader.readline() == b"\r\n"
    client.send(b"bo")
    client.send(b"dy")
    response = client.response()
    assert (response.status, response.body) == (200, b"body")
    client.send(request())
    served.until_idle()


def test_100_continue_is_not_sent_when_the_application_does_not_read(serve: Serve) -> None:
    """The answer says that the connection ends: whether the body comes, who can tell?"""
    client = serve(answering(lambda environ: b"unread")).connect()
    expecting(client)
    response = client.response()
    assert response.status == 200
    assert ends(response)
    assert client.rest() == b""


def test_100_continue_is_not_sent_when_the_body_comes_unasked(serve: Serve) -> None:
    """RFC 9110 section 10.1.1."""
    gate = Gate()

    def answer(environ: Environ) -> bytes:
        wait(gate.promise())
        return bytes(environ["wsgi.input"].read())

    served = serve(answering(answer))
    client = served.connect()
    expecting(client)
    client.send(b"body")
    served.until_waiting(1)
    for _ in range(2):  # over TLS each record has a turn of the loop
        served.call(lambda: None)
    gate.open()
    assert client.head().status == 200
    assert client.read(4) == b"body"


def test_no_order_of_reading_and_writing_hangs_with_100_continue(serve: Serve) -> None:
    """The application writes first and reads then: the client is asked before."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        yield environ["wsgi.input"].read()

    client = serve(application).connect()
    expecting(client)
    assert client.reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert client.reader.readline() == b"\r\n"
    assert client.head().status == 200
    assert client.chunk() == b"begun"
    client.send(b"body")
    assert client.chunk() == b"body"
    assert client.chunk() == b""


def test_a_body_that_was_not_asked_for_before_a_refusal_cannot_be_read(
    serve: Serve, log: Log
) -> None:
    """The read fails, where it would wait for a client that waits."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("401 Unauthorized", [])
        yield b"begun"
        yield environ["wsgi.input"].read()

    client = serve(application).connect()
    expecting(client)
    response = client.response()
    assert (response.status, response.body, response.complete) == (401, b"begun", False)
    assert "read wsgi.input before the answer" in str(log.failure().exc_info)


@pytest.mark.parametrize("executor", ["threads"])
def test_the_last_bytes_and_the_departure_are_told_in_order(serve: Serve) -> None:
    """A client that sends all and leaves: the body is there, though nobody will read the answer."""
    begun, release = threading.Event(), threading.Event()
    read: list[Any] = []
    environs: list[Environ] = []

    def answer(environ: Environ) -> None:
        environs.append(environ)
        begun.set()
        happened(release)
        read.append(environ["wsgi.input"].read())

    served = serve(answering(answer))
    client = served.connect()
    client.send(post(length=4, expect=True))
    happened(begun)
    client.send(b"body")
    client.close()
    until(environs[0]["bide.disconnected"])
    release.set()
    served.until_idle()
    assert read == [b"body"]


def test_the_errors_of_the_body_are_the_request_s_own(serve: Serve, log: Log) -> None:
    """After a body that broke off the next connection is served as ever."""
    served = serve(answering(lambda environ: environ["wsgi.input"].read()))
    client = served.connect()
    client.send(post(length=6) + b"slow")
    served.until_waiting(1)
    client.reset()
    served.until_idle()
    assert served.get(method="POST", body=b"quick").body == b"quick"
