"""What the steps of ``docs/tutorial.md`` do with threads, each checked on a real server."""

import asyncio
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.served import DEADLINE, Client, Gate, Served, until

ALL = "Lima has it\nOslo has it\nRome has it\n"


def _with_gates(name: str) -> dict[float, Gate]:
    """Have a module's calls wait for a gate each, and return the gates by the seconds."""
    gates: dict[float, Gate] = {}

    def sleep(seconds: float) -> "asyncio.Future[Any]":
        return asyncio.wrap_future(gates.setdefault(seconds, Gate()).promise())

    module: Any = sys.modules[name]
    module.asyncio = SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    return gates


def holds_a_thread(path: str) -> Callable[[Served], None]:
    """Check that each request that blocks holds a thread of its own."""

    def check(served: Served) -> None:
        answered = threading.Event()
        module: Any = sys.modules["blocking"]
        module.time = SimpleNamespace(sleep=lambda seconds: answered.wait(DEADLINE))
        clients = [served.request(path) for _ in range(3)]
        until(lambda: served.status.threads_busy == 3)
        assert served.status.waiting == 0
        answered.set()
        assert {client.response().text for client in clients} == {ALL}

    return check


def holds_no_thread(path: str) -> Callable[[Served], None]:
    """Check that more requests wait than there are threads, none of which is busy."""

    def check(served: Served) -> None:
        gates = _with_gates("waiting")
        clients = [served.request(path) for _ in range(20)]
        served.until_waiting(20)
        until(lambda: served.status.threads_busy == 0)
        assert len(gates) == 1, "one shop is asked after the other"
        for seconds in list(sys.modules["waiting"].SECONDS.values()):
            until(lambda seconds=seconds: seconds in gates)  # type: ignore[misc]
            gates[seconds].open()
        assert {client.response().text for client in clients} == {ALL}

    return check


def asks_all_at_once(path: str) -> Callable[[Served], None]:
    """Check that all shops have been asked before one has answered."""

    def check(served: Served) -> None:
        gates = _with_gates("together")
        seconds = set(sys.modules["together"].SECONDS.values())
        client = served.request(path)
        until(lambda: set(gates) == seconds)
        for gate in gates.values():
            gate.open()
        assert client.response().text == ALL

    return check


def sends_what_comes_first(path: str) -> Callable[[Served], None]:
    """Check that a shop's answer is sent while others have not answered."""

    def check(served: Served) -> None:
        gates = _with_gates("streaming")
        shops = dict(sys.modules["streaming"].SECONDS)
        client = served.request(path)
        until(lambda: len(gates) == len(shops))
        for shop in ("Oslo", "Rome", "Lima"):
            gates[shops[shop]].open()
            if shop == "Oslo":
                client.head()
            assert client.chunk() == f"{shop} has it\n".encode()
        assert client.chunk() == b""

    return check


def _read_up_to(client: Client, wanted: bytes) -> None:
    """Read a stream's blocks until this one has come."""
    for _ in range(500):
        if client.chunk() == wanted:
            return
    raise AssertionError(f"{wanted!r} never came")


def counts_its_readers(path: str) -> Callable[[Served], None]:
    """Check that those who come are counted, that those who leave are not, and the end."""

    def check(served: Served) -> None:
        one, two = served.request(path), served.request(path)
        for client in (one, two):
            assert client.head().header("X-Accel-Buffering") == "no"
            _read_up_to(client, b"data: 2\n\n")
        two.close()
        _read_up_to(one, b"data: 1\n\n")
        served.begin_stop()  # the stream comes to its end by itself
        while one.chunk():
            pass

    return check
