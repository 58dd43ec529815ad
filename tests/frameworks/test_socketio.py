"""Flask-SocketIO as it comes, in threading mode: no client holds a thread, on either transport.

By python-socketio's own client, and by packets written by hand (Engine.IO 4).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import socketio as clients
from engineio.async_drivers import threading as driver
from flask import Flask, request
from flask_socketio import SocketIO, emit, join_room, leave_room
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import bide
from bide.integrations import engineio, simple_websocket
from tests.conftest import Serve
from tests.served import DEADLINE, Log, Served, until
from tests.websocket_clients import end_of

CLIENTS = 6
RECORD = "\x1e"  # between the packets of one payload


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    """Have the libraries as they come, and leave them so to other tests."""
    engineio.uninstall()
    simple_websocket.uninstall()
    yield
    engineio.uninstall()
    simple_websocket.uninstall()


class Visitor:
    """One client: a poll that is always under way, and packets that are posted beside it."""

    def __init__(self, served: Served) -> None:
        self._http = httpx.Client(base_url=served.url, timeout=DEADLINE, trust_env=False)
        self._params = {"EIO": "4", "transport": "polling"}
        opened = self._http.get("/socket.io/", params=self._params).text
        assert opened[0] == "0"
        self._params["sid"] = json.loads(opened[1:])["sid"]
        self.packets: list[str] = []
        self.failed: list[int] = []
        self._leaving = False
        self._poller = threading.Thread(target=self._poll)

    def start(self) -> None:
        """Begin to poll."""
        self._poller.start()

    def _poll(self) -> None:
        while True:
            answer = self._http.get("/socket.io/", params=self._params)
            if self._leaving:
                return
            if answer.status_code != 200:
                self.failed.append(answer.status_code)
                return
            self.packets += answer.text.split(RECORD)

    def post(self, packet: str) -> None:
        """Send one packet."""
        answer = self._http.post("/socket.io/", params=self._params, content=packet)
        assert (answer.status_code, answer.text) == (200, "OK")

    @property
    def heard(self) -> list[Any]:
        """What it was told, in order of the alphabet."""
        return sorted(json.loads(each[2:])[1] for each in self.packets if each.startswith("42"))

    def close(self) -> None:
        """Leave, and see the poll end."""
        self._leaving = True
        self.post("1")
        self._poller.join(DEADLINE)
        assert not self._poller.is_alive()
        self._http.close()


class Site:
    """An application with Flask-SocketIO.

    Attributes:
        left: why clients have left.
        threads: on which threads the handlers have run.
    """

    def __init__(self, **options: Any) -> None:
        self.app = Flask(__name__)
        self.socketio = socketio = SocketIO(self.app, async_mode="threading", **options)
        self.left: list[str] = []
        self.threads: set[str] = set()
        self.ticking = threading.Event()

        @socketio.on("say")  # type: ignore[untyped-decorator]
        def say(text: str) -> None:
            self.threads.add(threading.current_thread().name)
            emit("said", text, broadcast=True)

        @socketio.on("join")  # type: ignore[untyped-decorator]
        def join(room: str) -> str:
            join_room(room)
            return f"{room} {request.sid}"  # type: ignore[attr-defined]

        @socketio.on("leave")  # type: ignore[untyped-decorator]
        def leave(room: str) -> None:
            leave_room(room)

        @socketio.on("whisper")  # type: ignore[untyped-decorator]
        def whisper(room: str, text: str) -> None:
            emit("said", text, to=room)

        @socketio.on("tick")  # type: ignore[untyped-decorator]
        def tick() -> None:
            socketio.start_background_task(self._tick)

        @socketio.on("disconnect")  # type: ignore[untyped-decorator]
        def disconnect(reason: str) -> None:
            self.left.append(reason)

        @self.app.get("/page")
        def page() -> str:
            return "page"

    def _tick(self) -> None:
        for number in range(3):
            self.socketio.emit("tick", number)
            self.socketio.sleep(0.001)


def polls(served: Served) -> int:
    """Count the polls that wait."""
    return sum(
        each.method == "GET" and each.state == "waiting" for each in served.server.requests()
    )


@pytest.mark.parametrize("executor", ["threads"])
def test_six_clients_poll_on_one_thread(serve: Serve, log: Log) -> None:
    """All of them at once, each for what the others say; none of it waits for a poll to time out.

    A time-out comes after 25 seconds, more than these tests wait for anything.
    """
    served = serve(Site().app, threads=1)
    visitors = [Visitor(served) for _ in range(CLIENTS)]
    for visitor in visitors:
        visitor.start()
    until(lambda: polls(served) == CLIENTS, "not all polls are under way")
    until(lambda: served.status.threads_busy == 0)
    for visitor in visitors:
        visitor.post("40")
    for visitor in visitors:
        until(lambda visitor=visitor: any(each.startswith("40") for each in visitor.packets))  # type: ignore[misc]
    for number, visitor in enumerate(visitors):
        visitor.post(f'42["say","{number}"]')
    for visitor in visitors:
        until(lambda visitor=visitor: len(visitor.heard) == CLIENTS)  # type: ignore[misc]
        assert visitor.heard == [str(number) for number in range(CLIENTS)]
    for visitor in visitors:
        visitor.close()
        assert visitor.failed == []
    log.take("Engine.IO in threading mode holds no thread")


async def converse(served: Served, transports: list[str] | None) -> dict[str, Any]:
    """Let clients of python-socketio meet; return what the first has heard, and how."""
    heard: dict[str, list[Any]] = {"said": [], "tick": []}
    people = [clients.AsyncClient(reconnection=False) for _ in range(3)]
    first, second, third = people
    for name, words in heard.items():
        first.on(name, words.append)
    others: list[Any] = []
    second.on("said", others.append)
    for each in people:
        await each.connect(served.url, transports=transports, wait_timeout=DEADLINE)

    async def hears(what: list[Any], number: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while len(what) < number:
                await asyncio.sleep(0.002)

    joined = await first.call("join", "room", timeout=DEADLINE)
    await third.emit("whisper", ("room", "in the room"))
    await hears(heard["said"], 1)
    await first.call("leave", "room", timeout=DEADLINE)
    await third.emit("whisper", ("room", "nobody hears"))
    await third.emit("say", "to all")
    await hears(heard["said"], 2)
    await hears(others, 1)
    await second.emit("tick")
    await hears(heard["tick"], 3)
    transport = first.transport()
    until(lambda: served.status.threads_busy == 0)
    for each in people:
        await each.disconnect()
    return {"joined": joined.split()[0], "transport": transport, "others": others, **heard}


@pytest.mark.parametrize("executor", ["threads"])
@pytest.mark.parametrize("transports", [["polling"], ["websocket"], None])
def test_python_socketio_s_client_has_rooms_answers_and_broadcasts(
    serve: Serve, transports: list[str] | None
) -> None:
    """By polling, by WebSocket, and by polling that becomes a WebSocket; pages beside it."""
    site = Site()
    served = serve(site.app, threads=2)
    assert asyncio.run(converse(served, transports)) == {
        "joined": "room",
        "transport": "polling" if transports == ["polling"] else "websocket",
        "said": ["in the room", "to all"],
        "others": ["to all"],
        "tick": [0, 1, 2],
    }
    assert served.get("/page").body == b"page"
    until(lambda: len(site.left) == 3)
    assert set(site.left) <= {"client disconnect", "transport close"}
    assert {each.rpartition("-")[0] for each in site.threads} == {"bide-thread"}


@pytest.mark.parametrize("executor", ["threads"])
def test_many_websockets_of_flask_socketio_wait_on_one_thread(serve: Serve) -> None:
    """Each has a reader, a writer and a ping to come; a stop ends them all, and quickly."""
    site = Site()
    served = serve(site.app, threads=1)
    url = f"ws://{served.address}/socket.io/?EIO=4&transport=websocket"
    with ExitStack() as stack:
        sockets = [stack.enter_context(connect(url)) for _ in range(20)]
        for each in sockets:
            assert str(each.recv(timeout=DEADLINE)).startswith("0")
            each.send("40")
            assert str(each.recv(timeout=DEADLINE)).startswith("40")
        # A reader each; a writer and a ping each, and what looks after all.
        until(lambda: served.status.waiting == 20 + 2 * 20 + 1)
        until(lambda: served.status.threads_busy == 0)
        assert (served.status.threads, served.status.spawned) == (1, 41)
        names = {each.target for each in bide.status().requests if each.method == "spawn"}
        assert "engineio.socket.Socket._send_ping" in names
        sockets[0].send('42["say","hello"]')
        for each in sockets:
            assert each.recv(timeout=DEADLINE) == '42["said","hello"]'
        served.begin_stop()
        for each in sockets:
            assert end_of(each)[0] == 1012
        served.join(leaving=True)
        assert len(site.left) == 20


@pytest.mark.parametrize("executor", ["threads"])
def test_a_client_that_answers_no_ping_is_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the task that looks after all finds out, and the others are told nothing."""
    site = Site(ping_timeout=0.1)
    served = serve(site.app, threads=1)
    due = bide.Event()  # no ping is sent before the client is there
    monkeypatch.setitem(driver._async, "sleep", lambda _: due.wait())
    with connect(f"ws://{served.address}/socket.io/?EIO=4&transport=websocket") as client:
        assert str(client.recv(timeout=DEADLINE)).startswith("0")
        client.send("40")
        assert str(client.recv(timeout=DEADLINE)).startswith("40")
        due.set()
        assert client.recv(timeout=DEADLINE) == "2"
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=DEADLINE)
    until(lambda: site.left == ["ping timeout"])
    until(lambda: served.status.running + served.status.waiting == 1)  # that task


def named(name: str, module: str) -> Callable[[], None]:
    """Make a function that seems to be of a module."""

    def function() -> None: ...

    function.__name__, function.__module__ = name, module
    return function


def test_what_is_not_the_library_s_own_keeps_a_thread() -> None:
    """It may block for ever: an application's task, the listener of a message queue."""
    made: list[dict[str, Any]] = []
    monkey = driver._async["thread"]
    driver._async["thread"] = lambda **given: made.append(given)
    try:
        undo = engineio.install()
        make = driver._async["thread"]
        for module in ("shop", "socketio.pubsub_manager"):
            make(target=named("listen", module), args=(1,), kwargs={"a": 2})
        assert [each["args"] for each in made] == [(1,), (1,)]
        task = make(target=named("writer", "engineio.socket"), args=(), kwargs={})
        assert not task.is_alive()
        undo()
    finally:
        driver._async["thread"] = monkey
