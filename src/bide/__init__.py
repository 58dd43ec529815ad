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
from bide.lifetime import on_start, on_stop
from bide.server import Server
from bide.settings import Settings
from bide.status import Status
from bide.supervisor import run
from bide.thread_locals import per_request
from bide.waiting import in_thread, iterate, using, wait, wait_all

__all__ = [
    "BideError",
    "Cancelled",
    "ClientDisconnected",
    "LocalProtocolError",
    "RemoteProtocolError",
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
    "using",
    "wait",
    "wait_all",
]
