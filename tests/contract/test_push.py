"""``write, finish = start_response(...)``: push, over a real connection, for both executors."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bide
from bide import ClientDisconnected, LocalProtocolError, WriteWouldBlock, in_thread, wait
from tests.conftest import Serve
from tests.served import (
    DEADLINE,
    Client,
    Closing,
    Environ,
    Gate,
    Log,
    Served,
    happened,
    request,
    until,
)

PLAIN = [("Content-Type", "text/plain")]
Pair = tuple[Callable[[bytes], None], Callable[[], None]]


class Pushing:
    """An application that returns None, and leaves ``write`` and ``finish`` to the test."""

    def __init__(self, headers: list[tuple[str, str]] | None = None, result: Any = None) -> None:
        self.pairs: list[Pair] = []
        self._headers = PLAIN if headers is None else headers
        self._result = result
        self._taken = threading.Condition()

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        """Start, and keep what there is to keep."""
        write, finish = start_response("200 OK", self._headers)
        with self._taken:
            self.pairs.append((write, finish))
            self._taken.notify_all()
        return self._result

    def take(self) -> Pair:
        """Return the pair of the next request, and keep it no longer."""
        with self._taken:
            assert self._taken.wait_for(lambda: self.pairs, DEADLINE)
            return self.pairs.pop(0)


def in_other_thread(function: Callable[[], Any]) -> None:
    """Call a function in a thread of its own; raise here what it raises."""
    errors: list[BaseException] = []

    def calling() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=calling)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_an_application_writes_and_finishes_after_it_returned(serve: Serve) -> None:
    """From a foreign thread; each block goes out at once, none is held back."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request()
    write, finish = pushing.take()
    served.until_waiting(1)
    for number in range(3):
        write(b"%d" % number)
        if not number:
            client.head()
        assert client.chunk() == b"%d" % number
    finish()
    assert client.chunk() == b""
    served.until_idle()


def test_the_value_of_start_response_has_finish(serve: Serve) -> None:
    """`write.finish` is the same, and takes the end over as unpacking does."""
    kept: list[Any] = []
    returned = threading.Event()

    def application(environ: Environ, start_response: Any) -> None:
        write = start_response("200 OK", PLAIN)
        kept.append((write, write.finish))
        returned.set()

    served = serve(application)
    client = served.request()
    happened(returned)
    served.until_waiting(1)
    write, finish = kept.pop()
    write(b"x")
    finish()
    assert client.response().body == b"x"


def test_finish_in_the_call_ends_the_response(serve: Serve) -> None:
    """Before the application returned; the connection goes on."""

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)
        write(b"x")
        finish()

    client = serve(application).connect()
    for _ in range(3):
        client.send(request())
        assert client.response().body == b"x"


def test_finish_before_anything_was_written_sends_an_empty_response(serve: Serve) -> None:
    """With its length, which is known."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request()
    pushing.take()[1]()
    response = client.response()
    assert (response.status, response.header("Content-Length")) == (200, "0")


def test_the_iterable_is_sent_before_finish_ends_the_response(serve: Serve) -> None:
    """Whatever it returned: it has not ended until `finish` is called; close() comes then."""
    iterable = Closing([b"1", b"2"])
    pushing = Pushing(result=iterable)
    served = serve(pushing)
    client = served.request()
    write, finish = pushing.take()
    served.until_waiting(1)
    client.head()
    assert [client.chunk(), client.chunk()] == [b"1", b"2"]
    assert client.is_silent()
    assert iterable.count == 0
    write(b"3")
    finish()
    assert [client.chunk(), client.chunk()] == [b"3", b""]
    served.until_idle()
    assert iterable.count == 1


def test_one_block_in_a_list_does_not_end_the_response(serve: Serve) -> None:
    """The short way for a whole response is not taken."""
    pushing = Pushing(result=[b"1"])
    served = serve(pushing)
    client = served.request()
    write, finish = pushing.take()
    served.until_waiting(1)
    write(b"2")
    finish()
    assert client.response().chunks == [b"1", b"2"]


def test_blocks_go_out_in_the_order_of_the_calls(serve: Serve) -> None:
    """From many threads, one after the other."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request()
    write, finish = pushing.take()
    for number in range(20):
        in_other_thread(lambda number=number: write(b"%d," % number))  # type: ignore[misc]
    finish()
    assert client.response().body == b"".join(b"%d," % number for number in range(20))


