"""``environ["wsgi.websocket"]``, which libraries made for gevent's servers look for."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Serve
from tests.served import DEADLINE, Environ, until
from tests.websocket_clients import client_of, end_of


def test_a_library_for_gevents_servers_finds_its_object(serve: Serve) -> None:
    """It loops until it is closed; the end is None, and then an error."""
    ended: list[Any] = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        ws = environ["wsgi.websocket"]
        assert (ws.path, ws.origin, ws.version) == ("/é".encode().decode("latin-1"), None, "13")
        assert environ["bide.websocket"] is not ws
        while not ws.closed:
            message = ws.receive()
            if message is None:
                break
            ws.send(message)
            ws.send(bytearray(b"bytes"))
            ws.send("binary", binary=True)
            ws.send(7)
        ended.append(message)
        try:
            ws.send("late")
        except OSError as error:
            ended.append(str(error))
        return []

    served = serve(application)
    with client_of(served, "/%C3%A9", origin=None) as client:
        client.send("text")
        heard = [client.recv(timeout=DEADLINE) for _ in range(4)]
        assert heard == ["text", b"bytes", b"binary", "7"]
    until(lambda: len(ended) == 2)
    assert ended == [None, "the WebSocket has ended: 1000"]
    served.until_idle()


def test_who_does_not_use_it_answers_as_usual(serve: Serve) -> None:
    """It is lazy; a request that opens none has none; and it closes with a code."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/close":
            environ["wsgi.websocket"].close(4000, b"bye")
            return []
        there = b"there" if "wsgi.websocket" in environ else b"none"
        start_response("403 Forbidden", [("Content-Length", str(len(there)))])
        return [there]

    served = serve(application)
    with pytest.raises(InvalidStatus) as denied, client_of(served):
        pass
    assert denied.value.response.body == b"there"
    assert served.get("/").body == b"none"
    with client_of(served, "/close") as client:
        assert end_of(client) == (4000, "bye")
