"""Flask-SocketIO as it comes, with long polling: each client's poll blocks a thread (Engine.IO 4).

A poll returns when there is something to tell, and that is brought by other requests: it is served
only where a thread that blocks does not hold up what comes after it.
"""

import json
import threading
from typing import Any

import httpx
import pytest
from flask import Flask
from flask_socketio import SocketIO, emit

from tests.conftest import Serve
from tests.served import DEADLINE, Served, until

CLIENTS = 6
RECORD = "\x1e"  # between the packets of one payload


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


def make_site() -> Flask:
    app = Flask(__name__)
    socketio = SocketIO(app, async_mode="threading")

    @socketio.on("say")  # type: ignore[untyped-decorator]
    def say(text: str) -> None:
        emit("said", text, broadcast=True)

    return app


@pytest.mark.parametrize("executor", ["threads"])
def test_six_clients_poll_on_four_threads(serve: Serve) -> None:
    """All of them at once, each for what the others say; none of it waits for a poll to time out.

    A time-out comes after 25 seconds, more than these tests wait for anything.
    """
    served = serve(make_site(), threads=4)
    visitors = [Visitor(served) for _ in range(CLIENTS)]
    for visitor in visitors:
        visitor.start()
    until(lambda: served.status.threads_busy == CLIENTS, "not all polls are under way")
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


@pytest.mark.parametrize("executor", ["threads"])
def test_one_client_polls_and_posts(serve: Serve) -> None:
    """Its poll waits for what its own post brings."""
    served = serve(make_site(), threads=8)
    visitor = Visitor(served)
    visitor.start()
    until(lambda: served.status.threads_busy == 1)
    visitor.post("40")
    until(lambda: visitor.packets)
    visitor.post('42["say","hello"]')
    until(lambda: visitor.heard == ["hello"])
    visitor.close()
