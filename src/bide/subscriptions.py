"""What a promise is, and how each kind is listened to.

A promise is what an application can wait for:

===============================  ===========================================================
an awaitable                     coroutine, asyncio future or task, anything with ``__await__``
has ``addCallback``              Twisted's ``Deferred``; the bare object of the 2004 proposal
has ``add_done_callback``        ``concurrent.futures.Future``, Dask's future
===============================  ===========================================================

The table is read from the most particular kind to the most general: a ``Deferred`` and a Dask
future are awaitable too, but only by their own kind of loop.

A subscription listens to one promise on the thread that the promise belongs to, and tells a *sink*
the outcome. It knows nothing of greenlets, requests or servers, and nothing here blocks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import itertools
import sys
import threading
import types
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from bide.mailboxes import on_loop
from bide.promises import Signal, Sink


class Subscription(Protocol):
    """One sink's listening to one promise."""

    def __init__(self, promise: Any, sink: Sink) -> None: ...

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen; awaitables run on ``loop`` unless they belong to another one."""

    def cancel(self) -> None:
        """Cancel the promise: its outcome is not wanted any more. From any thread."""


class SignalSubscription:
    """Listens to a :class:`Signal`; it belongs to every thread."""

    __slots__ = ("_signal", "_sink")

    def __init__(self, promise: Signal, sink: Sink) -> None:
        self._signal = promise
        self._sink = sink

    def start(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ARG002 - Subscription's signature
        """Listen, on this thread."""
        self._signal.listen(self._sink)

    def cancel(self) -> None:
        """Stop listening; a signal itself cannot be cancelled."""
        self._signal.forget(self._sink)


class FutureSubscription:
    """Listens to an asyncio future or task, on the loop that it belongs to."""

    __slots__ = ("_future", "_loop", "_sink")

    def __init__(self, promise: asyncio.Future[Any], sink: Sink) -> None:
        self._future = promise
        self._sink = sink
        self._loop = promise.get_loop()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ARG002 - Subscription's signature
        """Listen, on the future's own loop, which may be another than ``loop``."""
        # A future that is done can be read on any thread, and its loop may be closed by now.
        if self._future.done():
            settle_from(self._future, self._sink)
        else:
            on_loop(self._loop, self._subscribe)

    def _subscribe(self) -> None:
        # A done future calls back by call_soon; asked here it costs no turn of the loop.
        if self._future.done():
            settle_from(self._future, self._sink)
        else:
            self._future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        settle_from(future, self._sink)

    def cancel(self) -> None:
        """Cancel the future, as :func:`asyncio.wait_for` does."""
        if not self._loop.is_closed():
            on_loop(self._loop, self._future.cancel)


class TaskSubscription:
    """Runs an awaitable as a task on the server's loop, with the waiting request's context.

    The task gets a copy of the context: a context that the request has entered on its own
    thread cannot be entered on a second one.
    """

    __slots__ = ("_cancelled", "_context", "_loop", "_promise", "_sink", "_task")

    def __init__(self, promise: Awaitable[Any], sink: Sink) -> None:
        self._promise: Awaitable[Any] | None = promise
        self._sink = sink
        self._context = contextvars.copy_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task on ``loop``; raises RuntimeError when that loop is closed."""
        self._loop = loop
        try:
            on_loop(loop, self._begin)
        except RuntimeError:
            self._discard()
            raise

    def _begin(self) -> None:
        if self._cancelled:
            self._discard()
            return
        assert self._promise is not None
        assert self._loop is not None
        self._task = self._loop.create_task(self._run(self._promise), context=self._context)
        self._task.add_done_callback(self._done, context=self._context)

    async def _run(self, promise: Awaitable[Any]) -> Any:
        try:
            return await promise
        except (SystemExit, KeyboardInterrupt) as error:
            # A task lets these two end the loop, and with it the server.
            self._sink.settle(error=error)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._discard()  # a task that was cancelled before its first step has not begun it
        self._task = None  # it holds the error, whose traceback holds this: no cycle
        settle_from(task, self._sink)

    def _discard(self) -> None:
        promise, self._promise = self._promise, None
        discard(promise)

    def cancel(self) -> None:
        """Cancel the task, or never start it."""
        # First the flag: _begin may be about to look at it.
        self._cancelled = True
        if self._loop is None:  # not asked for: nobody else looks
            self._discard()
        elif not self._loop.is_closed():
            on_loop(self._loop, self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class CallbackSubscription:
    """Listens to an object with ``add_done_callback``, which calls back on any thread."""

    __slots__ = ("_promise", "_sink")

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
        cancel = getattr(promise, "cancel", None)
        if cancel is not None:
            cancel()


class DeferredSubscription:
    """Listens to an object with ``addCallback``: Twisted's ``Deferred``, or the bare one of 2004.

    A ``Deferred`` is not thread-safe and belongs to the reactor's thread. A bare object is
    subscribed to on the waiting thread. The value is passed on to later callbacks; a failure is
    taken, so that Twisted does not report it as unhandled.
    """

    __slots__ = ("_promise", "_sink")

    def __init__(self, promise: Any, sink: Sink) -> None:
        self._promise = promise
        self._sink = sink

    def start(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ARG002 - Subscription's signature
        """Listen, on the reactor's thread for a ``Deferred``."""
        on_reactor(self._promise, self._subscribe)

    def _subscribe(self) -> None:
        self._promise.addCallback(self._value)
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
        if getattr(self._promise, "cancel", None) is not None:
            on_reactor(self._promise, self._cancel)

    def _cancel(self) -> None:
        # The failure that cancelling makes is taken here, too: perhaps nobody has listened yet.
        add_errback = getattr(self._promise, "addErrback", None)
        if add_errback is not None:
            add_errback(self._failure)
        self._promise.cancel()


