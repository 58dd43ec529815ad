"""The application of the status page: WSGI, and a request that waits for what comes next.

It runs on the event loop of a process of its own, and only reads. Whatever it sends is of the
moment, so nothing is to be cached, and no other site may show or read it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bide.capabilities import capable
from bide.seeing.status_access import Access
from bide.seeing.status_feed import Feed, Silent
from bide.waiting.api import iterate, wait

Start = Callable[[str, list[tuple[str, str]]], Any]

VIEWERS: Final = 100
"""Viewers at a time; more are answered 503."""
PAGE: Final = Path(__file__).with_name("status_page.html")
TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"

_SILENT: Final = "the server does not answer"
_ASKING: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>Bide: the status page</title>
<h1>The status page</h1>
<form><p><label>Its token <input type="password" name="token" autocomplete="off" required autofocus>
</label> <button>Open</button></p></form></html>
"""
_ENTERED: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Bide: the status page</title>
<meta http-equiv="refresh" content="0; url=./"><a href="./">The status page</a></html>
"""


def _hashes(page: str, tag: str) -> str:
    """Return the sources that a content security policy allows for a page's own elements."""
    return " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'"
        for each in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    )


def _policy(page: str) -> str:
    return (
        f"default-src 'none'; script-src {_hashes(page, 'script')}; "
        f"style-src {_hashes(page, 'style')}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


class _Answer:
    """What a request is answered with."""

    def __init__(
        self, status: str, body: str | bytes, kind: str = TEXT, *headers: tuple[str, str]
    ) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else body.encode()
        self.headers = [("Content-Type", kind), ("Content-Length", str(len(self.body))), *headers]


@capable("async")
class Application:
    """See the module.

    Args:
        feed: the server.
        access: who may look.
    """

    def __init__(self, feed: Feed, access: Access) -> None:
        self._feed = feed
        self._access = access
        self._page = PAGE.read_text(encoding="utf-8")
        self._headers = [
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", _policy(self._page)),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
        ]
        self._answers: Mapping[str, Callable[[], _Answer]] = {
            "/": lambda: _Answer("200 OK", self._page, HTML),
            "/status.json": lambda: _Answer("200 OK", json.dumps(self._now()), JSON),
            "/metrics": self._metrics,
            "/health": self._health,
        }

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        """Answer a request."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        answer = self._without_the_server(environ)
        if answer is None and path == "/events" and method == "GET":
            if self._feed.viewers < VIEWERS:
                return self._events(start_response)
            answer = _Answer("503 Service Unavailable", "too many look at this page\n")
        if answer is None:
            answer = self._answer(path)
        start_response(answer.status, [*answer.headers, *self._headers])
        return [] if method == "HEAD" else [answer.body]

    def _without_the_server(self, environ: dict[str, Any]) -> _Answer | None:
        """Return the answer to a request that gets nothing of the server; None for others."""
        path, access = environ["PATH_INFO"], self._access
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _Answer("405 Method Not Allowed", "only GET\n", TEXT, ("Allow", "GET, HEAD"))
        if path == "/" and (cookie := access.cookie(environ.get("QUERY_STRING", ""))):
            # Not a redirect: after a link of another site, that would be without the cookie.
            return _Answer("200 OK", _ENTERED, HTML, ("Set-Cookie", cookie))
        if access.allowed(environ):
            return None
        if not access.wanted:
            return _Answer(
                "403 Forbidden",
                "without a token, this page is for localhost: ask for it by that name, "
                "or give the server a token (--status-token)\n",
            )
        challenge = ("WWW-Authenticate", 'Bearer realm="bide status"')
        if path == "/":
            return _Answer("401 Unauthorized", _ASKING, HTML, challenge)
        return _Answer("401 Unauthorized", "the token is missing, or wrong\n", TEXT, challenge)

    def _answer(self, path: str) -> _Answer:
        make = self._answers.get(path)
        if make is None:
            return _Answer("404 Not Found", "there is no such page\n")
        try:
            return make()
        except Silent:
            return _Answer("503 Service Unavailable", f"{_SILENT}\n")

    def _now(self) -> dict[str, Any]:
        instance: dict[str, Any] = wait(self._feed.now())
        return instance

    def _health(self) -> _Answer:
        instance = self._now()
        if all(each["worker"] in instance["mute"] for each in instance["workers"]):
            return _Answer("503 Service Unavailable", "no worker answers\n")
        return _Answer("200 OK", "ok\n")

    def _metrics(self) -> _Answer:
        try:
            from bide.seeing.metrics import CONTENT_TYPE, render
        except ImportError as error:
            return _Answer(
                "501 Not Implemented",
                f"metrics need prometheus-client, which cannot be imported ({error}): "
                "pip install 'bide[metrics]'\n",
            )
        return _Answer("200 OK", render(self._now()), CONTENT_TYPE)

    def _events(self, start_response: Start) -> Iterator[bytes]:
        kind = ("Content-Type", "text/event-stream")
        # A proxy in front must pass each event on at once.
        start_response("200 OK", [kind, ("X-Accel-Buffering", "no"), *self._headers])
        return self._stream()

    def _stream(self) -> Iterator[bytes]:
        yield b"retry: 1000\n\n"
        yield from iterate(self._feed.follow())
