"""Bide: serve Python web applications that block and applications that wait, side by side.

``import bide`` loads only the errors. Every other name is loaded when it is first used. Waiting
does not load the server. The server does not load the command line.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any, Final

__version__ = "0.1.0"

if os.environ.get("BIDE_PURE") == "1":
    from bide.sources import prefer_sources

    prefer_sources()  # before any module that may be compiled

from bide.errors import (
    BideError,
    BindError,
    Cancelled,
    ClientDisconnected,
    LoadError,
    LocalProtocolError,
    Overloaded,
    ProcessDied,
    ProcessesBusy,
    RemoteProtocolError,
    RequestTimeout,
    ResidentFailed,
    ServerStopping,
    SettingError,
    StartError,
    ThreadEnded,
    WaitError,
    WebSocketClosed,
    WriteWouldBlock,
)

if TYPE_CHECKING:
    from bide.applications.mounts import mount
    from bide.capabilities import capable
    from bide.exchange.identity import request_id
    from bide.executors.spawning import spawn
    from bide.hosts.websocket import websocket
    from bide.hosts.wsgi import blocking
    from bide.process.worker import run
    from bide.serving.lifetime import on_start, on_stop
    from bide.serving.requests import RequestStatus
    from bide.serving.server import Server
    from bide.serving.status import ProcessStatus, Status, status
    from bide.settings import Settings
    from bide.typing import StartResponse, WSGIApplication
    from bide.waiting.api import in_thread, iterate, using, wait, wait_all
    from bide.waiting.limits import Limit, LimitStatus, limit
    from bide.waiting.process_bounds import ResidentStatus
    from bide.waiting.processes import in_process
    from bide.waiting.queues import Queue
    from bide.waiting.residents import Resident, resident
    from bide.waiting.sync import Condition, Event, Lock, Semaphore
    from bide.waiting.thread_locals import per_request
    from bide.wsgi.websocket import WebSocket, broadcast

_LATER: Final = {
    "Condition": "bide.waiting.sync",
    "Event": "bide.waiting.sync",
    "Limit": "bide.waiting.limits",
    "LimitStatus": "bide.waiting.limits",
    "Lock": "bide.waiting.sync",
    "ProcessStatus": "bide.serving.status",
    "Queue": "bide.waiting.queues",
    "RequestStatus": "bide.serving.requests",
    "Resident": "bide.waiting.residents",
    "ResidentStatus": "bide.waiting.process_bounds",
    "Semaphore": "bide.waiting.sync",
    "Server": "bide.serving.server",
    "Settings": "bide.settings",
    "StartResponse": "bide.typing",
    "Status": "bide.serving.status",
    "WSGIApplication": "bide.typing",
    "WebSocket": "bide.wsgi.websocket",
    "blocking": "bide.hosts.wsgi",
    "broadcast": "bide.wsgi.websocket",
    "capable": "bide.capabilities",
    "in_process": "bide.waiting.processes",
    "in_thread": "bide.waiting.api",
    "iterate": "bide.waiting.api",
    "limit": "bide.waiting.limits",
    "mount": "bide.applications.mounts",
    "on_start": "bide.serving.lifetime",
    "on_stop": "bide.serving.lifetime",
    "per_request": "bide.waiting.thread_locals",
    "request_id": "bide.exchange.identity",
    "resident": "bide.waiting.residents",
    "run": "bide.process.worker",
    "spawn": "bide.executors.spawning",
    "status": "bide.serving.status",
    "using": "bide.waiting.api",
    "wait": "bide.waiting.api",
    "wait_all": "bide.waiting.api",
    "websocket": "bide.hosts.websocket",
}
"""The names that are loaded at first use, and their modules; as imported for type checkers."""

__all__ = [
    "BideError",
    "BindError",
    "Cancelled",
    "ClientDisconnected",
    "Condition",
    "Event",
    "Limit",
    "LimitStatus",
    "LoadError",
    "LocalProtocolError",
    "Lock",
    "Overloaded",
    "ProcessDied",
    "ProcessStatus",
    "ProcessesBusy",
    "Queue",
    "RemoteProtocolError",
    "RequestStatus",
    "RequestTimeout",
    "Resident",
    "ResidentFailed",
    "ResidentStatus",
    "Semaphore",
    "Server",
    "ServerStopping",
    "SettingError",
    "Settings",
    "StartError",
    "StartResponse",
    "Status",
    "ThreadEnded",
    "WSGIApplication",
    "WaitError",
    "WebSocket",
    "WebSocketClosed",
    "WriteWouldBlock",
    "__version__",
    "blocking",
    "broadcast",
    "capable",
    "in_process",
    "in_thread",
    "iterate",
    "limit",
    "mount",
    "on_start",
    "on_stop",
    "per_request",
    "request_id",
    "resident",
    "run",
    "spawn",
    "status",
    "using",
    "wait",
    "wait_all",
    "websocket",
]


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
