"""What type checkers refuse, by line; checked, never run.

A line with ``type: ignore`` must be an error, for mypy of this kind: an ignored line without an
error is itself an error, for mypy by ``warn_unused_ignores``, and for pyright by
``reportUnnecessaryTypeIgnoreComment``.
"""

from collections.abc import Iterable
from typing import Any

import bide
from bide import StartResponse, WSGIApplication
from bide.testing import Client, LiveServer
from bide.typing import WSGIEnvironment


async def number() -> int:
    """Return a number."""
    return 1


def convert(value: int, *, signed: bool = False) -> float:
    """Take a number."""
    return 0.0


def waits() -> None:
    """What is not a promise, and what is not a time-out."""
    bide.wait(3)  # type: ignore[call-overload]
    bide.wait(number)  # type: ignore[call-overload]
    bide.wait([number(), number()])  # type: ignore[call-overload]
    bide.wait(number(), timeout="1")  # type: ignore[call-overload]
    bide.wait(number(), number())  # type: ignore[call-overload]
    bide.wait_all(number(), 3)  # type: ignore[call-overload]
    bide.wait_all([number(), number()])  # type: ignore[call-overload]
    bide.wait_all(number(), 1, timeout=2)  # type: ignore[call-overload]
    _text: str = bide.wait(number())  # type: ignore[assignment]
    _first, _second, _third = bide.wait_all(number(), number())  # type: ignore[misc]
    bide.iterate([1])  # type: ignore[arg-type]
    bide.using(open("file"))  # type: ignore[arg-type]  # noqa: SIM115


def calls_elsewhere() -> None:
    """Arguments that the function does not take."""
    bide.in_thread(convert, "1")  # type: ignore[arg-type]
    bide.in_thread(convert)  # type: ignore[call-arg]
    bide.in_thread(convert, 1, sign=True)  # type: ignore[call-arg]
    bide.in_thread(convert(1))  # type: ignore[arg-type]
    bide.in_process(convert, "1")  # type: ignore[arg-type]
    bide.spawn(convert, "1")  # type: ignore[arg-type]
    bide.spawn(convert, 1, signed=True)  # type: ignore[call-arg]


def pushes(environ: WSGIEnvironment, start_response: StartResponse) -> None:
    """What is not sent."""
    write, finish = start_response("200 OK", [])
    write("text")  # type: ignore[arg-type]
    write()  # type: ignore[call-arg]
    finish(b"block")  # type: ignore[call-arg]
    start_response("200 OK", {"Content-Type": "text/plain"})  # type: ignore[arg-type]
    start_response(200, [])  # type: ignore[arg-type]


def of_text(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[str]:
    """Yield what is not bytes."""
    return []


def of_one(environ: WSGIEnvironment) -> Iterable[bytes]:
    """Take one argument."""
    return []


wrong_type: WSGIApplication = of_text  # type: ignore[assignment]
wrong_number: WSGIApplication = of_one  # type: ignore[assignment]


def serves(application: Any) -> None:
    """What is not a setting, or not of its type."""
    bide.run(3)  # type: ignore[arg-type]
    bide.run(application, thread=4)  # type: ignore[call-arg]
    bide.run(application, threads="4")  # type: ignore[arg-type]
    bide.Server(application, bind=8000)  # type: ignore[arg-type]
    LiveServer(application, thread=4)  # type: ignore[call-arg]
    bide.capable("fast")  # type: ignore[arg-type]


def tests(client: Client) -> None:
    """What the testing kit does not take."""
    client.get("/", param={"a": 1})  # type: ignore[call-arg]
    client.post("/", data=3)  # type: ignore[arg-type]
    client.post("/", headers={"X": 1})  # type: ignore[arg-type]
    client.stream("GET", "/", timeout="1")  # type: ignore[arg-type]
    client.websocket("/", data=b"")  # type: ignore[call-arg]
