"""The same Flask view, which waits for a coroutine with `wait` and holds no thread."""

import asyncio

from flask import Flask, request

from bide import wait

from .attendance import Attendance

app = Flask(__name__)
parked = Attendance()


@app.get("/wait")
def wait_a_while() -> str:
    with parked.attend():
        wait(asyncio.sleep(float(request.args["seconds"])))
    return "waited\n"


@app.get("/parked")
def count_parked() -> str:
    return f"{parked.present}\n"
