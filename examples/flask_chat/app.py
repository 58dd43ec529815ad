"""A chat in Flask over WebSockets: a thousand people in a room hold no thread.

The view is a plain function with a loop over its messages. Between two of them it waits, and its
thread serves others::

    pip install 'bide[websocket]' flask
    bide examples.flask_chat.app:app --threads 4 --limit-threads 4

Open http://127.0.0.1:8000 in two windows. ``/status`` says how many are there, and how many threads
are in use.
"""

import json
from typing import Any

from flask import Flask, render_template, request

import bide

LONGEST = 500
"""Characters of a message."""


class Room:
    """The sockets of those who are there, by their names. From any thread."""

    def __init__(self) -> None:
        self._sockets: dict[bide.WebSocket, str] = {}

    def enter(self, socket: bide.WebSocket, name: str) -> None:
        """Let someone in, and tell all."""
        self._sockets[socket] = name
        self._tell(name=name, event="came")

    def leave(self, socket: bide.WebSocket) -> None:
        """Let someone go, and tell the others."""
        name = self._sockets.pop(socket)
        self._tell(name=name, event="left")

    def say(self, socket: bide.WebSocket, text: str) -> None:
        """Tell all what someone says."""
        self._tell(name=self._sockets[socket], text=text)

    def _tell(self, **what: Any) -> None:
        sockets = list(self._sockets)
        bide.broadcast(sockets, json.dumps({**what, "here": len(sockets)}))


def make_app() -> Flask:
    """Return the application, with a room of its own."""
    app = Flask(__name__)
    room = Room()

    @app.get("/")
    def page() -> str:
        return render_template("room.html", longest=LONGEST)

    @app.route("/chat", websocket=True)
    def chat() -> tuple[str, int]:
        socket = bide.websocket(request.environ)
        name = request.args.get("name", "").strip()[:30]
        if not name or not socket.same_origin:
            return "give a name, and come from the page of this chat", 403
        socket.accept()
        room.enter(socket, name)
        try:
            for message in socket:
                if isinstance(message, bytes) or len(message) > LONGEST:
                    socket.close(1008, f"a message is text of up to {LONGEST} characters")
                else:
                    room.say(socket, message)
        except bide.WebSocketClosed:
            pass  # the connection broke
        finally:
            room.leave(socket)
        return "", 200  # which nobody gets

    @app.get("/status")
    def status() -> dict[str, int]:
        now = request.environ["bide.status"]()
        return {"waiting": now.waiting, "threads": now.threads, "threads_busy": now.threads_busy}

    return app


app = make_app()
