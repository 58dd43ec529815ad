"""A Flask view that echoes on a WebSocket, and pages beside it."""

from flask import Flask, request

import bide

from .attendance import Attendance

app = Flask(__name__)
parked = Attendance()


@app.route("/socket", websocket=True)
def echo() -> str:
    socket = bide.websocket(request.environ)
    socket.accept()
    with parked.attend():
        for message in socket:
            socket.send(message)
    return ""


@app.get("/parked")
def count_parked() -> str:
    return f"{parked.present}\n"


@app.get("/busy")
def count_busy() -> str:
    # The thread of this very request is one of them.
    return f"{bide.status().threads_busy - 1}\n"


@app.get("/quick")
def answer_quickly() -> str:
    return "quick\n"
