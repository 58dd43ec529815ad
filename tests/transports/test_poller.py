"""Pollers: which sockets are ready, and that nothing is told of one that is closed."""

import asyncio
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide.transports.pollable import Pollable
from bide.transports.poller import (
    GONE,
    READ,
    REST,
    WRITE,
    EpollPoller,
    LoopPoller,
    Poller,
    make_poller,
)
from tests.fakes import ManualLoop

TIMEOUT = 20.0
KINDS = [EpollPoller, LoopPoller]


class Watching:
    """A poller on a real loop, with sockets that it watches."""

    def __init__(self, kind: Callable[..., Poller]) -> None:
        self.loop = asyncio.new_event_loop()
        self.batches: list[int] = []
        self.told: list[tuple[str, int]] = []
        self.aborted: list[str] = []
        self.poller = kind(self.loop, lambda: self.batches.append(len(self.told)))
        self.sockets: list[socket.socket] = []

    def target(self, name: str) -> "Target":
        """Watch one end of a new pair; the other end is its ``client``."""
        server, client = socket.socketpair()
        server.setblocking(False)
        self.sockets += [server, client]
        return Target(self, name, server, client)

    def run(self) -> None:
        """Run the loop until it has served what is ready."""
        for _ in range(3):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def end(self) -> None:
        """Close all."""
        self.poller.close()
        for each in self.sockets:
            each.close()
        self.loop.close()


class Target(Pollable):
    """The owner of a socket."""

    def __init__(
        self, watching: Watching, name: str, server: socket.socket, client: socket.socket
    ) -> None:
        self.watching = watching
        self.name = name
        self.server = server
        self.client = client
        self.descriptor = server.fileno()
        self.then: Callable[[], object] = self.stop
        watching.poller.register(self.descriptor, self)

    def ready(self, events: int) -> None:
        """Note it, and do what the test says."""
        self.watching.told.append((self.name, events))
        self.then()

    def abort(self) -> None:
        """Note it."""
        self.watching.aborted.append(self.name)
        self.stop()

    def stop(self) -> None:
        """Want to be told no more."""
        self.watching.poller.watch(self.descriptor, 0)


@pytest.fixture(params=KINDS)
def watching(request: pytest.FixtureRequest) -> Iterator[Watching]:
    """Return a poller of each kind."""
    watching = Watching(request.param)
    yield watching
    watching.end()


def test_a_socket_is_watched_to_read(watching: Watching) -> None:
    """From its registration on."""
    target = watching.target("one")
    watching.run()
    assert watching.told == []
    target.client.send(b"x")
    watching.run()
    assert watching.told == [("one", READ)]


def test_a_socket_is_watched_to_write_when_asked(watching: Watching) -> None:
    """And not before."""
    target = watching.target("one")
    watching.poller.watch(target.descriptor, READ | WRITE)
    watching.run()
    assert watching.told == [("one", WRITE)]


def test_what_is_watched_may_be_set_by_any_thread(watching: Watching) -> None:
    """A lane that could not send all."""
    target = watching.target("one")
    thread = threading.Thread(target=watching.poller.watch, args=[target.descriptor, WRITE])
    thread.start()
    thread.join(TIMEOUT)
    watching.run()
    assert watching.told == [("one", WRITE)]


def test_a_socket_that_is_not_watched_is_told_of_no_more(watching: Watching) -> None:
    """Until it is again."""
    target = watching.target("one")
    watching.poller.watch(target.descriptor, 0)
    target.client.send(b"x")
    watching.run()
    assert watching.told == []
    watching.poller.watch(target.descriptor, READ)
    watching.run()
    assert watching.told == [("one", READ)]


def test_an_unregistered_socket_is_told_of_no_more(watching: Watching) -> None:
    """Its descriptor may be another's by now."""
    target = watching.target("one")
    target.client.send(b"x")
    watching.poller.unregister(target.descriptor)
    watching.run()
    assert watching.told == []


