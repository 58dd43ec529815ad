"""How many connections and requests a client has: what is counted, and that none leaks."""

from __future__ import annotations

import random
import threading
from typing import Any, cast

from bide.exchange.channel import Channel
from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.serving.clients import HIDDEN, Clients
from tests.failures import Failures, same
from tests.served import happened


class Answer:
    """A stream, as far as it is counted.

    Attributes:
        over: whether its response has ended.
    """

    def __init__(self) -> None:
        self.over = False

    def answered(self) -> bool:
        """Return whether its response has ended."""
        return self.over


def test_a_client_is_named_by_its_address_or_its_network() -> None:
    """Not counted are Unix sockets, and proxies that speak for themselves."""
    client = ("192.0.2.7", 5123)
    with Failures() as failures:
        for peer, expected in (
            (Peer("http", None, client), "192.0.2.7"),
            (Peer("http", None, ("2001:db8::7", 5123)), "2001:db8::/64"),
            (Peer("http", None, client, proxy="10.0.0.1"), "192.0.2.7"),
            (Peer("http", None, None, proxy="10.0.0.1"), HIDDEN),
            (Peer("http", None, None, proxy=""), HIDDEN),
            (Peer("http", None, client, trusted=True), ""),
            (Peer("http", None, None), ""),
        ):
            with failures.of(f"{peer.client} {peer.proxy}"):
                same(Clients.name(peer), expected)


def test_the_counts_are_those_of_a_model_whatever_happens_in_what_order() -> None:
    """Answers, ends, refusals and departures in any order: nothing is counted twice or for ever."""
    for seed in range(300):
        chance = random.Random(seed)
        most = chance.randint(1, 3)
        clients = Clients(most, most)
        running: dict[str, list[Any]] = {"a": [], "b": []}  # counted; their calls have not ended
        connected: dict[str, list[object]] = {"a": [], "b": []}
        refused = [0, 0]
        for step in range(60):
            name = chance.choice("ab")
            match chance.choice(
                ["begin", "begin", "answer", "end", "twice", "settle", "connect", "leave"]
            ):
                case "begin":
                    open_ones = [each for each in running[name] if not each.over]
                    may = clients.may_begin(name)
                    assert may == (len(open_ones) < most), (seed, step)
                    if may:
                        running[name].append(Answer())
                        clients.begin(name, running[name][-1])
                    refused[1] += not may
                case "answer" if running[name]:
                    chance.choice(running[name]).over = True
                case "end" if running[name]:  # with or without an answer
                    clients.ended(name, running[name].pop(chance.randrange(len(running[name]))))
                case "twice" if running[name]:  # it had been forgotten when it was answered
                    stream = running[name].pop()
                    clients.ended(name, stream)
                    clients.ended(name, stream)
                case "settle":
                    clients.settle()
                case "connect":
                    token = object()
                    may = clients.enter(name, token)
                    assert may == (len(connected[name]) < most), (seed, step)
                    if may:
                        connected[name].append(token)
                    refused[0] += not may
                case "leave":
                    token = connected[name].pop() if connected[name] else object()
                    clients.leave(name, token)
        assert [clients.refused_connections, clients.refused_requests] == refused, seed
        for name in "ab":
            for stream in running[name]:
                clients.ended(name, stream)
            for token in connected[name]:
                clients.leave(name, token)
        assert clients.counted == (0, 0), seed


def test_ends_on_many_threads_are_counted_once_each() -> None:
    """Calls end on their lanes while the loop begins others."""
    clients = Clients(0, 10_000)
    streams: list[Any] = [Answer() for _ in range(800)]
    for stream in streams:
        assert clients.may_begin("a")
        clients.begin("a", stream)
    together = threading.Barrier(5)

    def end(part: list[Any]) -> None:
        together.wait()
        for stream in part:
            clients.ended("a", stream)

    threads = [threading.Thread(target=end, args=(streams[each::4],)) for each in range(4)]
    for thread in threads:
        thread.start()
    together.wait()
    while any(thread.is_alive() for thread in threads):
        clients.settle()
    assert clients.counted == (0, 0)


class Lock:
    """The lock of a connection, which tells when another thread than its holder wants it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holder = 0
        self.wanted = threading.Event()

    def __enter__(self) -> None:
        if self._holder not in (0, threading.get_ident()):
            self.wanted.set()
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._holder = 0
        self._lock.release()


class Slow(Channel):
    """Has sent all, and has not returned before somebody wants the lock.

    Attributes:
        sending: set when it has sent.
    """

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.peer = Peer("http", None, None)
        self.sending = threading.Event()

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Return when somebody looks."""
        self.sending.set()
        happened(cast(Lock, self.lock).wanted)
        return True


def test_an_answer_that_is_just_being_sent_is_waited_for() -> None:
    """Its client may have it, and ask again, before the thread that sends it has noted its end."""
    lock = Lock()
    channel = Slow(lock)
    stream = Stream(Request("GET", b"/", b"/", b"", "1.1", []), channel, 0)
    clients = Clients(0, 1)
    clients.begin("a", stream)
    assert not clients.may_begin("a")
    stream.start("200 OK", [])
    thread = threading.Thread(target=stream.end)
    thread.start()
    happened(channel.sending)
    try:
        assert clients.may_begin("a")
    finally:
        lock.wanted.set()
        thread.join()
