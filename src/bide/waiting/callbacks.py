"""Promises that call back: ``add_done_callback``, and ``addCallback``.

The latter is Twisted's ``Deferred``, or the bare object of the 2004 proposal. Twisted is never
imported for this: a ``Deferred`` can only exist where it already is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from bide.waiting.outcome import Sink, give_up, listen, settle_from, withdraw
from bide.waiting.sharing import shared_concurrent, shared_deferred


class CallbackSubscription:
    """Listens to an object with ``add_done_callback``, which calls back on any thread."""

    __slots__ = ("_promise", "_sink")

    begins = cleans_up = False
    on_thread = True
    waits = True

    def __init__(self, promise: Any, sink: Sink) -> None:
        self._promise = promise
        self._sink = sink

    def start(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ARG002 - Subscription's signature
        """Listen, on this thread: these objects are made to be shared."""
        promise = self._promise
        if promise is not None:  # else another of several has failed meanwhile
            promise.add_done_callback(self._done)

    def _done(self, promise: Any) -> None:
        settle_from(promise, self._sink)

    def cancel(self) -> None:
        """Cancel what has not begun; a call that runs already runs to its end."""
        # It keeps its callbacks, and so this: no cycle.
        promise, self._promise = self._promise, None
        if promise is None:
            return
        if not shared_concurrent(promise, self):
            cancel = getattr(promise, "cancel", None)
            if cancel is not None:
                cancel()
        done = getattr(promise, "done", None)
        if callable(done) and done():
            settle_from(promise, self._sink)
        else:
            give_up(self._sink)


class DeferredSubscription:
    """Listens to an object with ``addCallback``.

    A ``Deferred`` is not thread-safe and belongs to the reactor's thread. A bare object is
    subscribed to on the waiting thread. The value is passed on to later callbacks; a failure is
    taken, so that Twisted does not report it as unhandled.
    """

    __slots__ = ("_asked", "_promise", "_sink")

    begins = False
    cleans_up = False
    waits = True

    def __init__(self, promise: Any, sink: Sink) -> None:
        self._promise = promise
        self._sink = sink
        self._asked = False

    @property
    def on_thread(self) -> bool:
        """Whether it must be cancelled on the waiting thread: no reactor is there for it."""
        return not is_deferred(self._promise)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ARG002 - Subscription's signature
        """Listen, on the reactor's thread for a ``Deferred``."""
        on_reactor(self._promise, self._listen)

    def _listen(self) -> None:
        listen(self._subscribe, self._sink)

    def _subscribe(self) -> None:
        self._promise.addCallback(self._value)
        self._take_failure()

    def _take_failure(self) -> None:
        add_errback = getattr(self._promise, "addErrback", None)
        if add_errback is not None:
            add_errback(self._failure)

    def _value(self, value: Any) -> Any:
        self._sink.settle(value)
        return value

    def _failure(self, failure: Any) -> None:
        error = getattr(failure, "value", failure)
        if not isinstance(error, BaseException):
            error = RuntimeError(f"the promise failed with {error!r}")
        self._sink.settle(error=error)

    def cancel(self) -> None:
        """Cancel a ``Deferred`` on its thread; the bare protocol has no cancelling."""
        on_reactor(self._promise, self._withdraw)

    def _withdraw(self) -> None:
        withdraw(self._cancel, self._sink)

    def _cancel(self) -> None:
        if self._asked:
            return
        self._asked = True
        promise = self._promise
        cancel = getattr(promise, "cancel", None)
        if cancel is None or shared_deferred(promise, self):
            give_up(self._sink)
            return
        # The failure that cancelling makes is taken here, too: perhaps nobody has listened yet.
        self._take_failure()
        cancel()
        if not is_deferred(promise):
            give_up(self._sink)  # it may never tell; a Deferred does


def is_deferred(promise: Any) -> bool:
    """Whether this is Twisted's ``Deferred``."""
    defer: Any = sys.modules.get("twisted.internet.defer")
    return defer is not None and isinstance(promise, defer.Deferred)


def on_reactor(promise: Any, function: Callable[[], object]) -> None:
    """Call ``function`` on the thread that Twisted's reactor runs in, where there is one."""
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    threadable = sys.modules.get("twisted.python.threadable")
    if (
        threadable is not None
        and is_deferred(promise)
        and getattr(reactor, "running", False)
        and not threadable.isInIOThread()
    ):
        reactor.callFromThread(function)
    else:
        function()
