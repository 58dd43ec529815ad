"""Futures: asyncio's, those of threads, and the like; and whether others wait for one, too.

When one waiter gives up, a promise that others wait for is not cancelled. A promise keeps the
callbacks of its waiters. Bookkeeping looks the same (a set's ``discard``, a metric). So a callback
counts only where it is known to be a wait: one of Bide's own, a coroutine's ``await``, or one of
the libraries that promises come from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from bide.waiting.loops import on_loop
from bide.waiting.outcome import Sink, Subscription, give_up, listen, settle_from, withdraw

LIBRARIES: Final[set[str]] = {"asyncio", "concurrent.futures"}
"""The packages whose callbacks are waits."""

PASS_ON: Final[set[str]] = {"_call_check_cancel"}
"""Callbacks of these packages that are not waits: they pass on the outcome of a promise."""


class FutureSubscription(Subscription):
    """Listens to an asyncio future or task, on the loop that it belongs to."""

    __slots__ = ("_future", "_loop", "_sink")

    waits = True

    def __init__(self, promise: asyncio.Future[Any], sink: Sink) -> None:
        self._future: Any = promise  # or an object that behaves as one
        self._sink = sink
        self._loop = promise.get_loop()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ARG002 - Subscription's signature
        """Listen, on the future's own loop, which may be another than ``loop``."""
        # A future that is done can be read on any thread, and its loop may be closed by now.
        future = self._future
        if future is None:
            return  # another promise of the same wait_all has failed meanwhile
        if future.done():
            settle_from(future, self._sink)
        else:
            on_loop(self._loop, listen, self._subscribe, self._sink)

    def _subscribe(self) -> None:
        # A done future would call back by call_soon. Read here, it costs no turn of the loop.
        future = self._future
        if future is None:
            return
        if future.done():
            settle_from(future, self._sink)
        else:
            future.add_done_callback(self._done)

    def _done(self, future: Any) -> None:
        settle_from(future, self._sink)

    def cancel(self) -> None:
        """Cancel the future, as :func:`asyncio.wait_for` does, unless others wait for it too."""
        if self._loop.is_closed():
            self._ask()
        else:
            on_loop(self._loop, withdraw, self._ask, self._sink)

    def _ask(self) -> None:
        future, self._future = self._future, None
        if future is None:
            return
        if future.done():
            settle_from(future, self._sink)
        elif self._loop.is_closed():
            give_up(self._sink)
        elif waited_for([callback for callback, _ in kept_by(future, "_callbacks")], self):
            future.remove_done_callback(self._done)
            give_up(self._sink)
        else:
            future.cancel()


class CallbackSubscription(Subscription):
    """Listens to an object with ``add_done_callback``, which calls back on any thread."""

    __slots__ = ("_promise", "_sink")

    waits = True

    def __init__(self, promise: Any, sink: Sink) -> None:
        self._promise = promise
        self._sink = sink

    @property
    def on_thread(self) -> bool:
        """True: to cancel it is to call its own code."""
        return True

    def start(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ARG002 - Subscription's signature
        """Listen, on this thread: these objects may be used by several threads."""
        promise = self._promise
        if promise is not None:  # else another promise of the same wait_all has failed meanwhile
            promise.add_done_callback(self._done)

    def _done(self, promise: Any) -> None:
        settle_from(promise, self._sink)
        self._promise = None  # it keeps its callbacks, and so this object: no cycle

    def cancel(self) -> None:
        """Cancel what has not begun; a call that runs already runs to its end."""
        promise, self._promise = self._promise, None  # no cycle, as above
        if promise is None:
            return
        if not _is_shared(promise, self):
            cancel = getattr(promise, "cancel", None)
            if cancel is not None:
                cancel()
        done = getattr(promise, "done", None)
        if callable(done) and done():
            settle_from(promise, self._sink)
        else:
            give_up(self._sink)


def is_awaited(promise: Any) -> bool:
    """Whether somebody waits for a future of threads; from any thread."""
    return _is_shared(promise, promise)


def _is_shared(future: Any, own: object) -> bool:
    """Whether others wait for a ``concurrent.futures.Future`` or the like; from any thread."""
    if kept_by(future, "_waiters"):  # of concurrent.futures.wait and as_completed
        return True
    if kept_by(getattr(future, "_condition", None), "_waiters"):  # threads in result()
        return True
    return waited_for(kept_by(future, "_done_callbacks"), own)


def waited_for(callbacks: Iterable[Callable[..., Any]], own: object) -> bool:
    """Whether one of these callbacks is a wait; methods of ``own`` do not count."""
    return any(_waits(callback, own) for callback in callbacks)


def _waits(callback: Any, own: object) -> bool:
    owner = getattr(callback, "__self__", None)
    if owner is own:
        return False
    if getattr(owner, "waits", False) is True or isinstance(owner, asyncio.Future):
        return True
    if getattr(callback, "__name__", "") in PASS_ON:
        return False
    module = getattr(callback, "__module__", None)
    return isinstance(module, str) and (
        module in LIBRARIES or module.startswith(tuple(f"{each}." for each in LIBRARIES))
    )


def kept_by(promise: Any, name: str) -> list[Any]:
    """Return the items of a promise's private attribute; none where that is not iterable."""
    kept = getattr(promise, name, None)
    try:
        return list(kept) if kept else []
    except TypeError:
        return []
