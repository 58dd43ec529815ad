"""What the real ASGI servers serve: one WSGI application, under Bide and under two other adapters.

It runs in the server's process. The test asks it, over a connection of its own that this process
opens, what it has seen; a server whose threads are all taken could not be asked by a request.
"""

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import bide
from bide.hosts.asgi import asgi
from tests.served import Closing, Environ, Gate

BLOCK = 16 * 1024
BLOCKS = 1000
PLAIN = [("Content-Type", "text/plain")]

notes: dict[str, list[str]] = {}
gates: dict[str, Gate] = {}
_lock = threading.Lock()


def note(request: str, what: str) -> None:
    with _lock:
        notes.setdefault(request, []).append(what)
    with open(os.environ["ASGI_SITE_NOTES"], "a", encoding="utf-8") as file:
        print(request, what, file=file)


def gate(name: str) -> Gate:
    with _lock:
        return gates.setdefault(name, Gate())


def count(name: str) -> int:
    """Return how many notes there are of this request, or kind of requests."""
    return len(notes.get(name, ()))


def application(environ: Environ, start_response: Any) -> Any:
    """Do what the path says; the query names the request."""
    return globals()["do_" + environ["PATH_INFO"].split("/")[1]](environ, start_response)


def do_echo(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", PLAIN)
    return [environ["wsgi.input"].read()]


def do_socket(environ: Environ, start_response: Any) -> list[bytes]:
    name = environ["QUERY_STRING"]
    if name == "refuse":
        start_response("401 Unauthorized", PLAIN)
        return [b"no"]
    socket = bide.websocket(environ)
    try:
        while True:
            socket.send(socket.receive())
    except bide.WebSocketClosed as closed:
        note(name, f"{closed.code} {closed.reason}")
    return []


def do_environ(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", PLAIN)
    keys = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL")
    return [repr([environ.get(key) for key in keys]).encode()]


def do_stream(environ: Environ, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", PLAIN)
    yield b"1"
    bide.wait(gate(environ["QUERY_STRING"]).promise())
    yield b"2"


def do_flood(environ: Environ, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", PLAIN)
    for _ in range(BLOCKS):
        notes.setdefault(environ["QUERY_STRING"], []).append("block")
        yield bytes(BLOCK)


def do_lines(environ: Environ, start_response: Any) -> list[bytes]:
    for line in environ["wsgi.input"]:
        note(environ["QUERY_STRING"], line.decode())
    start_response("200 OK", PLAIN)
    return [b"x"]


def do_hold(environ: Environ, start_response: Any) -> list[bytes]:
    note(environ["QUERY_STRING"], "begun")
    bide.wait(gate(environ["QUERY_STRING"]).promise())
    size = 0
    while block := environ["wsgi.input"].read(65536):
        size += len(block)
    start_response("200 OK", PLAIN)
    return [str(size).encode()]


def do_wait(environ: Environ, start_response: Any) -> Closing:
    start_response("200 OK", PLAIN)
    name = environ["QUERY_STRING"]

    def blocks() -> Iterator[bytes]:
        yield b"1"
        note(name, "waits")
        try:
            bide.wait(gate(name).promise())
        except BaseException as error:
            note(name, type(error).__name__)
            raise
        yield b"2"

    class Noting(Closing):
        def close(self) -> None:
            note(name, "close")

    return Noting(blocks())


def do_fail(environ: Environ, start_response: Any) -> Any:
    raise RuntimeError("before the head")


def do_cut(environ: Environ, start_response: Any) -> Iterator[bytes]:
    headers = [*PLAIN, ("Content-Length", "9")] if environ["QUERY_STRING"] == "length" else PLAIN
    start_response("200 OK", headers)
    yield b"1"
    bide.wait(gate("cut").promise())
    raise RuntimeError("after the head")


def do_bodiless(environ: Environ, start_response: Any) -> list[bytes]:
    start_response(f"{environ['QUERY_STRING']} Status", PLAIN)
    return [b"1", b"2"]


def do_write(environ: Environ, start_response: Any) -> list[bytes]:
    write = start_response("200 OK", PLAIN)
    write(b"1")
    write(b"2")
    return [b"3"]


def do_push(environ: Environ, start_response: Any) -> None:
    write, finish = start_response("200 OK", PLAIN)

    def push() -> None:
        write(b"1")
        write(b"2")
        finish()

    threading.Thread(target=push).start()


def do_promise(environ: Environ, start_response: Any) -> Iterator[Any]:
    start_response("200 OK", PLAIN)
    promise: Future[bytes] = Future()
    threading.Thread(target=promise.set_result, args=(b"1",)).start()
    yield promise


def _serve_test(address: str) -> None:
    """Evaluate what the test asks, line by line."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as sock, sock.makefile("rw") as lines:
        for line in lines:
            print(repr(eval(line)), file=lines, flush=True)


if "ASGI_SITE_TEST" in os.environ:
    threading.Thread(
        target=_serve_test, args=(os.environ["ASGI_SITE_TEST"],), name="asked", daemon=True
    ).start()

under_bide = asgi(application)


def __getattr__(name: str) -> Any:
    """Make an adapter when a server imports it."""
    if name == "under_a2wsgi":
        from a2wsgi import WSGIMiddleware

        called: Any = application  # it has types of its own
        return WSGIMiddleware(called)
    if name == "under_asgiref":
        import asgiref.wsgi

        wsgi: Any = asgiref.wsgi  # without types
        return wsgi.WsgiToAsgi(application)
    raise AttributeError(name)
