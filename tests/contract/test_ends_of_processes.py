"""Child processes that end at any moment, and what an earlier request leaves behind.

Each moment is forced: the application stands still at it, and says which process it is.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bide
from bide.children import worker
from bide.children.call import ProcessCall
from bide.children.requests import Told
from bide.waiting.cleanups import cleanup_time
from tests.conftest import Serve
from tests.contract.shared import BLOCK, PLAIN, Shared, children, gone
from tests.failures import Failures
from tests.served import Application, Client, Environ, Log, answering, request, until

pytestmark = pytest.mark.parametrize("executor", ["processes"])


class Moment:
    """Where an application stands still until its process is killed."""

    def __init__(self) -> None:
        self.shared = Shared()

    def stand(self) -> None:
        """Stand still; in the application."""
        self.shared["pid"] = os.getpid()
        self.shared.await_gate()

    def kill(self) -> int:
        """Kill the process once it stands still; return its number."""
        until(lambda: self.shared["pid"])
        pid = self.shared["pid"]
        self.shared["pid"] = 0
        os.kill(pid, signal.SIGKILL)
        return pid

    def application(self, environ: Environ, start_response: Any) -> Any:
        """Stand still where the path says."""
        path = environ["PATH_INFO"]
        if path == "/called":
            self.stand()
        elif path == "/reading":
            environ["wsgi.input"].read(1)
            self.stand()
        elif path == "/waiting":
            try:
                bide.wait(self._never())
            except bide.Cancelled:
                self.stand()
        start_response("200 OK", PLAIN)
        if path == "/sending":
            return self._blocks()
        if path == "/closing":
            return _Closed([b"all", b" of it"], self.stand)
        return [path.encode()]

    async def _never(self) -> None:
        self.shared["begun"] += 1
        await asyncio.Event().wait()

    def _blocks(self) -> Iterator[bytes]:
        yield BLOCK
        self.stand()


class _Closed:
    """Blocks, and what is called when they have been sent."""

    def __init__(self, blocks: list[bytes], close: Callable[[], None]) -> None:
        self._blocks = blocks
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._blocks)


def test_a_process_that_is_killed_at_any_moment_costs_one_request_and_one_line(
    serve: Serve, log: Log
) -> None:
    """The next request is answered right, by another process."""
    moment = Moment()
    served = serve(moment.application, processes=1)

    def told(path: str, pid: int) -> None:
        assert log.take(f"{path} of").getMessage().endswith(f"process {pid} was killed by SIGKILL")

    def before_the_head() -> None:
        client = served.request("/called")
        told("/called", moment.kill())
        assert client.response().status == 500

    def reading() -> None:
        client = served.connect()
        client.send(request("/reading", method="POST", headers=["Content-Length: 5000000"]))
        client.send(BLOCK * 4)
        told("/reading", moment.kill())
        assert client.response().status == 500

    def sending() -> None:
        client = served.request("/sending")
        assert client.head().status == 200
        told("/sending", moment.kill())
        with pytest.raises((EOFError, ConnectionResetError)):
            client.chunks(len(BLOCK) + 1)

    def closing() -> None:
        client = served.request("/closing")
        pid = moment.kill()
        response = client.response()
        assert (response.body, response.complete) == (b"all of it", True)
        told("/closing", pid)

    def cancelled() -> None:
        client = served.request("/waiting")
        until(lambda: moment.shared["begun"])
        client.close()
        told("/waiting", moment.kill())

    with Failures() as failures:
        for each in (before_the_head, reading, sending, closing, cancelled):
            with failures.of(each.__name__):
                each()
                assert served.get("/next").text == "/next"
                served.until_idle()
                assert log.lines(logging.WARNING) == []
    client = served.request("/called")
    until(lambda: moment.shared["pid"])
    served.begin_stop()
    until(lambda: served.status.stopping)
    pid = moment.kill()
    assert client.response().status == 500
    told("/called", pid)
    served.join(leaving=True)
    assert not children(served).alive


def test_a_process_that_is_killed_before_a_call_begins_costs_nothing(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one makes the call, until three have ended; when it has not started, a later one."""
    shared = Shared()
    moment = Moment()
    real = Told

    def told(payload: bytes) -> Any:
        if shared["count"]:
            shared["count"] -= 1
            os._exit(7)
        return real(payload)

    def start() -> None:
        if moment.shared["count"]:
            moment.shared["count"] -= 1
            moment.stand()

    monkeypatch.setattr(worker, "Told", told)
    monkeypatch.setattr("bide.children.executor.PAUSE", 0.05)
    served = serve(answering(lambda environ: environ["PATH_INFO"]), processes=1)
    for deaths, status in ((2, 200), (3, 500), (0, 200)):
        shared["count"] = deaths
        assert served.get("/path").status == status
        if status == 500:
            assert "has ended with exit code 7" in log.take("GET /path of").getMessage()
    served.stop()

    bide.on_start(start)
    served = serve(answering(lambda environ: environ["PATH_INFO"]), processes=1)
    moment.shared["count"] = 1
    client = served.request("/path")
    moment.kill()
    assert client.response().text == "/path"
    log.take("cannot be started: was killed by SIGKILL")