def test_blocks_of_threads_at_once_are_not_mixed(serve: Serve) -> None:
    """Each block comes whole, and each thread's own in their order."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request()
    write, finish = pushing.take()

    def push(letter: bytes) -> None:
        for number in range(50):
            write(letter * 5000 + b"%02d" % number)

    threads = [threading.Thread(target=push, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    client.head()
    body = client.chunks(150 * 5002)
    for thread in threads:
        thread.join(DEADLINE)
    finish()
    assert client.chunk() == b""
    blocks = [body[at : at + 5002] for at in range(0, len(body), 5002)]
    for letter in (b"a", b"b", b"c"):
        own = [block for block in blocks if block.startswith(letter)]
        assert own == [letter * 5000 + b"%02d" % number for number in range(50)]


@pytest.mark.parametrize("path", ["/write", "/finish"])
def test_one_request_pushes_to_another(serve: Serve, path: str) -> None:
    """A chat: one conversation's `write` is called in the next one's."""
    pairs: list[Pair] = []

    def application(environ: Environ, start_response: Any) -> Any:
        write, finish = start_response("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/listen":
            pairs.append((write, finish))
            return None
        other, other_finish = pairs.pop()
        other(b"said")
        other_finish()
        finish()
        return None

    served = serve(application)
    listener = served.request("/listen")
    served.until_waiting(1)
    assert served.get(path).complete
    assert listener.response().body == b"said"


def behind(served: Served, pushing: Pushing) -> tuple[Client, Pair, int]:
    """Push to a client that reads nothing until the loop may push no more; give how many bytes."""
    client = served.connect(window=4096)
    client.send(request())
    pair = pushing.take()
    block = b"x" * 65536
    sent = 0

    def push() -> None:
        nonlocal sent
        while True:
            pair[0](block)
            sent += len(block)

    with contextlib.suppress(WriteWouldBlock):
        served.call(push)
    return client, pair, sent


def test_write_on_the_loop_would_block_when_the_client_is_behind(serve: Serve) -> None:
    """Bounded by the client's speed; what was accepted arrives, what was refused does not."""
    pushing = Pushing()
    served = serve(pushing)
    client, (write, finish), sent = behind(served, pushing)
    assert 0 < sent < 64 * 1024 * 1024
    with pytest.raises(WriteWouldBlock, match="the client reads too slowly"):
        served.call(write, b"refused")
    served.call(finish)
    assert client.response().body == b"x" * sent


def test_write_in_a_thread_waits_while_the_client_is_behind(serve: Serve) -> None:
    """The number of accepted bytes is bounded; they go on as the client reads."""
    pushing = Pushing()
    served = serve(pushing)
    client, (write, finish), sent = behind(served, pushing)
    accepted = 0
    block = b"y" * 65536

    def push() -> None:
        nonlocal accepted
        for _ in range(50):
            write(block)
            accepted += 1
        finish()

    thread = threading.Thread(target=push)
    thread.start()
    client.head()
    assert client.chunks(65536) == b"x" * 65536
    assert accepted < 50  # it can be far behind only by what the client's buffers take
    size = 65536
    while chunk := client.chunk():
        size += len(chunk)
    thread.join(DEADLINE)
    assert (accepted, size) == (50, sent + 50 * 65536)


