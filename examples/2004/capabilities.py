"""The same page three times, which differ in what each declares as safe.

The third proposal of September 2004: a server cannot know whether an application will block, so
the application says, by attributes, in which environments it can run; a server then hosts all of
them without starving its loop. Ask how each would be run, and why::

    bide examples.2004.capabilities:blocking --explain
    bide examples.2004.capabilities:threaded --explain
    bide examples.2004.capabilities:asynchronous --explain

Then serve one of them, and see how two requests at once are answered::

    bide examples.2004.capabilities:asynchronous
    time (curl -s http://127.0.0.1:8000/ & curl -s http://127.0.0.1:8000/ & wait)

``blocking`` answers as many at once as there are child processes, each of which makes one request
after the other; ``threaded`` as many as there are threads; ``asynchronous`` all of them, on the
event loop's own thread. All three are plain PEP 3333 and run on every WSGI server, where the
declaration is an attribute that nobody reads.
"""

import asyncio
import os
import threading
import time
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from bide import capable, wait

_visits = 0


@capable("processes")
def blocking(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Block, and count in a plain global: two threads at once would count wrong."""
    global _visits
    seen = _visits
    time.sleep(_seconds(environ))
    _visits = seen + 1
    return _page(environ, start_response, f"visit {_visits} of process {os.getpid()}")


@capable("threads", "processes")
def threaded(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Block, and share nothing: any number of threads may do so at once."""
    time.sleep(_seconds(environ))
    return _page(environ, start_response, "blocked a thread")


@capable("async", "threads", "processes")
def asynchronous(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Wait, and never block: the event loop itself may run it."""
    wait(asyncio.sleep(_seconds(environ)))
    return _page(environ, start_response, "waited, and held no thread")


def _seconds(environ: WSGIEnvironment) -> float:
    return float(parse_qs(environ["QUERY_STRING"]).get("seconds", ["1"])[0])


def _page(environ: WSGIEnvironment, start_response: StartResponse, what: str) -> list[bytes]:
    # What the server tells back is the truth about how it runs this application.
    page = (
        f"{what}; thread: {threading.current_thread().name}; "
        f"wsgi.multithread: {environ['wsgi.multithread']}; "
        f"wsgi.multiprocess: {environ['wsgi.multiprocess']}\n"
    ).encode()
    start_response(
        "200 OK",
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(page)))],
    )
    return [page]