def test_what_an_unread_body_still_brings_never_reaches_the_next_request(serve: Serve) -> None:
    """Neither its end nor its failure: the next body is whole."""
    shared = Shared()

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        size = len(environ["wsgi.input"].read(1))
        if environ["PATH_INFO"] == "/read":
            shared["begun"] += 1
            shared.await_gate()
            while block := environ["wsgi.input"].read(100_000):
                size += len(block)
        start_response("200 OK", PLAIN)
        return [str(size).encode()]

    def left(client: Client) -> None:
        client.close()

    def ended(client: Client) -> None:
        client.send(BLOCK * 7)

    served = serve(application, processes=1)
    size = 80 * len(BLOCK)
    with Failures() as failures:
        for number, then in enumerate((left, ended), 1):
            with failures.of(then.__name__):
                shared["gate"] = 0
                first = served.connect()
                length = f"Content-Length: {8 * len(BLOCK)}"
                first.send(request("/", method="POST", headers=[length]))
                first.send(BLOCK)
                assert first.response().text == "1"
                served.until_idle()
                second = served.connect()
                second.send(request("/read", method="POST", headers=[f"Content-Length: {size}"]))
                upload = threading.Thread(target=second.send, args=(BLOCK * 80,))
                upload.start()
                until(lambda number=number: shared["begun"] == number)  # type: ignore[misc]
                then(first)
                served.turn(5)
                if then is left:
                    until(lambda: len(served.connections) == 1)
                served.turn(5)
                shared["gate"] = 1
                upload.join()
                assert second.response().text == str(size)
                second.close()


def test_a_process_whose_socket_another_one_has_is_still_found_dead(serve: Serve, log: Log) -> None:
    """A library has forked by itself, so that Python has not closed the socket there."""
    shared = Shared()

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/fork":
            pid = ctypes.CDLL(None).fork()
            if pid == 0:
                ctypes.CDLL(None).pause()
            shared["pid"] = pid
            os.kill(os.getpid(), signal.SIGKILL)
        start_response("200 OK", PLAIN)
        return [b"served"]

    served = serve(application, processes=1)
    try:
        assert served.get("/fork").status == 500
        log.take("was killed by SIGKILL")
        assert served.get().text == "served"
    finally:
        os.kill(shared["pid"], signal.SIGKILL)


def test_signals_end_what_an_application_forks(serve: Serve) -> None:
    """The process itself leaves them to the server."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        pid = os.fork()
        if pid == 0:
            while True:
                signal.pause()
        os.kill(pid, signal.SIGTERM)
        status = os.waitpid(pid, 0)[1]
        start_response("200 OK", PLAIN)
        return [str(os.WTERMSIG(status)).encode()]

    assert serve(application, processes=1).get().text == str(int(signal.SIGTERM))


def test_requests_that_no_process_will_come_for_are_refused(serve: Serve, log: Log) -> None:
    """The last process ends, and the one that starts them is not there any more."""
    moment = Moment()
    served = serve(moment.application, processes=1)
    first = served.request("/called")
    until(lambda: moment.shared["pid"])
    second = served.request("/next")
    until(lambda: served.status.queued == 1)
    os.kill(children(served).nursery.pid, signal.SIGKILL)
    log.take("they are no longer replaced")
    moment.kill()
    assert first.response().status == 500
    assert second.response().status == 503
    log.take("/called of")


@pytest.mark.parametrize("where", ["the application", "on_start"])
def test_a_stop_ends_what_stands_still(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """In the application, after the time to clean up; when it starts, at once."""
    monkeypatch.setattr(cleanup_time, "seconds", 0.2)
    moment = Moment()
    here = os.getpid()

    def start() -> None:
        if os.getpid() != here:
            moment.stand()

    application: Application | Callable[..., Any] = moment.application
    if where == "on_start":
        bide.on_start(start)
    served = serve(application, processes=1, graceful_timeout=0.0)
    client = served.request("/called")
    until(lambda: moment.shared["pid"])
    executor = children(served)
    pids = [moment.shared["pid"], executor.nursery.pid]
    served.begin_stop()
    if where == "on_start":
        assert client.response().status == 503  # else the server may end before it can answer
    served.join(leaving=True)
    until(lambda: not executor.alive)  # the server waits no longer than the time to clean up
    assert [gone(each) for each in pids] == [True, True]
    if where == "the application":
        log.take("have not ended in time")
        log.take("is killed")


def test_a_process_that_is_killed_already_is_not_killed_again(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled once more between the kill and the news of its end: one kill, one line."""
    monkeypatch.setattr(cleanup_time, "seconds", 0.1)
    moment = Moment()
    served = serve(moment.application, processes=1, graceful_timeout=0.0)
    client = served.request("/called")
    until(lambda: moment.shared["pid"])
    executor = children(served)
    [link] = executor._links.values()
    call = link.call
    assert isinstance(call, ProcessCall)
    kill = executor.nursery.kill

    def kill_late(number: int) -> None:
        if not link.ended and link.open:
            call.cancel(bide.Cancelled("the server ends"), firm=True)
        call._loop.call_later(3 * cleanup_time.seconds, kill, number)

    monkeypatch.setattr(executor.nursery, "kill", kill_late)
    served.begin_stop()
    served.join(leaving=True)
    client.close()
    log.take("have not ended in time")
    log.take("is killed")
