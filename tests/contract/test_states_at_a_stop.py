"""Whatever a connection is in the midst of when its server stops, it ends as the guide says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import bide
from bide import wait
from tests import http2
from tests.asgi.sites import Receive, Scope, Send, answer, body, start
from tests.conftest import Serve
from tests.contract.test_stopping import in_its_handshake
from tests.failures import Failures, same
from tests.protocols.websocket.peers import read_frame, upgraded
from tests.protocols.websocket.wires import CLOSE, FIN, closing
from tests.served import (
    LONG,
    Client,
    Environ,
    Gate,
    Log,
    Served,
    happened,
    request,
    until,
)
from tests.tls import certificates

LARGE = 8 * 1024 * 1024
"""Bytes that no socket takes whole from its server while the client reads nothing."""
SOON = 0.02
"""Seconds after which the time to finish is over; nothing that is looked at depends on them."""
ALL = ("threads", "loop", "asgi")


class Site:
    """One application, once for each interface; its requests wait for what the test does.

    Attributes:
        gate: what requests wait for without a thread.
        begun: set once a request blocks its thread.
        release: what that waits for.
    """

    def __init__(self) -> None:
        self.gate = Gate()
        self.begun, self.release = threading.Event(), threading.Event()

    def wsgi(self, environ: Environ, start_response: Any) -> Any:
        """Answer as the path says."""
        path = environ["PATH_INFO"]
        text = b"answered"
        if "HTTP_UPGRADE" in environ:
            for _ in bide.websocket(environ):
                pass
            wait(self.gate.promise())
            return []
        if path == "/reads":
            text = environ["wsgi.input"].read()
        elif path == "/waits":
            wait(self.gate.promise())
        elif path == "/blocks":
            self.begun.set()
            happened(self.release)
        elif path == "/large":
            text = bytes(LARGE)
        start_response("200 OK", [])
        return self._halves() if path == "/halves" else [text]

    def _halves(self) -> Iterator[bytes]:
        yield b"one half, "
        wait(self.gate.promise())
        yield b"and the other"

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the path says."""
        path = scope["path"]
        text = b"answered"
        if path == "/reads":
            whole = await self._read(receive)
            if whole is None:
                return
            text = whole
        elif path == "/waits":
            await asyncio.wrap_future(self.gate.promise())
        elif path == "/large":
            text = bytes(LARGE)
        elif path == "/halves":
            await send(start())
            await send(body(b"one half, ", more=True))
            await asyncio.wrap_future(self.gate.promise())
            await send(body(b"and the other"))
            return
        await answer(send, text)

    async def _read(self, receive: Receive) -> bytes | None:
        text, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            text += message["body"]
            more = message["more_body"]
        return text


# Into each state ---------------------------------------------------------------------------------


def idle(served: Served, _: Site) -> Client:
    """Keep a connection whose request is answered."""
    client = served.request()
    assert client.response().complete
    served.until_idle()
    return client


def in_a_handshake(served: Served, _: Site) -> Client:
    """Send what TLS begins with."""
    return in_its_handshake(served)


def half_a_head(served: Served, _: Site) -> Client:
    """Send the beginning of a request."""
    client = served.connect()
    client.send(b"GET / HT")
    until(lambda: served.receiving == 1)
    return client


def half_a_body(served: Served, _: Site) -> Client:
    """Send a head, and a part of its body."""
    client = served.connect()
    client.send(request("/reads", method="POST", headers=["Content-Length: 10"]) + b"12345")
    served.until_waiting(1)
    return client


def running(served: Served, site: Site) -> Client:
    """Have a request block a thread."""
    client = served.request("/blocks")
    happened(site.begun)
    return client


def queued(served: Served, site: Site) -> Client:
    """Have a request wait for the only thread."""
    running(served, site)
    client = served.request()
    until(lambda: served.status.queued == 1)
    return client


def parked(served: Served, _: Site) -> Client:
    """Have a request wait, and hold no thread."""
    client = served.request("/waits")
    served.until_waiting(1)
    return client


def half_an_answer(served: Served, _: Site) -> Client:
    """Have a request wait that is answered in part."""
    client = served.request("/halves")
    client.head()
    assert client.chunk() == b"one half, "
    served.until_waiting(1)
    return client


def behind(served: Served, _: Site) -> Client:
    """Take nothing of a response that has ended."""
    client = served.connect(window=4096)
    client.send(request("/large"))
    until(lambda: any(each.sending for each in served.connections))
    served.until_idle()
    return client


def lingering(served: Served, _: Site) -> Client:
    """Stay where the server has closed its side."""
    client = served.request(headers=["Connection: close"])
    assert client.response().complete
    until(lambda: served.lingering == [0])
    return client


def a_websocket(served: Served, _: Site) -> Client:
    """Have a view wait for a message."""
    client = upgraded(served)
    served.until_waiting(1)
    return client


