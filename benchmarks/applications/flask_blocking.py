"""A Flask view that waits as any Flask view can: it blocks its thread.

Under a server that patches `time.sleep`, the same line waits in a greenlet.
"""

import time

from flask import Flask, request

from .attendance import Attendance

app = Flask(__name__)
parked = Attendance()


@app.get("/wait")
def wait_a_while() -> str:
    with parked.attend():
        time.sleep(float(request.args["seconds"]))
    return "waited\n"


@app.get("/parked")
def count_parked() -> str:
    return f"{parked.present}\n"
