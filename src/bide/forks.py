"""A forked child is not the server.

Code of the application may fork: by itself, by ``multiprocessing``, or by a library that starts a
helper. The child has a copy of everything: conversations in the middle of their work, sockets, the
event loop with its queue. In the kernel, it shares the sockets with its parent. So the child gives
all of it up, in ways that do not affect the parent: descriptors are closed, but no connection is
shut down, and no epoll is changed. The application may do in the child what it likes, but nothing
of the server runs there: code that comes back to the server ends the process.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import select
import selectors
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NoReturn, TypeVar

from greenlet import getcurrent, greenlet

from bide.systems import at_fork, signals

T = TypeVar("T")
G = TypeVar("G", bound=greenlet)

_ANSWERED: Final = signals("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1")
"""Signals that a server may have handlers for."""
_PIPE: Final = 2048
"""Characters that can be written to a pipe at once when it is writable."""

_shared: weakref.WeakKeyDictionary[object, Callable[[Any], object]] = weakref.WeakKeyDictionary()
_kinds: dict[type[greenlet], Callable[[Any], object]] = {}
_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_given_up: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_masks: dict[int, set[int | signal.Signals]] = {}
"""By thread: what it had blocked before it began to fork."""


def share(each: T, give_up: Callable[[T], object]) -> None:
    """Register an object, by a weak reference, that a forked child must give up.

    On the thread that the object belongs to.

    Args:
        each: the object.
        give_up: called with it in the child, on its only thread. Any lock may be held for ever.
    """
    _shared[each] = give_up


def reaped() -> Iterator[tuple[int, int]]:
    """Take the ends of all children that have ended: the number of each, and its wait status."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status


def share_greenlets(kind: type[G], give_up: Callable[[G], object]) -> None:
    """Register a class of greenlets that a child forked in one gives up; as :func:`share`."""
    _kinds[kind] = give_up


def share_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Register a loop that a forked child gives up, whether a server runs on it or not."""
    _loops.add(loop)


def unshare(each: object) -> None:
    """Undo ``share``."""
    _shared.pop(each, None)


def _before() -> None:
    # A signal to a child that still has the server's handlers would go to the server.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ANSWERED)
    _masks[threading.get_ident()] = blocked


def _after() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop(threading.get_ident()))


def _after_fork() -> None:
    try:
        running: Any = getcurrent()
        while running is not None:
            above = running.parent
            if give_up := _kinds.get(type(running)):
                _have_given_up(running, give_up)
            running = above
        for each, give_up in list(_shared.items()):
            _have_given_up(each, give_up)
        for loop in list(_loops):
            give_up_loop(loop)
    finally:
        _shared.clear()
        _loops.clear()
        _after()
        _masks.clear()


def give_up_each(these: Iterable[T], give_up: Callable[[T], object]) -> None:
    """Call a function with each in a child. What it raises is printed, and the others follow."""
    for each in list(these):
        _have_given_up(each, give_up)


def _have_given_up(each: T, give_up: Callable[[T], object]) -> None:
    try:
        give_up(each)
    except Exception:  # noqa: BLE001 - it is shown
        # The others must be given up all the more.
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()


def give_up_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Make a loop watch and run nothing in a child; the child ends when it comes back to it."""
    if loop.is_closed():
        return
    _given_up.add(loop)
    selector = getattr(loop, "_selector", None)
    if isinstance(selector, selectors.BaseSelector):
        # A new selector in its place. In the kernel, the old one is the parent's too: what the
        # child unregistered would be unregistered for the parent.
        selector.__init__()  # type: ignore[misc]
    ready = getattr(loop, "_ready", None)
    here = getattr(loop, "_thread_id", None) == threading.get_ident()
    if here and ready is not None:
        # A callback or a coroutine has forked, and comes back to the loop.
        ready.clear()
        loop.call_soon(end_child)


at_fork(before=_before, after_in_parent=_after, after_in_child=_after_fork)


def end_child(error: BaseException | None = None) -> NoReturn:
    """End a child that has come back to the server from the application.

    ``SystemExit`` ends it with its code, and another error with a traceback and code 1. A plain
    return ends it with a line on standard error. No ``atexit`` function is called: they are the
    parent's.
    """
    code, text = 0, ""
    if error is None:
        text = (
            f"bide: process {os.getpid()}, which the application has forked, came back to the "
            "server and is ended: end it in the application, by os._exit()\n"
        )
    elif isinstance(error, SystemExit):
        code = code_of(error)
        text = "" if error.code in (None, code) else f"{error.code}\n"
    elif isinstance(error, KeyboardInterrupt):
        code = 130
    else:
        code, text = 1, "".join(traceback.format_exception(error))
    for stream in (sys.stdout, sys.stderr):
        # The stream may be closed, or without a reader. The parent may wait for this process.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if select.select([], [stream], [], 0)[1]:
                if stream is sys.stderr:
                    stream.write(text[-_PIPE:])
                stream.flush()
    os._exit(code)


def how_it_ended(code: int) -> str:
    """Return in words how a process has ended.

    Args:
        code: its exit code; less than 0: the signal that has ended it.
    """
    if code >= 0:
        return f"has ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def flush_output() -> None:
    """Write what was printed: before a fork, since the child would write it again; at an end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


class Threads(concurrent.futures.ThreadPoolExecutor):
    """A loop's own threads: a child that is forked in one ends with the call that has forked."""

    def submit(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Schedule a function to be called in one of the threads; return its future."""
        return super().submit(_call, function, args, kwargs)


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with EndingChildren():
        return function(*args, **kwargs)


class EndingChildren:
    """Ends a child that is forked in the ``with`` block when it leaves the block."""

    __slots__ = ("_process",)

    def __enter__(self) -> None:
        self._process = os.getpid()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if os.getpid() != self._process:
            end_child(error)


def leave_loop(loop: asyncio.AbstractEventLoop | None, error: BaseException) -> None:
    """End this process with ``error`` if it is a forked child and the loop was its parent's."""
    if loop in _given_up:
        end_child(error)


def code_of(error: BaseException) -> int:
    """Return the exit code with which Python ends a program that raises ``error``."""
    if not isinstance(error, SystemExit):
        return 1
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def came_back(*_: object) -> NoReturn:
    """End a child that has come back to the server; a callback that ignores its arguments."""
    end_child()
