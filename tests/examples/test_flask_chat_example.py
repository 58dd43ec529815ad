"""The chat over WebSockets, over a real server."""

import json
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.examples.serving import DEADLINE, Example, Serve, Served

CROWD = 60


@pytest.fixture
def app(example: Example) -> Flask:
    """Make an application of this test's own."""
    made: Flask = example("flask_chat.app").make_app()
    return made


def enter(served: Served, name: str, **options: Any) -> ClientConnection:
    """Enter the room."""
    # Without a bound, since one that is full keeps websockets from reading the end.
    client: ClientConnection = connect(
        f"ws://{served.host}:{served.port}/chat?name={name}", max_queue=None, **options
    )
    return client


def told(client: ClientConnection) -> dict[str, Any]:
    """Receive what someone is told."""
    what: dict[str, Any] = json.loads(client.recv(timeout=DEADLINE))
    return what


def test_those_in_the_room_hear_who_comes_what_is_said_and_who_leaves(
    app: Flask, serve: Serve
) -> None:
    """Each with how many are there."""
    with serve(app) as served, enter(served, "ada") as ada:
        assert told(ada) == {"name": "ada", "event": "came", "here": 1}
        with enter(served, "bob") as bob:
            assert told(ada) == told(bob) == {"name": "bob", "event": "came", "here": 2}
            bob.send("hello")
            assert told(ada) == told(bob) == {"name": "bob", "text": "hello", "here": 2}
        assert told(ada) == {"name": "bob", "event": "left", "here": 1}
        ada.send("x" * 501)
        with pytest.raises(ConnectionClosed, match="1008"):
            ada.recv(timeout=DEADLINE)


def test_who_has_no_name_or_comes_from_another_site_is_not_let_in(app: Flask, serve: Serve) -> None:
    """By an ordinary answer."""
    with serve(app) as served:
        with pytest.raises(InvalidStatus, match="403"), enter(served, "%20"):
            pass
        with (
            pytest.raises(InvalidStatus, match="403"),
            enter(served, "eve", origin=Origin("http://other.example")),
        ):
            pass
        with enter(served, "ada", origin=Origin(served.url)) as ada:
            assert told(ada)["here"] == 1


def test_a_crowd_in_the_room_holds_no_thread(app: Flask, serve: Serve) -> None:
    """The page is served beside it, and a message reaches all."""
    with serve(app, threads=4, limit_threads=4) as served, ExitStack() as stack:
        crowd = [stack.enter_context(enter(served, f"guest-{n}")) for n in range(CROWD)]
        served.until_waiting(CROWD)
        assert served.get("/status").json()["threads"] <= 4
        assert "<h1>A room" in served.get("/").text
        crowd[0].send("hello, all")
        for guest in crowd:
            while "text" not in (what := told(guest)):
                pass
            assert what == {"name": "guest-0", "text": "hello, all", "here": CROWD}
