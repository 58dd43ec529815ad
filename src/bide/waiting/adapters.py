"""What a promise is, and the subscription to each kind.

A promise is what an application can wait for:

===============================  ===========================================================
an awaitable                     coroutine, asyncio future or task, anything with ``__await__``
has ``addCallback``              Twisted's ``Deferred``; the bare object of the 2004 proposal
has ``add_done_callback``        ``concurrent.futures.Future``, Dask's future; it has ``result``
===============================  ===========================================================

The first row that fits counts, with one exception. A ``Deferred`` and a Dask future are awaitable
too, but only by their own kind of loop. So an awaitable that also has ``addErrback``, or
``result``, is listened to by callbacks. grpc.aio's calls have neither, and are awaited.

A subscription listens to one promise on the thread that the promise belongs to, and tells a *sink*
the outcome. It knows nothing of greenlets, requests or servers, and nothing here blocks.

A subscription that is cancelled asks its promise, on the promise's thread and in one step. If the
result is there, the sink is told that. Else the promise is cancelled, and the sink is told how it
then ends, which may be with a result. If no outcome can come any more, it is told
``asyncio.CancelledError``. A promise that others wait for too is not cancelled; see
:mod:`bide.waiting.futures`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import itertools
import threading
import types
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bide.compiling import mypyc_attr
from bide.forks import leave_loop
from bide.waiting.arguments import not_a_promise
from bide.waiting.awaiting import awaiting
from bide.waiting.foreign import DeferredSubscription, is_cancelled_deferred
from bide.waiting.futures import CallbackSubscription, FutureSubscription
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Signal, Sink, Subscription, give_up, settle_from, withdraw
from bide.waiting.served import context_elsewhere
from bide.waiting.thread_pool import Promise


class SignalSubscription(Subscription):
    """Listens to a :class:`Signal`, from any thread."""

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
        if self._signal.fired:
            self._sink.settle(self._signal.value, self._signal.error)
        else:
            give_up(self._sink)


@mypyc_attr(allow_interpreted_subclasses=True)
class TaskSubscription(Subscription):
    """Runs an awaitable as a task on the server's loop, with the waiting request's context.

    The task gets a copy of the context: a context that the request has entered on its own
    thread cannot be entered on a second one.
    """

    __slots__ = ("_cancelled", "_context", "_loop", "_promise", "_sink", "_task")

    def __init__(self, promise: Awaitable[Any], sink: Sink) -> None:
        self._promise: Awaitable[Any] | None = promise
        self._sink = sink
        self._context = context_elsewhere()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: Any = None  # what the loop makes; its factory may make one of its own
        self._cancelled = False

    @property
    def begins(self) -> bool:
        """True: it starts a task."""
        return True

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task on ``loop``; raises RuntimeError when that loop is closed."""
        self._loop = loop
        try:
            if asyncio._get_running_loop() is not loop or loop.get_task_factory() is None:
                on_loop(loop, self._begin)
            else:
                # An eager task takes its first step at once: not in the conversation's greenlet.
                loop.call_soon(self._begin)
        except RuntimeError:
            self._discard()
            raise

    def _begin(self) -> None:
        if self._cancelled:
            self._discard()
            give_up(self._sink)
            return
        assert self._promise is not None
        assert self._loop is not None
        run = awaiting(self._promise, self)
        try:
            self._task = self._loop.create_task(run, context=self._context)
        except BaseException as error:  # noqa: BLE001 - a task factory's; it belongs to the waiting line
            run.close()
            self._discard()
            self._sink.settle(error=error)
            return
        self._task.add_done_callback(self._done, context=self._context)

    def left(self, error: BaseException) -> None:
        """Called when the awaitable has raised what a task lets end the loop, and the server."""
        leave_loop(self._loop, error)  # where a forked child has raised it
        self._sink.settle(error=error)

    def brought(self, value: Any) -> None:
        """Called when the awaitable has a result."""
        task = self._task
        if task is not None:
            # Told here, a result costs no turn of the loop. A task that was asked to end, or that
            # its factory has begun at once, tells as one that fails.
            task.remove_done_callback(self._done)
            self._promise = self._task = None
            self._sink.settle(value)
            self.ended()

    def _done(self, task: Any) -> None:
        self._discard()  # a task that was cancelled before its first step has not begun it
        self._task = None  # it holds the error, whose traceback holds this: no cycle
        settle_from(task, self._sink)
        self.ended()

    def _discard(self) -> None:
        promise, self._promise = self._promise, None
        discard(promise)
        if self._task is None:
            self.ended()

    def ended(self) -> None:
        """Called when the awaitable has ended, or will never be started; for subclasses."""

    def cancel(self) -> None:
        """Cancel the task, or never start it."""
        # The flag comes first: _begin may be about to read it.
        self._cancelled = True
        if self._loop is None:  # never started: no other thread reads it
            self._discard()
            give_up(self._sink)
        elif self._loop.is_closed():
            if self._task is None and not has_begun(self._promise):
                self._discard()
            give_up(self._sink)
        else:
            on_loop(self._loop, withdraw, self._ask, self._sink)

    def _ask(self) -> None:
        # Once: a second time would interrupt its cleaning up.
        task, self._task = self._task, None
        if task is not None:
            task.cancel()