# What its client does then, and sees -------------------------------------------------------------


def sees_the_end(client: Client) -> str:
    """Send nothing."""
    return "closed" if client.rest() == b"" else "bytes"


def sees_the_answer(client: Client) -> str:
    """Read a response."""
    response = client.response()
    if not response.complete:
        return "cut"
    if response.status != 200:
        return f"{response.status} {response.text.strip()}"
    return "large" if len(response.body) == LARGE else response.text


def sends_the_rest(client: Client) -> str:
    """Complete the request, and read its response."""
    client.send(b"67890")
    return sees_the_answer(client)


def shakes(client: Client) -> str:
    """Complete the handshake, and make a request."""
    client.sock.shake()
    client.send(request())
    return sees_the_answer(client)


def takes_the_rest(client: Client) -> str:
    """Read on."""
    try:
        assert client.chunk() == b"and the other"
        assert client.chunk() == b""
    except (EOFError, ConnectionResetError):
        return "cut"
    return "whole"


def answers_the_close(client: Client) -> str:
    """Read a close frame, and send one."""
    first, data = read_frame(client)
    assert first == FIN | CLOSE
    client.send(closing(1012))
    return str(int.from_bytes(data[:2]))


class State(NamedTuple):
    """What a connection is in the midst of.

    Attributes:
        kinds: where there is such a state.
        enter: brings a connection into it.
        go_on: what its client does once the server stops; returns what it sees.
        in_time: what that is.
        late: what a client that goes on when the time is over sees.
        cancelled: how many requests are cancelled then.
    """

    kinds: tuple[str, ...]
    enter: Callable[[Served, Site], Client]
    go_on: Callable[[Client], str]
    in_time: str
    late: str
    cancelled: int = 0


STATES = [
    State(ALL, idle, sees_the_end, "closed", "closed"),
    State(ALL, in_a_handshake, shakes, "answered", ""),
    State(ALL, half_a_head, sees_the_end, "closed", "closed"),
    State(ALL, half_a_body, sends_the_rest, "1234567890", "503 The server stops.", 1),
    State(("threads",), queued, sees_the_answer, "answered", "503 The server stops.", 1),
    State(("threads",), running, sees_the_answer, "answered", "answered", 1),
    State(ALL, parked, sees_the_answer, "answered", "503 The server stops.", 1),
    State(ALL, half_an_answer, takes_the_rest, "whole", "cut", 1),
    State(ALL, behind, sees_the_answer, "large", "cut"),
    State(ALL, lingering, sees_the_end, "closed", ""),
    State(("threads", "loop"), a_websocket, answers_the_close, "1012", "1012", 1),
]
OF_HTTP1 = (lingering, a_websocket)
"""What there is in HTTP/1 alone: a client that ends the connection, and one that upgrades it."""


def start_in(serve: Serve, kind: str, state: State, **settings: Any) -> tuple[Served, Site, Client]:
    """Start a server for one connection, and bring that into a state."""
    site = Site()
    if state.enter is in_a_handshake:
        settings |= certificates().settings
    if kind == "asgi":
        served = serve(site.asgi, executor="auto", **settings)
    else:
        served = serve(site.wsgi, executor=kind, threads=1, **settings)
    return served, site, state.enter(served, site)


def states(kind: str) -> Iterator[State]:
    """Yield those that there are."""
    none = OF_HTTP1 if http2.wanted() else ()
    return (each for each in STATES if kind in each.kinds and each.enter not in none)


@pytest.mark.parametrize("executor", ALL)
def test_what_is_in_progress_when_the_server_stops_is_finished(serve: Serve, executor: str) -> None:
    """And what is not is closed at once."""
    with Failures() as failures:
        for state in states(executor):
            with failures.of(state.enter.__name__):
                served, site, client = start_in(serve, executor, state, graceful_timeout=LONG)
                served.tell_to_stop()
                site.release.set()
                site.gate.open()
                same(state.go_on(client), state.in_time)
                stays = state.enter is lingering  # it has a second, and no more
                if not stays:
                    client.close()
                served.join(leaving=not stays)
                same(served.status.connections, 0)
                client.close()


@pytest.mark.parametrize("executor", ALL)
def test_what_has_not_ended_in_time_is_cancelled(serve: Serve, executor: str, log: Log) -> None:
    """Nothing begins any more; code that runs may end."""
    with Failures() as failures:
        for state in states(executor):
            if not state.late:
                continue  # they are given a second, as other tests show
            with failures.of(state.enter.__name__):
                served, site, client = start_in(serve, executor, state, graceful_timeout=SOON)
                served.begin_stop()
                if state.cancelled:
                    log.take(f"{state.cancelled} requests have not ended in time")
                site.release.set()
                if state.enter is behind:
                    served.join()  # it has a second, and takes nothing
                same(state.go_on(client), state.late)
                client.close()
                served.join(leaving=True)
                same(served.status.connections, 0)
