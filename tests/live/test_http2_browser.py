"""WebSockets over HTTP/2 in a browser: headless Chromium, which opens them so by itself."""

from __future__ import annotations

from typing import Any

import pytest

import bide
from tests.conftest import Serve
from tests.failures import same
from tests.seeing.browser import PROGRAM, Browser
from tests.served import Environ, until
from tests.tls import certificates

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")

TALK = """new Promise((resolve, reject) => {
    const got = [];
    const socket = new WebSocket(`wss://${location.host}/chat`, ["a", "b"]);
    socket.onerror = () => reject(new Error("it has failed"));
    socket.onopen = () => socket.send("hello".repeat(100));
    socket.onmessage = ({data}) => { got.push(data); socket.close(4000, "bye"); };
    socket.onclose = ({code, reason, wasClean}) =>
        resolve([socket.protocol, socket.extensions, got, code, reason, wasClean]);
})"""


def test_a_browser_opens_one_on_the_connection_of_its_page(serve: Serve) -> None:
    """Compressed, with a subprotocol, and closed in order."""
    seen: list[tuple[str, str]] = []
    closed: list[tuple[int, str]] = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] != "/chat":
            start_response("200 OK", [("Content-Type", "text/html")])
            return [b"<!doctype html><title>chat</title>page"]
        seen.append((environ["SERVER_PROTOCOL"], environ["REQUEST_METHOD"]))
        socket = bide.websocket(environ)
        assert socket.same_origin
        socket.accept("b")
        try:
            for message in socket:
                socket.send(message)
        except bide.WebSocketClosed as end:
            closed.append((end.code, end.reason))
        return []

    served = serve(application, **certificates().settings)
    port = served.address.rpartition(":")[2]
    browser = Browser("--ignore-certificate-errors")
    try:
        browser.open(f"https://localhost:{port}/")
        browser.until("document.title === 'chat'")
        protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
        same(browser.run(protocol), "h2")
        answer = browser.run(TALK)
        same(answer[0], "b")
        assert answer[1].startswith("permessage-deflate")
        same(answer[2:], [["hello" * 100], 4000, "bye", True])
    finally:
        browser.close()
    same(seen, [("HTTP/2", "GET")])
    until(lambda: closed)
    same(closed, [(4000, "bye")])
    served.until_idle()