class All:
    """Several promises as one: all results in order, or the first error (the rest cancelled)."""

    __slots__ = ("promises",)

    def __init__(self, promises: tuple[Any, ...]) -> None:
        self.promises = promises


class AllSubscription(Subscription):
    """Starts several subscriptions together and gathers what they tell."""

    __slots__ = (
        "_arrived",
        "_begins",
        "_cancelled",
        "_loop",
        "_on_thread",
        "_results",
        "_sink",
        "_subscriptions",
    )

    def __init__(self, promise: All, sink: Sink) -> None:
        self._sink = sink
        self._results: list[Any] = [None] * len(promise.promises)
        self._arrived = itertools.count(1)  # next() is atomic: the last to arrive settles
        self._cancelled: BaseException | None = None  # a cancelled promise's, after `cancel`
        self._subscriptions: list[tuple[Subscription, _Part]] = []
        try:
            for index, each in enumerate(promise.promises):
                part = _Part(self, index)
                self._subscriptions.append((adapter_for(each)(each, part), part))
        except BaseException:  # a conversion's, which may have begun something for those before it
            self.cancel()
            raise
        self._begins = any(each.begins for each, _ in self._subscriptions)
        self._on_thread = any(each.on_thread for each, _ in self._subscriptions)

    @property
    def begins(self) -> bool:
        """Whether any of them begins promised work."""
        return self._begins

    @property
    def on_thread(self) -> bool:
        """Whether any of them must be cancelled on the waiting thread."""
        return self._on_thread

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start each, in order; one that cannot be started cancels the others."""
        if not self._subscriptions:
            self._sink.settle([])
        for subscription, _ in self._subscriptions:
            try:
                subscription.start(loop)
            except BaseException:
                self.cancel()
                raise

    def arrived(self, index: int, value: Any, error: BaseException | None) -> None:
        """Take one outcome, from any thread, once for each index."""
        if error is not None:
            if self._subscriptions or not is_cancelling(error):
                if self._sink.settle(error=error):
                    self.cancel()
                return
            self._cancelled = error  # one is kept: each holds frames, and they hold this
        self._results[index] = value
        if next(self._arrived) == len(self._results):
            cancelled, self._cancelled = self._cancelled, None
            try:
                self._sink.settle(None if cancelled else self._results, cancelled)
            finally:
                del cancelled  # it holds this frame: no cycle

    def cancel(self) -> None:
        """Cancel each. When all have ended, the sink is told; it may still get their results."""
        subscriptions, self._subscriptions = self._subscriptions, []  # no cycle through the parts
        for subscription, part in subscriptions:
            withdraw(subscription.cancel, part)


class _Part(Sink):
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


KINDS: Final[dict[type, type[Subscription]]] = {
    Signal: SignalSubscription,
    All: AllSubscription,
    types.CoroutineType: TaskSubscription,
    asyncio.Future: FutureSubscription,
    asyncio.Task: FutureSubscription,
    Promise: CallbackSubscription,
    concurrent.futures.Future: CallbackSubscription,
}
"""The kinds that the exact type of a promise decides; looked up first. Bide's own add theirs."""


LOOKUPS: Final[list[Callable[[type], type[Subscription] | None]]] = []
"""Each is asked about a class that is not among KINDS; what it returns counts before the rest."""


def kind_of(promise: Any) -> type[Subscription] | None:
    """Return the adapter that listens to ``promise``; None for what is not a promise."""
    kind = KINDS.get(type(promise))
    if kind is not None:
        return kind
    if isinstance(promise, type):
        return None
    for look in LOOKUPS:
        kind = look(type(promise))
        if kind is not None:
            return kind
    if asyncio.isfuture(promise):
        return FutureSubscription
    awaitable = inspect.isawaitable(promise)
    if _has(promise, "addCallback") and (not awaitable or _has(promise, "addErrback")):
        return DeferredSubscription
    if _has(promise, "add_done_callback") and _has(promise, "result"):
        return CallbackSubscription
    return TaskSubscription if awaitable else None


def _has(promise: Any, name: str) -> bool:
    return callable(getattr(promise, name, None))


def adapter_for(promise: Any) -> type[Subscription]:
    """Return the adapter that listens to ``promise``; raise TypeError for what is not a promise."""
    kind = kind_of(promise)
    if kind is None:
        raise TypeError(not_a_promise(promise))
    return kind


def is_cancelling(error: BaseException | None) -> bool:
    """Whether this is the error of a promise that was cancelled."""
    cancelling = isinstance(error, (asyncio.CancelledError, concurrent.futures.CancelledError))
    return cancelling or is_cancelled_deferred(error)


def has_begun(promise: Any) -> bool:
    """Whether code of a promise has run: where closing a coroutine would raise into it."""
    created = inspect.CORO_CREATED
    return (
        isinstance(promise, types.CoroutineType) and inspect.getcoroutinestate(promise) != created
    )


def discard(promise: Any) -> None:
    """Close a coroutine that nobody will run, so that Python does not warn about it.

    Those in a list too: it was given to ``wait`` by mistake.
    """
    if isinstance(promise, types.CoroutineType):
        promise.close()
    elif isinstance(promise, All):
        for each in promise.promises:
            discard(each)
    elif isinstance(promise, (list, tuple, set)):
        for each in promise:
            if isinstance(each, types.CoroutineType):
                each.close()
