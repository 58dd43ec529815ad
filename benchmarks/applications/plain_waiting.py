"""Plain WSGI that waits for a coroutine with `wait` and holds no thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bide import wait

from .attendance import Attendance

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

parked = Attendance()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/parked":
        return [b"%d\n" % parked.present]
    with parked.attend():
        wait(asyncio.sleep(float(environ["QUERY_STRING"].partition("=")[2])))
    return [b"waited\n"]
