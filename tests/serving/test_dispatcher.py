"""Conversations on a loop that is somebody else's: begun, counted, ended."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from bide import wait
from bide.errors import LoadError
from bide.exchange.messages import Request
from bide.exchange.stream import Stream
from bide.hosts.channel import HostChannel
from bide.serving.dispatcher import Runner
from tests.fakes import PEER
from tests.hosts.asgi_server import run, until
from tests.served import Application, Environ, Gate, Log, answering, happened

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")
EXECUTORS = pytest.mark.parametrize("executor", ["threads", "loop"])


class Hosting:
    """A runner, and responses that nobody sends on."""

    def __init__(self, application: Application, **options: Any) -> None:
        self.runner = Runner(application, asyncio.get_running_loop(), **options)
        self.ended: list[int] = []

    def begin(self, context: contextvars.Context | None = None) -> HostChannel:
        """Begin a request."""
        channel = HostChannel(PEER, lambda: None)
        stream = Stream(Request("GET", b"/", b"/", b"", "1.1", []), channel, window=0)
        self.runner.begin(
            stream,
            context=context,
            ended=lambda: self.ended.append(threading.get_ident()),
        )
        return channel

    async def until(self, **numbers: int) -> None:
        """Return once the status has these numbers."""
        await until(
            lambda: all(getattr(self.runner.status(), key) == n for key, n in numbers.items())
        )


def status_of(channel: HostChannel) -> int:
    part = channel.take()
    assert part is not None
    assert part.head is not None
    return part.head.code


@EXECUTORS
def test_an_end_is_told_once_all_has_ended(log: Log, executor: str) -> None:
    """Also that of a request which was answered in the application's place."""
    gate = Gate()

    async def steps() -> None:
        hosting = Hosting(answering(lambda environ: wait(gate.promise())), executor=executor)
        channel = hosting.begin()
        await hosting.until(waiting=1, running=0)
        assert hosting.runner.busy
        assert not hosting.ended
        gate.open()
        await until(lambda: hosting.ended)
        assert status_of(channel) == 200
        hosting.runner.cancel()
        rejected = hosting.begin()
        assert status_of(rejected) == 503
        assert len(hosting.ended) == 2
        await hosting.runner.stop()

    run(steps())


@EXECUTORS
def test_a_context_is_the_applications_own_and_no_others(log: Log, executor: str) -> None:
    """Whether its host gives one or not; greenlets are used again, contexts are not."""
    seen: list[str] = []

    def answer(environ: Environ) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set("changed")
        wait(asyncio.sleep(0))
        assert VARIABLE.get() == "changed"

    async def steps() -> None:
        hosting = Hosting(answering(answer), executor=executor, threads=1)
        given = contextvars.Context()
        given.run(VARIABLE.set, "given")
        for number, context in enumerate([None, given, None], 1):
            hosting.begin(context)
            await until(lambda number=number: len(hosting.ended) == number)  # type: ignore[misc]
        assert given[VARIABLE] == "changed"
        assert VARIABLE.get() == "unset"
        await hosting.runner.stop()

    run(steps())
    assert seen == ["unset", "given", "unset"]


@EXECUTORS
def test_stopping_cancels_what_waits_and_rejects_what_is_queued(log: Log, executor: str) -> None:
    """And ends the threads."""
    gate = Gate()

    async def steps() -> None:
        before = set(threading.enumerate())
        hosting = Hosting(answering(lambda environ: wait(gate.promise())), executor=executor)
        channels = [hosting.begin() for _ in range(10)]
        await hosting.until(waiting=10)
        await hosting.runner.stop()
        assert [status_of(channel) for channel in channels] == [503] * 10
        await until(lambda: not set(threading.enumerate()) - before)

    run(steps())


def test_what_runs_on_is_left_behind_and_named(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running code is not interrupted, and a host does not wait for it for ever."""
    monkeypatch.setattr("bide.serving.dispatcher.CLEANUP_SECONDS", 0.01)
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> None:
        begun.set()
        happened(release)

    async def steps() -> None:
        hosting = Hosting(answering(answer))
        hosting.begin()
        await until(begun.is_set)
        await hosting.runner.stop()
        assert "GET /" in log.take("left running").getMessage()
        release.set()
        await until(lambda: hosting.ended)

    run(steps())


def test_abandoned_on_a_closed_loop_lanes_end_and_the_queue_is_answered(log: Log) -> None:
    """From another thread than the loop's was, and as often as it is asked."""
    gate = Gate()
    begun, release = threading.Event(), threading.Event()
    hostings: list[Hosting] = []

    def answer(environ: Environ) -> None:
        begun.set()
        happened(release)
        wait(gate.promise())

    async def steps() -> None:
        hosting = Hosting(answering(answer), threads=1)
        hostings.append(hosting)
        hosting.begin()
        await until(begun.is_set)
        for _ in range(9):
            hosting.begin()
        await hosting.until(queued=9)

    before = set(threading.enumerate())
    run(steps())
    lanes = [each for each in threading.enumerate() if each not in before]
    for _ in range(2):
        abandoning = threading.Thread(target=hostings[0].runner.abandon)
        abandoning.start()
        abandoning.join()
    assert len(hostings[0].ended) == 9
    release.set()
    for lane in lanes:
        lane.join(20)
        assert not lane.is_alive()
    assert len(hostings[0].ended) == 10
    assert not hostings[0].runner.busy


def test_what_is_no_application_is_refused(log: Log) -> None:
    """By the runner, too."""

    async def steps() -> None:
        with pytest.raises(LoadError):
            Hosting(1)  # type: ignore[arg-type]

    run(steps())
