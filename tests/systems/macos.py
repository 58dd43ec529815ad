"""Makes a Python process what it is on macOS, for a test: run before Bide is imported.

What macOS lacks of Linux is taken away: epoll, ``/proc``, control groups, real-time signals, clocks
of other threads and some options of sockets. What is left is Linux's. So this shows that each of
them has something in its place, and not that the rest of macOS is the same.
"""

# ruff: noqa: F401 - imported for what follows
import asyncio
import errno
import io
import logging.config
import multiprocessing.util
import os
import pathlib
import select
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from typing import Any

LACKING = {
    os: """
        sched_getaffinity sched_setaffinity eventfd eventfd_read eventfd_write memfd_create pipe2
        posix_fadvise getrandom splice copy_file_range pidfd_open
    """,
    signal: "SIGRTMIN SIGRTMAX SIGPOLL SIGPWR SIGSTKFLT sigtimedwait sigwaitinfo pidfd_send_signal",
    socket: """
        SO_PEERCRED SOCK_CLOEXEC SOCK_NONBLOCK MSG_NOSIGNAL TCP_KEEPIDLE TCP_DEFER_ACCEPT
        TCP_QUICKACK TCP_USER_TIMEOUT TCP_CORK AF_NETLINK AF_VSOCK
    """,
    select: "epoll",
    time: "pthread_getcpuclockid",
}
FOLDERS = ("/proc", "/sys")


def become_macos() -> None:
    """Take away what macOS lacks, in this process, for good."""
    for module, names in LACKING.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    setattr(selectors, "DefaultSelector", selectors.PollSelector)  # noqa: B010 - of another type
    asks = socket.socket.getsockopt

    def getsockopt(self: socket.socket, level: int, option: int, *size: int) -> Any:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        return asks(self, level, option, *size)

    setattr(socket.socket, "getsockopt", getsockopt)  # noqa: B010
    for module, name in ((io, "open"), (os, "stat"), (os, "scandir"), (os, "listdir")):
        setattr(module, name, _without_folders(getattr(module, name)))
    __builtins__["open"] = io.open
    setattr(os, "process_cpu_count", os.cpu_count)  # noqa: B010 - as it is there, from 3.13 on
    sysconfig.get_config_vars()  # they are read once, by the name of the platform
    sys.platform = "darwin"


def _without_folders(function: Callable[..., Any]) -> Callable[..., Any]:
    def find(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(FOLDERS):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return function(path, *args, **kwargs)

    return find
