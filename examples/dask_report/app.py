"""A page that renders a report on a Dask cluster, and shows how far it has come.

The report is made in parts, by as many workers as the cluster has. While the page waits for them it
holds no thread. When its reader leaves, the parts that have not begun are dropped::

    pip install bide flask distributed
    bide examples.dask_report.app:app

Open http://127.0.0.1:8000, or ``curl -N http://127.0.0.1:8000/report/40``. It starts two workers on
this machine. With the address of a scheduler in ``DASK_SCHEDULER`` it uses that one's, and nothing
else changes.
"""

import os
import time
from collections.abc import Iterator
from functools import cache

from distributed import Client, LocalCluster
from flask import Flask, Response, render_template

from bide import wait

PART = 0.2
"""Seconds that a part takes."""


@cache
def client() -> Client:
    """Return this process's client. It has threads of its own, so it is made after any fork."""
    address = os.environ.get("DASK_SCHEDULER")
    if address:
        return Client(address)
    return Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))


def make_app() -> Flask:
    """Return the application."""
    app = Flask(__name__)

    @app.get("/")
    def page() -> str:
        return render_template("report.html")

    @app.get("/report/<int:parts>")
    def report(parts: int) -> Response:
        if not 1 <= parts <= 1000:
            return Response("a report has 1 to 1,000 parts\n", 400)
        return Response(progress(parts), mimetype="text/event-stream")

    return app


def progress(parts: int) -> Iterator[str]:
    """Yield an event for each part that is ready, and the report as the last one."""

    # Within a function: Dask sends its code, so the workers need not have this module.
    def measure(number: int, seconds: float = PART) -> int:
        time.sleep(seconds)
        return number * number

    futures = client().map(measure, range(parts), pure=False)
    total = 0
    try:
        for ready, future in enumerate(futures, 1):
            total += wait(future)
            yield f"event: part\ndata: {ready} of {parts}\n\n"
        yield f"event: report\ndata: {total}\n\n"
    finally:  # when the reader leaves, too: Dask drops what nobody holds
        for future in futures:
            future.release()


app = make_app()
