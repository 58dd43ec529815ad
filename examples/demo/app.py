"""The demo: an ordinary Flask application that shows what Bide is for, on one page.

Some of its views block, some wait, one streams::

    bide examples.demo.app:app --bind 127.0.0.1:8000 --threads 4

and open http://127.0.0.1:8000. Under another WSGI server (``flask --app examples.demo.app run``)
the same page works, each waiting request holding its thread, and says which numbers it misses.
"""

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

from flask import Flask, Response, jsonify, render_template, request

from bide import iterate, wait
from examples.demo.crowd import crowd_size, send_crowd
from examples.demo.pulse import NAMES, pulse

CROWD = 1000
CROWD_SECONDS = 1
CROWD_DEADLINE = 60.0

app = Flask(__name__)
_crowd_under_way = threading.Lock()


@app.get("/")
def page() -> str:
    status = request.environ.get("bide.status")
    return render_template(
        "demo.html",
        on_bide=status is not None,
        threads=0 if status is None else status().threads_max,  # 0 on the event loop
        software=request.environ.get("SERVER_SOFTWARE", "this server"),
        crowd=CROWD,
        names=NAMES,
        sources={view.__name__: inspect.getsource(view) for view in (blocking, waiting)},
    )


@app.get("/quick")
def quick() -> Response:
    return answer()


@app.get("/block")
def blocking() -> Response:
    """Keep a thread meanwhile."""
    time.sleep(seconds())
    return answer()


@app.get("/wait")
def waiting() -> Response:
    """Keep no thread meanwhile."""
    wait(asyncio.sleep(seconds()))
    return answer()


@app.get("/live")
def live() -> Response:
    """Stream the server's numbers as server-sent events, for as long as the viewer looks."""
    status = request.environ.get("bide.status")
    if status is None:
        nothing = Response(status=204)  # tells an EventSource not to come back
        del nothing.headers["Content-Type"]
        return nothing

    def events() -> Iterator[str]:
        yield "retry: 1000\n\n"
        for samples in iterate(pulse(status)):
            yield f"data: {json.dumps(samples)}\n\n"

    return Response(
        events(),
        mimetype="text/event-stream",
        # A proxy in front must pass each event on at once.
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@app.post("/crowd")
def crowd() -> tuple[Response, int] | Response:
    """Send a thousand requests to ``/wait`` at once, and tell what became of them."""
    status = request.environ.get("bide.status")
    port = request.environ["SERVER_PORT"]
    if status is None:
        return jsonify(error="here every waiting request would hold a thread"), 501
    if not port.isdigit():
        return jsonify(error="the server listens on no port of its own"), 501
    if not _crowd_under_way.acquire(blocking=False):
        return jsonify(error="one crowd at a time: another one is under way"), 409
    try:
        report = wait(
            send_crowd(
                own_host(),
                int(port),
                f"/wait?seconds={CROWD_SECONDS}",
                crowd_size(CROWD),
                lambda: int(status().waiting),
            ),
            timeout=CROWD_DEADLINE,
        )
    except TimeoutError:
        return jsonify(error=f"not all were answered within {CROWD_DEADLINE:.0f} s"), 504
    except ExceptionGroup as errors:
        return jsonify(error=f"failed: {errors.exceptions[0]}"), 502
    finally:
        _crowd_under_way.release()
    return jsonify(**asdict(report), each=CROWD_SECONDS)


def own_host() -> str:
    """Return a name under which this process reaches its own server."""
    host = str(request.environ["SERVER_NAME"])
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def seconds() -> float:
    """Return what ``?seconds=`` asks for: 3 unless it says, 10 at most."""
    return min(max(request.args.get("seconds", 3.0, float), 0.0), 10.0)


def answer() -> Response:
    """Say which thread has run the view."""
    response = jsonify(thread=threading.get_ident(), name=threading.current_thread().name)
    response.headers["Cache-Control"] = "no-store"
    return response
