"""An ordinary Flask application that asks another service, and holds no thread meanwhile.

Its views are plain functions. Where they need the other service they say
``wait(client.get(...))`` with httpx's *asynchronous* client: the request stops at that line and
its thread goes on with others. The same works below a view, in a Jinja template::

    bide examples.flask_httpx.app:app --threads 2
    curl http://127.0.0.1:8000/          # the template asks for each book's rating
    curl http://127.0.0.1:8000/books/2   # two calls at once
    curl http://127.0.0.1:8000/slow      # 504 after half a second
    curl http://127.0.0.1:8000/broken    # 502
    curl -N http://127.0.0.1:8000/log    # line by line
    time seq 100 | xargs -P 100 -I{} curl -s http://127.0.0.1:8000/books/2 -o /dev/null

The other service is in ``upstream.py``; the application starts it, so that there is nothing to
set up. ``flask --app examples.flask_httpx.app run`` serves the same pages, a thread for each.
"""

from collections.abc import Iterator
from typing import Any

import httpx
from flask import Flask, Response, render_template

from bide import iterate, using, wait, wait_all
from examples.flask_httpx.upstream import UpstreamServer


def make_app() -> Flask:
    """Return the application; its upstream runs in a daemon thread of this process."""
    upstream = UpstreamServer()
    upstream.start()
    # One client for the process: it keeps connections open, and belongs to one event loop.
    client = httpx.AsyncClient(base_url=upstream.url, timeout=10, trust_env=False)

    app = Flask(__name__)
    app.extensions["upstream"] = upstream
    app.extensions["client"] = client

    def ask(path: str) -> Any:
        """Return the upstream's JSON; raises ``httpx.HTTPError``."""
        return wait(client.get(path)).raise_for_status().json()

    @app.template_global()
    def rating(number: int) -> float:
        return float(ask(f"/ratings/{number}")["rating"])

    @app.get("/")
    def home() -> str:
        return render_template("books.html", books=ask("/books"))

    @app.get("/books/<int:number>")
    def book(number: int) -> tuple[str, int] | str:
        found, rated = wait_all(client.get(f"/books/{number}"), client.get(f"/ratings/{number}"))
        if found.status_code == 404:
            return render_template("trouble.html", trouble=f"there is no book {number}"), 404
        found.raise_for_status()
        rated.raise_for_status()
        return render_template("book.html", book=found.json(), rating=rated.json()["rating"])

    @app.get("/slow")
    def slow() -> str:
        wait(client.get("/slow"), timeout=0.5)
        return "in time, for once"

    @app.get("/broken")
    def broken() -> str:
        return str(ask("/broken"))

    @app.get("/log")
    def log() -> Response:
        def lines() -> Iterator[str]:
            with using(client.stream("GET", "/log")) as answer:
                for line in iterate(answer.aiter_lines()):
                    yield f"{line}\n"

        return Response(lines(), mimetype="text/plain")

    @app.errorhandler(TimeoutError)
    @app.errorhandler(httpx.TimeoutException)
    def too_late(error: Exception) -> tuple[str, int]:
        return render_template("trouble.html", trouble="the other service took too long"), 504

    @app.errorhandler(httpx.HTTPError)
    def out_of_order(error: httpx.HTTPError) -> tuple[str, int]:
        return render_template("trouble.html", trouble="the other service failed"), 502

    return app


app = make_app()
