"""Makes a Python process what it is on native Windows, for a test: run before Bide is imported.

What that system lacks is taken away from ``os``, ``signal``, ``socket``, ``select`` and ``time``.
The modules that it lacks cannot be imported. What Bide needs of the standard library and of others
is imported before, as it would not load here otherwise.
"""

# ruff: noqa: F401 - imported for what follows
import asyncio
import concurrent.futures
import ctypes
import enum
import logging.config
import multiprocessing.spawn
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
import uuid

import click
import greenlet
import httptools

SIGNALS = ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM")
"""Those of Linux that Windows has, too."""
LACKING = {
    os: """
        fork forkpty register_at_fork sendfile getuid geteuid getgid getegid setuid setgid
        setgroups initgroups chown fchown fchmod sched_getaffinity WNOHANG wait3 wait4 eventfd
        memfd_create pipe2 getpgid setsid killpg openpty O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW
        O_NONBLOCK uname nice getloadavg sysconf pread pwrite readv writev posix_spawn ctermid
        ttyname mkfifo
    """,
    signal: """
        SIG_BLOCK SIG_SETMASK SIG_UNBLOCK pthread_sigmask pthread_kill sigwait alarm setitimer
        siginterrupt
    """,
    socket: """
        AF_UNIX SO_REUSEPORT SO_PEERCRED MSG_DONTWAIT MSG_NOSIGNAL SOCK_CLOEXEC SOCK_NONBLOCK
        CMSG_LEN CMSG_SPACE SCM_RIGHTS send_fds recv_fds TCP_DEFER_ACCEPT
    """,
    select: "epoll poll kqueue",
    time: "pthread_getcpuclockid CLOCK_THREAD_CPUTIME_ID",
}
MODULES = "fcntl resource pwd grp termios tty pty syslog posix"


def become_windows() -> None:
    """Take away what Windows lacks, in this process, for good."""
    unix, pair = socket.AF_UNIX, socket.socketpair
    # Windows has pairs of sockets, made in another way; an event loop needs one.
    setattr(socket, "socketpair", lambda *_: pair(unix))  # noqa: B010 - of another type
    kept = {name: number.value for name, number in signal.Signals.__members__.items()}
    for name in kept:
        if name not in SIGNALS:
            delattr(signal, name)
    members = {name: kept[name] for name in SIGNALS}
    setattr(signal, "Signals", enum.IntEnum("Signals", members))  # noqa: B010
    for module, names in LACKING.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in MODULES.split():
        sys.modules[name] = None  # type: ignore[assignment]
    sysconfig.get_config_vars()  # they are read once, by the name of the platform
    sys.platform = "win32"