def test_write_in_a_request_parks_while_the_client_is_behind(serve: Serve) -> None:
    """It holds no thread: on one thread another request is answered."""
    total = 32 * 1024 * 1024

    def application(environ: Environ, start_response: Any) -> Any:
        write, finish = start_response("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/much":
            for _ in range(total // 65536):
                write(b"x" * 65536)
        finish()

    served = serve(application, threads=1)
    client = served.connect(window=4096)
    client.send(request("/much"))
    served.until_waiting(1)
    assert served.get().complete
    assert client.is_silent() is False
    response = client.response()
    assert (len(response.body), response.complete) == (total, True)


def test_a_request_that_pushes_to_a_stalled_client_ends_with_its_own(serve: Serve) -> None:
    """Its wait is cancelled by its own client's departure, not by the other's."""
    pushing = Pushing()
    raised: list[type[BaseException]] = []

    def application(environ: Environ, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/":
            return pushing(environ, start_response)
        try:
            while True:
                pair[0](b"x" * 65536)
        except BaseException as error:
            raised.append(type(error))
            raise

    served = serve(application)
    client, pair, _ = behind(served, pushing)
    pusher = served.request("/push")
    served.until_waiting(2)
    pusher.close()
    served.until_waiting(1)
    assert raised == [ClientDisconnected]
    pair[1]()
    assert client.response().complete


@pytest.mark.parametrize("late", ["write", "finish"])
def test_after_finish_both_raise(serve: Serve, late: str) -> None:
    """LocalProtocolError: it is the application's mistake; the response stays as it was."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request()
    write, finish = pushing.take()
    write(b"x")
    finish()
    with pytest.raises(LocalProtocolError, match="the response has ended"):
        write(b"late") if late == "write" else finish()
    assert client.response().body == b"x"
    served.until_idle()


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_after_the_client_left_both_raise(serve: Serve, ending: str) -> None:
    """ClientDisconnected, from any thread; the request has ended without a word in the log."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request()
    write, finish = pushing.take()
    served.until_waiting(1)
    write(b"x")
    client.head()
    getattr(client, ending)()
    served.until_idle()
    for _ in range(2):
        with pytest.raises(ClientDisconnected):
            write(b"late")
        with pytest.raises(ClientDisconnected):
            finish()


def test_a_pusher_that_notices_first_ends_the_request_quietly(serve: Serve) -> None:
    """It drops `finish` as it dies of ClientDisconnected: no error of the application."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request()
    served.until_waiting(1)
    ended = threading.Event()

    def push(write: Callable[[bytes], None], finish: Callable[[], None]) -> None:
        try:
            while True:
                write(b"x" * 1000)
        except ClientDisconnected:
            del write, finish
            gc.collect()
            ended.set()

    # The loop is held, so that the thread is the first to learn of it.
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        happened(release)

    served.loop.call_soon_threadsafe(hold)
    happened(held)
    client.reset()
    thread = threading.Thread(target=push, args=pushing.take())
    thread.start()
    happened(ended)
    release.set()
    thread.join(DEADLINE)
    served.until_idle()


def test_none_without_finish_is_an_error(serve: Serve, log: Log) -> None:
    """It says what to return."""

    def application(environ: Environ, start_response: Any) -> None:
        start_response("200 OK", PLAIN)

    assert serve(application).get().status == 500
    record = log.take("the application failed")
    assert "take finish" in f"{record.getMessage()} {record.exc_info}"


@pytest.mark.parametrize("written", [False, True])
def test_a_finish_that_nobody_can_call_ends_the_request(
    serve: Serve, log: Log, written: bool
) -> None:
    """All references are gone: an error that names the application, not a request that hangs."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request("/path")
    write, finish = pushing.take()
    served.until_waiting(1)
    if written:
        write(b"x")
    del write, finish
    gc.collect()
    response = client.response()
    assert response.status == (200 if written else 500)
    assert response.complete is not written
    record = log.failure()
    assert "GET /path of" in record.getMessage()
    assert record.exc_info is not None
    assert "Pushing" in str(record.exc_info[1])
    assert "without calling it" in str(record.exc_info[1])


def test_a_finish_that_is_dropped_in_the_call_ends_the_request(serve: Serve, log: Log) -> None:
    """Before anyone could wait for it."""

    def application(environ: Environ, start_response: Any) -> None:
        start_response("200 OK", PLAIN).finish  # noqa: B018 - taken, and dropped

    assert serve(application).get().status == 500
    log.failure()


def test_one_reference_is_enough(serve: Serve) -> None:
    """`write` keeps `finish`, and `finish` alone keeps itself."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request()
    served.until_waiting(1)
    write: Any
    write, finish = pushing.take()
    del finish
    gc.collect()
    write(b"x")
    finish = write.finish
    del write
    gc.collect()
    finish()
    assert client.response().body == b"x"


def test_a_finish_kept_in_the_environ_alone_is_lost(serve: Serve, log: Log) -> None:
    """The server keeps the environ for nobody: it does not count as a reference."""

    def application(environ: Environ, start_response: Any) -> None:
        environ["test.finish"] = start_response("200 OK", PLAIN).finish

    served = serve(application)
    client = served.request()
    until(lambda: gc.collect() is None or log.records)
    assert client.response().status == 500
    log.failure()


@pytest.mark.parametrize("call", ["write", "finish"])
def test_an_application_that_fails_after_finish_was_taken_is_answered_for(
    serve: Serve, log: Log, call: str
) -> None:
    """The 500 is the response; what is pushed later raises."""
    kept: list[Pair] = []

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)
        kept.append((write, finish))
        raise LookupError("no")

    response = serve(application).get()
    assert (response.status, response.body) == (500, b"Internal Server Error\n")
    log.failure()
    with pytest.raises(LocalProtocolError):
        kept[0][0](b"late") if call == "write" else kept[0][1]()


def test_an_error_after_finish_is_logged_and_the_response_stays(serve: Serve, log: Log) -> None:
    """It was complete when the application failed."""

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)
        write(b"x")
        finish()
        raise LookupError("no")

    client = serve(application).request()
    response = client.response()
    assert (response.status, response.body, response.complete) == (200, b"x", True)
    log.failure()


def test_a_block_after_finish_fails_the_application(serve: Serve, log: Log) -> None:
    """The iterable goes on where the response has ended; it is closed."""
    iterable = Closing([b"late"])

    def application(environ: Environ, start_response: Any) -> Closing:
        write, finish = start_response("200 OK", PLAIN)
        write(b"x")
        finish()
        return iterable

    served = serve(application)
    assert served.get().body == b"x"
    log.failure()
    served.until_idle()
    assert iterable.count == 1


def test_finish_with_less_than_content_length_raises_and_cuts(serve: Serve, log: Log) -> None:
    """At the call, and as the request's own error."""
    pushing = Pushing([("Content-Length", "3")])
    served = serve(pushing)
    client = served.request()
    write, finish = pushing.take()
    write(b"12")
    with pytest.raises(LocalProtocolError, match="ended after 2 bytes"):
        finish()
    response = client.response()
    assert (response.body, response.complete) == (b"12", False)
    log.failure()


def test_write_of_more_than_content_length_raises_and_sends_nothing(serve: Serve) -> None:
    """The application may go on with less."""
    pushing = Pushing([("Content-Length", "3")])
    served = serve(pushing)
    client = served.request()
    write, finish = pushing.take()
    write(b"12")
    with pytest.raises(LocalProtocolError, match="longer than its Content-Length"):
        write(b"345")
    write(b"3")
    finish()
    response = client.response()
    assert (response.body, response.complete) == (b"123", True)


def test_head_is_answered_by_finish_alone(serve: Serve) -> None:
    """Blocks are taken, and not sent."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request(method="HEAD")
    write, finish = pushing.take()
    write(b"x" * 100_000)
    write(b"y")
    finish()
    assert client.response("HEAD").complete
    client.send(request())
    write, finish = pushing.take()
    write(b"x")
    finish()
    assert client.response().body == b"x"


def test_an_old_client_is_pushed_to_until_the_connection_ends(serve: Serve) -> None:
    """HTTP/1.0 knows no chunks."""
    pushing = Pushing()
    served = serve(pushing)
    client = served.request(version="1.0")
    write, finish = pushing.take()
    write(b"1")
    write(b"2")
    finish()
    assert client.response().body == b"12"


def test_finish_may_be_called_in_the_iteration(serve: Serve) -> None:
    """As the generator's last act; nothing follows it."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        write, finish = start_response("200 OK", PLAIN)
        yield b"1"
        write(b"2")
        finish()

    assert serve(application).get().chunks == [b"1", b"2"]


def test_exc_info_replaces_the_head_of_a_push(serve: Serve) -> None:
    """Both pairs end the same response; the first one is not lost when it is dropped."""

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)
        try:
            raise LookupError("no")
        except LookupError as error:
            info = (type(error), error, error.__traceback__)
            write, finish = start_response("502 Handled", PLAIN, info)
        del info
        write(b"x")
        finish()

    response = serve(application).get()
    assert (response.status, response.body) == (502, b"x")


def test_a_coroutine_pushes(serve: Serve) -> None:
    """`async def`, writing on the loop, ended by a task of its own."""
    tasks: list[Any] = []

    async def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)

        async def later() -> None:
            for number in range(3):
                await asyncio.sleep(0)
                write(b"%d" % number)
            finish()

        tasks.append(asyncio.create_task(later()))

    served = serve(application)
    assert served.get().chunks == [b"0", b"1", b"2"]


def test_a_push_by_in_thread_waits_for_the_client(serve: Serve) -> None:
    """As the error of `WriteWouldBlock` advises."""
    total = 16 * 1024 * 1024
    gate = Gate()

    def push(write: Any, finish: Any) -> None:
        for _ in range(total // 65536):
            write(b"x" * 65536)
        finish()

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)
        wait(in_thread(push, write, finish))
        gate.open()

    served = serve(application)
    client = served.connect(window=4096)
    client.send(request())
    served.until_waiting(1)
    response = client.response()
    assert (len(response.body), response.complete) == (total, True)
    gate.promise().result(DEADLINE)


def test_a_push_is_cancelled_when_the_server_stops(serve: Serve, log: Log) -> None:
    """What was not finished in time is cut; both raise then."""
    pushing = Pushing()
    served = serve(pushing, graceful_timeout=0.05)
    client = served.request()
    write, finish = pushing.take()
    write(b"x")
    served.until_waiting(1)
    client.head()
    served.begin_stop()
    log.take("they are cancelled")
    assert client.rest() == b"1\r\nx\r\n"
    served.join(leaving=True)
    with pytest.raises((bide.Cancelled, LocalProtocolError)):
        write(b"late")
    with pytest.raises((bide.Cancelled, LocalProtocolError)):
        finish()
