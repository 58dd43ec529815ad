"""A chat in Flask that passes on what a language model says, word by word, to hundreds at once.

The view is a plain function and its stream a plain generator. Where they need the model they say
``using`` and ``iterate``, with httpx's *asynchronous* client: between two words the request holds
no thread, so four of them are enough::

    bide examples.llm_chat.app:app --threads 4 --limit-threads 4
    curl -N -d message=hello http://127.0.0.1:8000/chat   # word by word
    curl http://127.0.0.1:8000/status

README.md beside this has more to try. The model is in ``upstream.py``: the application starts it,
and there is nothing to set up. ``flask --app examples.llm_chat.app run`` serves the same, a thread
for each conversation.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
from flask import Flask, Response, render_template, request

from bide import iterate, using
from examples.llm_chat.upstream import Upstream

LONGEST = 2000
"""Characters of a message."""


def make_app(pause: float = 0.08) -> Flask:
    """Return the application; its upstream runs in a daemon thread of this process.

    Args:
        pause: seconds between two words of the upstream.
    """
    upstream = Upstream(pause)
    upstream.start()
    # One client for the process. Its pool would be the bottleneck: as many as there are chats.
    client = httpx.AsyncClient(
        base_url=upstream.url,
        timeout=httpx.Timeout(10, read=60),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,
    )

    app = Flask(__name__)
    app.extensions["upstream"] = upstream
    app.extensions["client"] = client

    @app.get("/")
    def page() -> str:
        return render_template("chat.html", longest=LONGEST)

    @app.post("/chat")
    def chat() -> Response | tuple[dict[str, str], int]:
        message = request.form.get("message", "").strip()
        if not message or len(message) > LONGEST:
            return {"error": f"a message has 1 to {LONGEST} characters"}, 400
        # Whatever stands between is told to pass on at once what it gets.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Response(answer(message), mimetype="text/event-stream", headers=headers)

    def answer(message: str) -> Iterator[str]:
        """Pass on the model's events. When the browser leaves, the model's connection is closed."""
        asking = client.stream("POST", "/generate", json={"prompt": message})
        try:
            with using(asking) as said:
                said.raise_for_status()
                for line in iterate(said.aiter_lines()):
                    if line:
                        yield f"{line}\n\n"
        except httpx.HTTPError:
            yield f"data: {json.dumps({'trouble': 'The model does not answer.'})}\n\n"

    @app.get("/status")
    def status() -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "server": request.environ.get("SERVER_SOFTWARE", ""),
            "upstream": upstream.streaming,
            "finished": upstream.finished,
            "abandoned": upstream.abandoned,
        }
        if "bide.status" in request.environ:
            now = request.environ["bide.status"]()
            for name in ("running", "waiting", "queued", "threads", "threads_busy", "threads_max"):
                numbers[name] = getattr(now, name)
        return numbers

    return app


app = make_app()
