"""``--preload``: a process that imports the application once, and forks the workers from itself.

The workers share its memory, as far as they do not write to it. It is not the supervisor, which
never imports the application, so a reload takes a new one. It must have one thread: a fork would
copy none of the others, and what they held when it happened would stay locked.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bide.errors import StartError
from bide.forks import flush_output, share
from bide.process.links import Link
from bide.process.signals import answered, postpone, unheard
from bide.serving.lines import reopen
from bide.systems import signals

_TASKS: Final = Path("/proc/self/task")
_SET_CHILD_SUBREAPER: Final = 36
LEFT: Final = signals("SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""Signals that may be sent to all processes, as systemd does: it leaves them to the supervisor."""


def check_is_possible(reactor: str) -> None:
    """Raise StartError where an application cannot be preloaded.

    Args:
        reactor: the setting of this name.
    """
    if sys.platform != "linux" or not _TASKS.exists():
        raise StartError(
            "--preload works only on Linux: it needs /proc to see the threads of a process"
        )
    if reactor != "asyncio":
        raise StartError(
            "--preload and --reactor twisted cannot be combined: the reactor exists before the "
            "application is imported, and cannot be forked"
        )


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent has ended: of workers that a zygote forks.

    Raises:
        StartError: the system refuses.
    """
    library: Any = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise StartError(f"--preload is not possible: {os.strerror(ctypes.get_errno())}")


def other_threads() -> list[str]:
    """Return the names of all threads of this process but the calling one."""
    names = {each.native_id: each.name for each in threading.enumerate()}
    own = threading.get_native_id()
    found = []
    for each in sorted(int(path.name) for path in _TASKS.iterdir()):
        if each != own:
            system = (_TASKS / str(each) / "comm").read_text(encoding="utf-8").strip()
            found.append(names.get(each) or f"{system} (not Python's)")
    return found


def preload(link: Link, load: Callable[[], Any]) -> tuple[Any, int, int, Link]:
    """Import the application, and fork a worker whenever the supervisor asks for one.

    It returns in the workers alone. In the process itself it does not return; that ends with the
    supervisor, or when the supervisor has another one.

    Args:
        link: its end of the pair that it shares with the supervisor.
        load: imports the application.

    Returns:
        The application, the worker's slot and cell, and its end of its pair.

    Raises:
        StartError: the application has started threads.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in answered(LEFT):
        signal.signal(number, unheard)
    share(unheard, _restore)
    application = load()
    gc.collect()
    gc.freeze()
    check_has_one_thread()
    link.send("ready")
    watched = select.poll()
    watched.register(link, select.POLLIN)
    while link.open:
        watched.poll()
        for words in link.receive():
            if words[0] == "reopen":
                reopen()
                continue
            slot, cell = map(int, words[1:])
            (sock,) = link.take(1)
            if _fork():
                sock.close()
                continue
            if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # else it is the application's
                signal.signal(signal.SIGINT, signal.default_int_handler)
            postpone()
            link.close()
            worker = Link(sock)
            worker.send(f"pid {os.getpid()}")
            return application, slot, cell, worker
    os._exit(0)


def _restore(_: object) -> None:
    """Have a forked child, which may be one of the application's, end by signals as others do."""
    for number in LEFT:
        if signal.getsignal(number) is unheard:
            signal.signal(number, signal.SIG_DFL)


def check_has_one_thread() -> None:
    """Raise StartError, which names the others, if this process has several threads."""
    names = other_threads()
    if names:
        raise StartError(
            "--preload needs an application that starts no thread while it is imported, since "
            f"workers are forked from it; it has started: {', '.join(names)}. Start them in a "
            "function registered with bide.on_start, or do without --preload"
        )


def _fork() -> int:
    """Fork a child of the supervisor's; return 0 in it.

    It is a grandchild whose parent ends at once: so the supervisor becomes its parent.
    """
    flush_output()
    try:
        between = os.fork()
    except OSError:  # its end of the pair is closed: the supervisor learns it by that
        return -1
    if between == 0:
        try:
            ended = os.fork()
        except OSError:
            os._exit(1)
        if ended:
            os._exit(0)
        return 0
    os.waitpid(between, 0)
    return between
