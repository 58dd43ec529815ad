"""Bide: serve Python web applications that block and applications that wait, side by side.

``import bide`` loads what waiting needs. What belongs to the server is loaded when it is first
used, so that a library can wait without it.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

__version__ = "0.1.0"

from bide.capabilities import capable
from bide.errors import (
    BideError,
    Cancelled,
    ClientDisconnected,
    LocalProtocolError,
    RemoteProtocolError,
    RequestTimeout,
    ServerStopping,
    StartError,
    WaitError,
    WriteWouldBlock,
)
from bide.waiting.api import in_thread, iterate, using, wait, wait_all
from bide.waiting.thread_locals import per_request

if TYPE_CHECKING:
    from bide.hosts.wsgi import blocking
    from bide.process.worker import run
    from bide.serving.lifetime import on_start, on_stop
    from bide.serving.requests import RequestStatus
    from bide.serving.server import Server
    from bide.serving.status import ProcessStatus, Status, status
    from bide.settings import Settings

_SERVER: Final = {
    "ProcessStatus": "bide.serving.status",
    "RequestStatus": "bide.serving.requests",
    "Server": "bide.serving.server",
    "Settings": "bide.settings",
    "Status": "bide.serving.status",
    "blocking": "bide.hosts.wsgi",
    "on_start": "bide.serving.lifetime",
    "on_stop": "bide.serving.lifetime",
    "run": "bide.process.worker",
    "status": "bide.serving.status",
}
"""The names that are loaded at first use, and their modules; as imported for type checkers."""

__all__ = [
    "BideError",
    "Cancelled",
    "ClientDisconnected",
    "LocalProtocolError",
    "ProcessStatus",
    "RemoteProtocolError",
    "RequestStatus",
    "RequestTimeout",
    "Server",
    "ServerStopping",
    "Settings",
    "StartError",
    "Status",
    "WaitError",
    "WriteWouldBlock",
    "__version__",
    "blocking",
    "capable",
    "in_thread",
    "iterate",
    "on_start",
    "on_stop",
    "per_request",
    "run",
    "status",
    "using",
    "wait",
    "wait_all",
]


def __getattr__(name: str) -> Any:
    module = _SERVER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
