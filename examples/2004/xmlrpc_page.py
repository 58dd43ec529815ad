"""A page that makes an XML-RPC call and turns the result into HTML, without holding a thread.

The first example that Donovan Preston's mail of 15 September 2004 gives of what WSGI cannot do:
such a page has to make its call synchronously, and blocks until the answer is there. Here the call
is one line, ``wait(...)``: this request stops at that line, its thread goes on with others::

    bide examples.2004.xmlrpc_page:application --threads 1
    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/?book=lost

The guestbook it asks is a real XML-RPC server that the example starts on a free port of the
loopback, at the first request; ``GUESTBOOK_URL`` names another one. The application is plain
PEP 3333: under another server ``wait`` blocks the thread, and the page is the same.
"""

import functools
import os
import socketserver
import threading
import xmlrpc.client
from html import escape
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment
from xmlrpc.server import SimpleXMLRPCServer

import httpx

from bide import capable, wait

CLIENT = httpx.AsyncClient(trust_env=False)
"""The process's one HTTP client. It keeps connections, and belongs to one event loop."""

GUESTBOOKS = {
    "visitors": [
        {"name": "Ada", "says": "It weaves algebraic patterns."},
        {"name": "Tom & Jerry", "says": "<b>We</b> were here first."},
    ],
}


def entries(book: Any) -> Any:
    """Return what is written in ``book``; the XML-RPC server's only method."""
    if book not in GUESTBOOKS:
        raise xmlrpc.client.Fault(404, f"there is no guestbook <{book}>")
    return GUESTBOOKS[book]


class GuestbookServer(socketserver.ThreadingMixIn, SimpleXMLRPCServer):
    """Answers each call in a daemon thread."""

    daemon_threads = True
    request_queue_size = 128


_starting = threading.Lock()


@functools.cache
def _start_guestbook() -> str:
    server = GuestbookServer(("127.0.0.1", 0), logRequests=False)
    server.register_function(entries, "guestbook.entries")
    threading.Thread(target=server.serve_forever, name="guestbook", daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/"


def guestbook_url() -> str:
    """Return where the guestbook is: ``GUESTBOOK_URL``, else the one that the example starts."""
    with _starting:
        return os.environ.get("GUESTBOOK_URL") or _start_guestbook()


async def call(url: str, method: str, *arguments: Any) -> Any:
    """Make an XML-RPC call; raises ``xmlrpc.client.Fault`` and ``httpx.HTTPError``."""
    response = await CLIENT.post(
        url,
        content=xmlrpc.client.dumps(arguments, method).encode(),
        headers={"Content-Type": "text/xml"},
    )
    response.raise_for_status()
    (result,), _ = xmlrpc.client.loads(response.content)
    return result


@capable("async", "threads")
def application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Show the guestbook that ``?book=`` names (visitors)."""
    book = parse_qs(environ["QUERY_STRING"]).get("book", ["visitors"])[0]
    try:
        found = wait(call(guestbook_url(), "guestbook.entries", book), timeout=10)
    except (xmlrpc.client.Fault, httpx.HTTPError, TimeoutError) as error:
        reason = error.faultString if isinstance(error, xmlrpc.client.Fault) else str(error)
        status, content = "502 Bad Gateway", f"<p>No guestbook: {escape(reason)}</p>"
    else:
        status = "200 OK"
        content = "".join(
            f"<dt>{escape(str(entry['name']))}</dt><dd>{escape(str(entry['says']))}</dd>"
            for entry in found
        )
        content = f"<h1>{escape(book)}</h1><dl>{content}</dl>"
    page = f"<!doctype html><html lang=en><title>Guestbook</title>{content}</html>\n".encode()
    start_response(
        status,
        [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(page)))],
    )
    return [page]
