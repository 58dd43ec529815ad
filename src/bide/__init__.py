"""Bide: serve Python web applications that block and applications that wait, side by side."""

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
from bide.hosts.wsgi import blocking
from bide.process.worker import run
from bide.serving.lifetime import on_start, on_stop
from bide.serving.requests import RequestStatus
from bide.serving.server import Server
from bide.serving.status import ProcessStatus, Status, status
from bide.settings import Settings
from bide.waiting.api import in_thread, iterate, using, wait, wait_all
from bide.waiting.thread_locals import per_request

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