def on_reactor(promise: Any, function: Callable[[], object]) -> None:
    """Call ``function`` on the thread that Twisted's reactor runs in, where there is one.

    Twisted is never imported for this: a ``Deferred`` can only exist where it already is.
    """
    defer = sys.modules.get("twisted.internet.defer")
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    threadable = sys.modules.get("twisted.python.threadable")
    if (
        defer is not None
        and threadable is not None
        and isinstance(promise, defer.Deferred)
        and getattr(reactor, "running", False)
        and not threadable.isInIOThread()
    ):
        reactor.callFromThread(function)
    else:
        function()


class All:
    """Several promises as one: all results in order, or the first error (the rest cancelled)."""

    __slots__ = ("promises",)

    def __init__(self, promises: tuple[Any, ...]) -> None:
        self.promises = promises


class AllSubscription:
    """Starts several subscriptions together and gathers what they tell."""

    __slots__ = ("_arrived", "_loop", "_results", "_sink", "_subscriptions")

    def __init__(self, promise: All, sink: Sink) -> None:
        self._sink = sink
        self._results: list[Any] = [None] * len(promise.promises)
        self._arrived = itertools.count(1)  # next() is atomic: the last to arrive settles
        self._subscriptions: list[Subscription] = [
            adapter_for(each)(each, _Part(self, index))
            for index, each in enumerate(promise.promises)
        ]

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start each, in order; one that cannot be started cancels the others."""
        if not self._subscriptions:
            self._sink.settle([])
        for subscription in self._subscriptions:
            try:
                subscription.start(loop)
            except BaseException:
                self.cancel()
                raise

    def arrived(self, index: int, value: Any, error: BaseException | None) -> None:
        """Take one outcome, from any thread, once for each index."""
        if error is not None:
            if self._sink.settle(error=error):
                self.cancel()
            return
        self._results[index] = value
        if next(self._arrived) == len(self._results):
            self._sink.settle(self._results)

    def cancel(self) -> None:
        """Cancel each; one that is done already takes no notice."""
        subscriptions, self._subscriptions = self._subscriptions, []  # no cycle through the parts
        for subscription in subscriptions:
            subscription.cancel()


class _Part:
    __slots__ = ("_all", "_claim", "_index")

    def __init__(self, whole: AllSubscription, index: int) -> None:
        self._all: AllSubscription | None = whole
        self._index = index
        self._claim = threading.Lock()

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
        if not self._claim.acquire(False):
            return False
        whole, self._all = self._all, None  # no cycle
        assert whole is not None
        whole.arrived(self._index, value, error)
        return True


def settle_from(future: Any, sink: Sink) -> None:
    """Tell ``sink`` what a finished future holds; a cancelled one is an error."""
    error: BaseException | None = None
    value = None
    try:
        # Asked for, not raised: a traceback through the callers' frames would hold the future, and
        # so the error itself.
        if asyncio.isfuture(future) or isinstance(future, concurrent.futures.Future):
            error = future.exception()
        if error is None:
            value = future.result()
    except BaseException as raised:  # noqa: BLE001 - whatever it is belongs to the waiting line
        error = raised
    try:
        sink.settle(value, error)
    finally:
        del error  # one that was raised here holds this frame, and its callers': no cycle


KINDS: Final[dict[type, type[Subscription]]] = {
    Signal: SignalSubscription,
    All: AllSubscription,
    types.CoroutineType: TaskSubscription,
}
"""The kinds that an exact type tells, looked up first; Bide's own add theirs here."""


def kind_of(promise: Any) -> type[Subscription] | None:
    """Say which adapter listens to ``promise``; None when it is no promise."""
    kind = KINDS.get(type(promise))
    if kind is not None:
        return kind
    if isinstance(promise, type):
        return None
    if asyncio.isfuture(promise):
        return FutureSubscription
    if callable(getattr(promise, "addCallback", None)):
        return DeferredSubscription
    if callable(getattr(promise, "add_done_callback", None)):
        return CallbackSubscription
    if inspect.isawaitable(promise):
        return TaskSubscription
    return None


def adapter_for(promise: Any) -> type[Subscription]:
    """Like :func:`kind_of`, and raise TypeError for what is no promise."""
    kind = kind_of(promise)
    if kind is None:
        raise TypeError(
            f"{type(promise).__name__} is no promise: wait for an awaitable, "
            "or for an object with add_done_callback or addCallback"
        )
    return kind


def discard(promise: Any) -> None:
    """Close a coroutine that nobody will run, so that Python does not warn about it."""
    if isinstance(promise, types.CoroutineType):
        promise.close()
    elif isinstance(promise, All):
        for each in promise.promises:
            discard(each)
