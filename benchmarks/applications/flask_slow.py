"""A Flask view that blocks its thread, as the driver of a database does."""

import time

from flask import Flask

app = Flask(__name__)


@app.get("/slow")
def block() -> str:
    time.sleep(0.02)
    return "slow\n"
