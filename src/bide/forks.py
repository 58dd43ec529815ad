"""A forked child is not the server.

Code of the application may fork: by itself, by ``multiprocessing``, or by a library that starts a
helper. The child has a copy of everything: conversations in the middle of their work, sockets, the
event loop with its queue. It shares what these stand for with its parent. So here, in the child,
all of it is given up, without a word to the kernel that the parent would feel: descriptors are
closed and nothing is shut down, and no epoll is changed. What the application does in the child is
its own affair, but nothing of the server runs there: whoever comes back to it ends the process.
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
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, Protocol, runtime_checkable

from greenlet import getcurrent


@runtime_checkable
class Shared(Protocol):
    """What a child must give up."""

    def after_fork(self) -> None:
        """Give it up; in the child, on its only thread. Any lock may be held for ever."""


_PIPE: Final = 2048
"""Characters that a pipe has room for when it takes any."""

_shared: weakref.WeakSet[Any] = weakref.WeakSet()
_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_given_up: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_masks: dict[int, set[int | signal.Signals]] = {}
"""By thread: what it had blocked before it began to fork."""


def share(each: Shared) -> None:
    """Have a child of this process give this up; it is not kept alive for that. On its thread."""
    _shared.add(each)


def share_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have a child give this loop up, whether a server runs on it or not."""
    _loops.add(loop)


def unshare(each: Shared) -> None:
    """Take back ``share``."""
    _shared.discard(each)


def _before() -> None:
    # What comes to a child before it has given up the server's handlers would be the server's.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    _masks[threading.get_ident()] = blocked


def _after() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop(threading.get_ident()))


def _after_fork() -> None:
    try:
        running: Any = getcurrent()
        while running is not None:
            above = running.parent
            _have_given_up(running)
            running = above
        for each in list(_shared):
            _have_given_up(each)
        for loop in list(_loops):
            give_up_loop(loop)
        # Code on Twisted's thread may have forked, and runs no reactor in the child.
        threadable: Any = sys.modules.get("twisted.python.threadable")
        if threadable is not None:
            threadable.ioThread = None
    finally:
        _shared.clear()
        _loops.clear()
        _after()
        _masks.clear()


def _have_given_up(each: object) -> None:
    try:
        if isinstance(each, Shared):
            each.after_fork()
    except Exception:  # noqa: BLE001 - it is shown
        # The others must be given up all the more.
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()


def give_up_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop watch and run nothing in a child, and the child end when it comes back to it."""
    if loop.is_closed():
        return
    _given_up.add(loop)
    selector = getattr(loop, "_selector", None)
    if isinstance(selector, selectors.BaseSelector):
        # A new one in its place. What is taken out of the parent's would be taken out for the
        # parent too: the two are one in the kernel.
        selector.__init__()  # type: ignore[misc]
    ready = getattr(loop, "_ready", None)
    here = getattr(loop, "_thread_id", None) == threading.get_ident()
    if here and ready is not None:
        # A callback or a coroutine has forked, and comes back to the loop.
        ready.clear()
        loop.call_soon(end_child)


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_fork)


def end_child(error: BaseException | None = None) -> NoReturn:
    """End a child that has come back to the server from the application.

    ``SystemExit`` ends it with its code, another error with a traceback and 1, and a mere return
    with a line that says so. No ``atexit`` function is called: they are the parent's.
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
        # Nobody may read, or it is closed. The parent may wait for this process.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if select.select([], [stream], [], 0)[1]:
                if stream is sys.stderr:
                    stream.write(text[-_PIPE:])
                stream.flush()
    os._exit(code)


class Threads(concurrent.futures.ThreadPoolExecutor):
    """A loop's own threads: a child that is forked in one ends with the call that has forked."""

    def submit(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Have a function called."""
        return super().submit(_call, function, args, kwargs)


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with ending_children():
        return function(*args, **kwargs)


@contextlib.contextmanager
def ending_children() -> Iterator[None]:
    """End a child that is forked in a ``with`` block when it comes out of that."""
    process = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != process:
            end_child(error)
        raise
    if os.getpid() != process:
        end_child()


def leave_loop(loop: asyncio.AbstractEventLoop | None, error: BaseException) -> None:
    """Leave, where this loop was the parent's."""
    if loop in _given_up:
        end_child(error)


def code_of(error: BaseException) -> int:
    """Return the exit code that Python has for what ends a program."""
    if not isinstance(error, SystemExit):
        return 1
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def came_back(*_: object) -> NoReturn:
    """Leave; for whom arguments are given that mean nothing here."""
    end_child()
