"""An application's calls: begun, counted, ended; on executors of its own, and on shared ones."""

import asyncio
import threading
from functools import partial
from typing import Any

import pytest

from bide import capable, wait
from bide.applications.mounts import Mounts
from bide.errors import Cancelled, LoadError
from bide.exchange.messages import Request
from bide.exchange.stream import Stream
from bide.executors.choice import Executors
from bide.hosts.channel import HostChannel
from bide.serving.dispatcher import Dispatcher
from bide.serving.hosting import hosted, hosted_all
from bide.settings import Settings
from bide.waiting.cleanups import cleanup_time
from bide.wsgi.conversation import Conversation
from tests.fakes import PEER
from tests.hosts.asgi_server import run, until
from tests.served import LONG, Application, Environ, Gate, Log, answering, happened

EXECUTORS = pytest.mark.parametrize("executor", ["threads", "loop"])


class Hosting:
    """A dispatcher, and responses that nobody sends on."""

    def __init__(
        self, application: Application, executors: Executors | None = None, **options: Any
    ) -> None:
        if executors is None:
            loop = asyncio.get_running_loop()
            self.dispatcher = hosted(application, Settings(**options), loop)
        else:
            self.dispatcher = Dispatcher(application, Settings(**options))
            self.dispatcher.open(executors)
        self.ended: list[int] = []

    def begin(self, path: bytes = b"/") -> HostChannel:
        """Begin a request."""
        channel = HostChannel(PEER, lambda: None)
        stream = Stream(Request("GET", path, path, b"", "1.1", []), channel, window=0)
        call = self.dispatcher.begin(stream, ended=lambda: self.ended.append(threading.get_ident()))
        self.dispatcher.run(call)
        return channel

    async def until(self, **numbers: int) -> None:
        """Return once the status has these numbers."""
        await until(
            lambda: all(getattr(self.dispatcher.status(), key) == n for key, n in numbers.items())
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
        assert hosting.dispatcher.in_progress
        assert not hosting.ended
        gate.open()
        await until(lambda: hosting.ended)
        assert status_of(channel) == 200
        hosting.dispatcher.cancel()
        rejected = hosting.begin()
        assert status_of(rejected) == 503
        assert len(hosting.ended) == 2
        await hosting.dispatcher.stop()

    run(steps())


@EXECUTORS
def test_stopping_cancels_what_waits_and_rejects_what_is_queued(log: Log, executor: str) -> None:
    """And ends the threads."""
    gate = Gate()

    async def steps() -> None:
        before = set(threading.enumerate())
        hosting = Hosting(answering(lambda environ: wait(gate.promise())), executor=executor)
        channels = [hosting.begin() for _ in range(10)]
        await hosting.until(waiting=10)
        await hosting.dispatcher.stop()
        assert [status_of(channel) for channel in channels] == [503] * 10
        await until(lambda: not set(threading.enumerate()) - before)

    run(steps())


def test_what_runs_on_is_left_behind_and_named(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running code is not interrupted, and a host does not wait for it for ever."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> None:
        begun.set()
        happened(release)

    async def steps() -> None:
        hosting = Hosting(answering(answer))
        monkeypatch.setattr(cleanup_time, "seconds", 0.01)
        hosting.begin()
        await until(begun.is_set)
        await hosting.dispatcher.stop()
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
        abandoning = threading.Thread(target=hostings[0].dispatcher.abandon)
        abandoning.start()
        abandoning.join()
    assert len(hostings[0].ended) == 9
    release.set()
    for lane in lanes:
        lane.join(20)
        assert not lane.is_alive()
    assert len(hostings[0].ended) == 10
    assert not hostings[0].dispatcher.in_progress


class Failing(Conversation):
    """A conversation that cannot be cancelled; its wait is ended all the same.

    Attributes:
        fails: the paths of those.
    """

    fails = (b"/1",)

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait, and raise."""
        super().cancel(cancellation, firm)
        if self.stream.request.path in self.fails:
            raise ZeroDivisionError


@EXECUTORS
@pytest.mark.parametrize("end", ["cancel", "abandon"])
def test_a_call_whose_cancellation_fails_does_not_keep_the_others(
    log: Log, executor: str, end: str
) -> None:
    """When the server stops, and when the loop is closed; the log says so once."""
    gate = Gate()
    channels: list[HostChannel] = []

    async def steps() -> None:
        hosting = Hosting(answering(lambda environ: wait(gate.promise())), executor=executor)
        hosting.dispatcher.make = Failing
        channels.extend(hosting.begin(f"/{number}".encode()) for number in range(4))
        await hosting.until(waiting=4)
        getattr(hosting.dispatcher, end)()
        await until(lambda: len(hosting.ended) == 4)
        assert log.take("could not be told of its end").exc_info
        assert not log.records
        assert hosting.dispatcher.stopping
        await hosting.dispatcher.stop()

    run(steps())
    assert [status_of(channel) for channel in channels] == [503] * 4


def test_an_application_whose_end_fails_does_not_keep_the_others(log: Log) -> None:
    """Each of a server's applications is told of the stop, and cancelled."""

    class Broken:
        def __call__(self) -> None:
            raise ZeroDivisionError

    async def steps() -> None:
        mounts = Mounts({"/a": answering(lambda _: "a"), "/b": answering(lambda _: "b")})
        dispatchers = hosted_all(mounts, Settings(), asyncio.get_running_loop())
        first: Any
        first, *others = dispatchers._all
        broken: Any = Broken()
        first.drain.fire = first.spawner.cancel = broken
        dispatchers.begin_to_stop()
        dispatchers.cancel()
        assert others
        assert all(each.stopping and each.drain._fired for each in others)
        assert all(each.spawner._end_by for each in others)
        log.take("was not told of the stop")
        log.take("could not be told of its end")
        assert not log.records
        del first.spawner.cancel, first.drain.fire
        await first.stop()
        await dispatchers.stop()

    run(steps())


def test_a_call_that_cannot_be_given_up_in_a_fork_does_not_keep_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There no log may be used: the error is printed."""
    told: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def after_fork(self) -> None:
            told.append(self.name)
            if self.name == "b":
                raise ZeroDivisionError

    class Call:
        def __init__(self, name: str) -> None:
            self.stream = Stream(name)

    async def steps() -> None:
        hosting = Hosting(answering(lambda _: "a"))
        calls: Any = {Call(name): None for name in "abc"}
        hosting.dispatcher._calls = calls
        hosting.dispatcher.after_fork()
        calls.clear()
        await hosting.dispatcher.stop()

    run(steps())
    assert told == ["a", "b", "c"]
    assert capsys.readouterr().err.count("\nZeroDivisionError") == 1


def test_what_is_no_application_is_refused(log: Log) -> None:
    """By the dispatcher, too."""

    async def steps() -> None:
        with pytest.raises(LoadError):
            Hosting(1)  # type: ignore[arg-type]

    run(steps())


# Shared executors --------------------------------------------------------------------------------


class Shared:
    """Two applications on the executors of one server.

    Attributes:
        gates: where the requests of each application wait.
        threads: the threads on which their requests have begun.
    """

    def __init__(self, executor: str = "threads", threads: int = 1, queue: int = 100) -> None:
        self.executors = Executors(asyncio.get_running_loop(), threads, queue)
        self.gates = [Gate(), Gate()]
        self.threads: list[set[int]] = [set(), set()]
        self.first, self.second = (
            Hosting(answering(partial(self._wait, number)), self.executors, executor=executor)
            for number in range(2)
        )

    def _wait(self, number: int, environ: Environ) -> None:
        self.threads[number].add(threading.get_ident())
        wait(self.gates[number].promise())


@EXECUTORS
def test_applications_share_an_executor_and_each_counts_its_own(log: Log, executor: str) -> None:
    """The requests of both run on the same thread; waiting, running and queued are each's own."""

    async def steps() -> None:
        shared = Shared(executor)
        first, second = shared.first, shared.second
        for number in range(3):
            first.begin()
            if number:
                second.begin()
        await first.until(waiting=3, running=0, queued=0)
        await second.until(waiting=2, running=0, queued=0)
        assert first.dispatcher.executor is second.dispatcher.executor
        assert shared.threads[0] == shared.threads[1]
        assert len(shared.threads[0]) == 1
        assert (first.dispatcher.in_progress, second.dispatcher.in_progress) == (3, 2)
        shared.gates[1].open()
        await until(lambda: len(second.ended) == 2)
        assert second.dispatcher.status().waiting == 0
        assert first.dispatcher.status().waiting == 3
        shared.gates[0].open()
        await until(lambda: len(first.ended) == 3)
        await first.dispatcher.stop()
        await second.dispatcher.stop()

    run(steps())


@EXECUTORS
def test_one_application_stops_and_the_other_goes_on(log: Log, executor: str) -> None:
    """On the same threads, which end with the last that uses them."""

    async def steps() -> None:
        before = set(threading.enumerate())
        shared = Shared(executor)
        first, second = shared.first, shared.second
        stopped = [first.begin() for _ in range(2)]
        going_on = second.begin()
        await first.until(waiting=2)
        await second.until(waiting=1)
        await first.dispatcher.stop()  # which waits for no thread that the other uses
        assert len(first.ended) == 2
        assert [status_of(channel) for channel in stopped] == [503] * 2
        assert second.dispatcher.status().waiting == 1
        shared.gates[1].open()
        second.begin()
        await until(lambda: len(second.ended) == 2)
        assert status_of(going_on) == 200
        assert len(shared.threads[0] | shared.threads[1]) == 1
        await second.dispatcher.stop()
        assert not set(threading.enumerate()) - before

    run(steps())


def test_what_one_application_has_queued_is_rejected_and_the_others_is_not(log: Log) -> None:
    """There is one queue before all threads. What expires or is stopped there is each one's own."""
    begun, release = threading.Event(), threading.Event()

    def block(environ: Environ) -> None:
        begun.set()
        happened(release)

    async def steps() -> None:
        executors = Executors(asyncio.get_running_loop(), 1, 4)
        first = Hosting(answering(block), executors, queue_timeout=LONG)
        second = Hosting(answering(lambda environ: b"x"), executors)
        first.begin()
        await until(begun.is_set)
        for _ in range(2):
            first.begin()
            second.begin()
        assert (first.dispatcher.status().queued, second.dispatcher.status().queued) == (2, 2)
        assert status_of(second.begin()) == 503, "the queue is full, whoever fills it"
        assert status_of(first.begin()) == 503
        first.dispatcher.mind_time(LONG)
        assert (first.dispatcher.status().queued, second.dispatcher.status().queued) == (0, 2)
        first.begin()
        first.dispatcher.cancel()
        assert (first.dispatcher.status().queued, second.dispatcher.status().queued) == (0, 2)
        assert len(first.ended) == 4
        release.set()
        await until(lambda: (len(first.ended), len(second.ended)) == (5, 3))
        await first.dispatcher.stop()
        await second.dispatcher.stop()

    run(steps())


def test_one_request_at_a_time_is_an_applications_own_affair(log: Log) -> None:
    """It has a thread of its own, though others are served in the pool of the server."""

    async def steps() -> None:
        executors = Executors(asyncio.get_running_loop(), 2, 100)
        gate = Gate()

        def serial(environ: Environ) -> None:
            wait(gate.promise())

        one = Hosting(capable("processes")(answering(serial)), executors)
        another = Hosting(capable("processes")(answering(serial)), executors)
        pooled = Hosting(answering(lambda environ: b"x"), executors)
        kinds = [each.dispatcher.decision.executor for each in (one, another, pooled)]
        assert kinds == ["serial", "serial", "threads"]
        for each in (one, another, pooled):
            each.begin()
            each.begin()
        await until(lambda: len(pooled.ended) == 2)
        await one.until(waiting=1, queued=1, threads=1)
        await another.until(waiting=1, queued=1, threads=1)
        gate.open()
        await until(lambda: len(one.ended) == len(another.ended) == 2)
        for each in (one, another, pooled):
            await each.dispatcher.stop()

    run(steps())
