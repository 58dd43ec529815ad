"""The demo: a Flask site and two applications beside it show on one page what Bide is for.

Some of the site's views block, some wait, one is a WebSocket. The page's live line and an echo run
on the event loop, and go on when all threads are blocked::

    bide examples.demo.app:app --bind 127.0.0.1:8000 --threads 4

and open http://127.0.0.1:8000. In another terminal ``bide top`` shows each of its requests.

Under another WSGI server (``flask --app examples.demo.app:site run``) the page works too. Each
waiting request holds its thread there, and the page says which numbers it misses.
"""

import asyncio
import inspect
import threading
import time
from dataclasses import asdict

from flask import Flask, Response, jsonify, render_template, request

import bide
from bide import wait
from examples.demo import loop
from examples.demo.crowd import crowd_size, send_crowd
from examples.demo.pulse import COLUMNS, LISTED, NAMES

CROWD = 1000
CROWD_SECONDS = 1
CROWD_DEADLINE = 60.0

SAID = 200
"""Characters of a message at most."""

site = Flask(__name__)
app = bide.mount(
    {
        "/": "examples.demo.app:site",
        "/live": "examples.demo.loop:live",
        "/echo": "examples.demo.loop:echo",
    }
)
_crowd_under_way = threading.Lock()
_talkers: set[bide.WebSocket] = set()


@site.get("/")
def page() -> str:
    status = request.environ.get("bide.status")
    return render_template(
        "demo.html",
        on_bide=status is not None,
        threads=0 if status is None else status().threads_max,  # 0 on the event loop
        software=request.environ.get("SERVER_SOFTWARE", "this server"),
        crowd=CROWD,
        names=NAMES,
        columns=COLUMNS,
        listed=LISTED,
        said=SAID,
        sources=[
            ("The view that blocks", "r", inspect.getsource(blocking)),
            ("The view that waits", "w", inspect.getsource(waiting)),
            ("The view that is a WebSocket", "w", inspect.getsource(talking)),
            ("The live line, on the event loop", "w", inspect.getsource(loop.live)),
            ("The echo, which is ASGI", "w", inspect.getsource(loop.echo)),
        ],
    )


@site.get("/quick")
def quick() -> Response:
    return answer()


@site.get("/block")
def blocking() -> Response:
    """Keep a thread meanwhile."""
    time.sleep(seconds())
    return answer()


@site.get("/wait")
def waiting() -> Response:
    """Keep no thread meanwhile."""
    wait(asyncio.sleep(seconds()))
    return answer()


@site.route("/talk", websocket=True)
def talking() -> tuple[str, int]:
    """Keep no thread between two messages."""
    socket = bide.websocket(request.environ)
    if not socket.same_origin:
        return "another site's page", 403
    socket.accept()
    _talkers.add(socket)
    try:
        for message in socket:
            bide.broadcast(_talkers, message[:SAID])
    except bide.WebSocketClosed:
        pass  # the connection broke
    finally:
        _talkers.discard(socket)
    return "", 200  # which nobody gets


@site.post("/crowd")
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
    """Return the thread that has run the view."""
    response = jsonify(thread=threading.get_ident(), name=threading.current_thread().name)
    response.headers["Cache-Control"] = "no-store"
    return response