def test_a_socket_closed_by_one_that_was_served_before_it_is_not_told_of(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    """Both were found ready at once."""
    one, other = watching.target("one"), watching.target("other")

    def close(target: Target) -> None:
        watching.poller.unregister(target.descriptor)
        target.server.close()

    one.then = lambda: (one.stop(), close(other))  # type: ignore[func-returns-value]
    other.then = lambda: (other.stop(), close(one))  # type: ignore[func-returns-value]
    one.client.send(b"x")
    other.client.send(b"x")
    watching.run()
    assert len(watching.told) == 1
    assert caplog.records == []


def test_what_comes_after_is_called_when_all_have_been_served(watching: Watching) -> None:
    """So that what they brought is passed on together, where the poller can."""
    for name in ("one", "other"):
        watching.target(name).client.send(b"x")
    watching.run()
    assert watching.batches[-1] == 2
    if isinstance(watching.poller, EpollPoller):
        assert watching.batches[0] == 2


def test_the_best_poller_of_the_system_is_made() -> None:
    """One of epoll where there is that."""
    loop = asyncio.new_event_loop()
    poller = make_poller(loop)
    assert isinstance(poller, EpollPoller if hasattr(select, "epoll") else LoopPoller)
    poller.close()
    loop.close()


# epoll alone -----------------------------------------------------------------------------------


@pytest.fixture
def epoll() -> Iterator[Watching]:
    """Return an epoll poller."""
    watching = Watching(EpollPoller)
    yield watching
    watching.end()


def test_a_socket_that_hung_up_is_told_of_without_being_watched(epoll: Watching) -> None:
    """That is how a client's going is noticed while its connection is not read."""
    target = epoll.target("one")
    target.stop()
    target.client.close()
    target.then = lambda: epoll.poller.unregister(target.descriptor)
    epoll.run()
    ((_, events),) = epoll.told
    assert events & GONE
    epoll.poller.register(target.descriptor, target)


def test_an_error_in_one_owner_leaves_the_others_alone(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged as ours, and that one is ended: it may have taken half of what came."""
    one, other = watching.target("one"), watching.target("other")

    def fail() -> None:
        raise ValueError("no")

    one.then = fail
    one.client.send(b"x")
    other.client.send(b"x")
    watching.run()
    assert sorted(watching.told) == [("one", READ), ("other", READ)]
    assert watching.aborted == ["one"]
    assert [each.message for each in caplog.records] == [
        "internal error on a connection: it is closed"
    ]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_an_owner_that_would_end_the_loop_is_ended_first(
    watching: Watching, error: BaseException
) -> None:
    """Whoever runs the loop decides whether it goes on."""
    one = watching.target("one")

    def fail() -> None:
        raise error

    one.then = fail
    one.client.send(b"x")
    with pytest.raises(type(error)):
        watching.run()
    assert watching.aborted == ["one"]


class Handed:
    """A loop that watches descriptors as it is told; the time is the test's."""

    def __init__(self) -> None:
        self.manual = ManualLoop()
        self.readers: dict[int, tuple[Any, ...]] = {}
        self.writers: dict[int, tuple[Any, ...]] = {}

    def add_reader(self, descriptor: int, *callback: Any) -> None:
        """Watch to read."""
        self.readers[descriptor] = callback

    def remove_reader(self, descriptor: int) -> None:
        """Watch no more."""
        self.readers.pop(descriptor, None)

    def add_writer(self, descriptor: int, *callback: Any) -> None:
        """Watch to write."""
        self.writers[descriptor] = callback

    def remove_writer(self, descriptor: int) -> None:
        """Watch no more."""
        self.writers.pop(descriptor, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.manual, name)


@pytest.fixture
def handed() -> Iterator[Any]:
    """Return such a loop."""
    loop = Handed()
    yield loop
    loop.manual.close()


def test_a_rest_ends_in_time_or_by_a_wake(handed: Any) -> None:
    """And says so; meanwhile nothing is looked for."""
    ended: list[str] = []
    poller = EpollPoller(handed, lambda: None)
    poller.rest(lambda: ended.append("one"))
    assert handed.readers == {}
    poller.rest(lambda: ended.append("a second one"))
    handed.advance(REST)
    assert ended == ["one"]
    assert len(handed.readers) == 1
    poller.rest(lambda: ended.append("two"))
    poller.wake()
    poller.wake()
    assert ended == ["one", "two"]
    assert len(handed.readers) == 1
    assert handed.timers == 0
    poller.close()
    assert handed.readers == {}


def test_closing_ends_a_rest(handed: Any) -> None:
    """No timer is left on the loop."""
    ended: list[str] = []
    poller = EpollPoller(handed, lambda: None)
    poller.rest(lambda: ended.append("one"))
    poller.close()
    assert ended == ["one"]
    assert handed.timers == 0
    assert handed.readers == {}


# The loop's own watching -------------------------------------------------------------------------


class Idle(Pollable):
    """An owner that is told nothing."""

    def ready(self, events: int) -> None:
        """Never be called."""
        raise AssertionError

    def abort(self) -> None:
        """Never be called."""
        raise AssertionError


def from_a_thread(function: Callable[..., object], *args: Any) -> None:
    """Call a function in another thread, to its end."""
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join(TIMEOUT)


def test_the_loops_word_is_not_undone_by_a_threads_earlier_one(handed: Any) -> None:
    """Which comes later to the loop: a lane could not send all, and reading was paused since."""
    poller = LoopPoller(handed, lambda: None)
    handed.call_soon(poller.register, 7, Idle())
    handed.settle()
    from_a_thread(poller.watch, 7, READ | WRITE)
    on_the_loop(handed, poller, 7, WRITE)
    handed.settle()
    assert 7 not in handed.readers
    assert 7 in handed.writers


def on_the_loop(loop: Any, poller: LoopPoller, descriptor: int, events: int) -> None:
    """Watch on the loop before the words of threads are read."""
    asyncio._set_running_loop(loop)
    try:
        poller.watch(descriptor, events)
    finally:
        asyncio._set_running_loop(None)


def test_a_threads_word_about_a_descriptor_that_was_closed_is_dropped(handed: Any) -> None:
    """Also when the descriptor is another's by now."""
    poller = LoopPoller(handed, lambda: None)
    poller.register(7, Idle())
    from_a_thread(poller.watch, 7, READ | WRITE)
    poller.unregister(7)
    poller.register(7, Idle())
    handed.settle()
    assert 7 in handed.readers
    assert 7 not in handed.writers
    from_a_thread(poller.watch, 7, READ | WRITE)
    poller.unregister(7)
    handed.settle()
    assert handed.readers == handed.writers == {}
    from_a_thread(poller.watch, 7, READ | WRITE)
    handed.settle()
    assert handed.readers == handed.writers == {}


def test_the_loops_own_watching_does_not_rest(handed: Any) -> None:
    """To unwatch each socket would cost more."""
    ended: list[bool] = []
    poller = LoopPoller(handed, lambda: None)
    poller.register(7, Idle())
    poller.rest(lambda: ended.append(True))
    assert not ended, "whoever calls it is not called back meanwhile"
    handed.settle()
    assert ended == [True]
    poller.wake()
    assert 7 in handed.readers
