"""One task on the loop that makes calls one after another for ordinary code.

Async generators, cancel scopes and task groups must be entered, used and left in one task and
one context. An actor is that task: ``iterate`` and ``using`` make all their calls through one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bide.waiting.adapters import KINDS
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Sink, Subscription, give_up, listen
from bide.waiting.served import context_elsewhere

_Function = Callable[..., Awaitable[Any]]


class Call:
    """A promise of one call that an actor makes.

    Attributes:
        cleans_up: whether it must be made even when the request is cancelled.
    """

    __slots__ = ("actor", "args", "cleans_up", "function")

    def __init__(
        self,
        actor: Actor,
        function: _Function,
        args: tuple[Any, ...],
        cleans_up: bool = False,
    ) -> None:
        self.actor = actor
        self.function = function
        self.args = args
        self.cleans_up = cleans_up


class CallSubscription(Subscription):
    """Passes a call to its actor, and tells the sink the outcome."""

    __slots__ = ("_started", "cancelled", "promise", "sink")

    def __init__(self, promise: Call, sink: Sink) -> None:
        self.promise = promise
        self.sink = sink
        self._started = False
        self.cancelled = False  # on the loop only, once it has started

    @property
    def begins(self) -> bool:
        """True: the call is made for this wait."""
        return True

    @property
    def cleans_up(self) -> bool:
        """Whether the call must be made even when the request is cancelled."""
        return self.promise.cleans_up

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Queue the call; the first one starts the actor's task on ``loop``, for all of them."""
        actor = self.promise.actor
        if actor.loop is None:
            actor.loop = loop
        self._started = True
        on_loop(actor.loop, listen, self._enter, self.sink)

    def _enter(self) -> None:
        self.promise.actor.enter(self)

    def cancel(self) -> None:
        """Cancel this call alone; the actor goes on, for the calls that clean up."""
        loop = self.promise.actor.loop
        if not self._started:
            self.cancelled = True
            give_up(self.sink)
        elif loop is None or loop.is_closed():
            give_up(self.sink)
        else:
            on_loop(loop, self.promise.actor.interrupt, self)


_LEAVE: Final = object()


class Actor:
    """A task that makes calls in turn; started by the first call, ended by ``leave``.

    ``call`` and ``leave`` may be called from any thread, one at a time; the rest on the loop.

    Args:
        abandon: called in the task when that is cancelled between two calls: by a cancel scope that
            was entered in one of them, or because the loop ends. Its argument is the
            CancelledError. It returns true to swallow that, as ``__aexit__`` does. Then the task
            ends, and later calls get the result, or the error, of ``abandon``.
        subject: the object that the calls are made on, for the status.
    """

    __slots__ = (
        "_abandon",
        "_arrival",
        "_calls",
        "_context",
        "_current",
        "_end",
        "_task",
        "loop",
        "subject",
    )

    def __init__(
        self,
        abandon: Callable[[BaseException], Awaitable[Any]] | None = None,
        subject: Any = None,
    ) -> None:
        self.subject = subject
        self.loop: asyncio.AbstractEventLoop | None = None
        self._abandon = abandon
        self._end: tuple[BaseException | None] | None = None  # what later calls are answered
        self._context = context_elsewhere()
        self._calls: deque[Any] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._current: CallSubscription | None = None
        self._task: asyncio.Task[None] | None = None

    def call(self, function: _Function, *args: Any) -> Call:
        """Return a promise of ``await function(*args)``, which the actor's task calls."""
        return Call(self, function, args)

    def clean_up(self, function: _Function, *args: Any) -> Call:
        """Return a promise of a call that is made even when the request has been cancelled."""
        return Call(self, function, args, cleans_up=True)

    def leave(self, last: Callable[[], Awaitable[Any]] | None, seconds: float = 10.0) -> None:
        """End the task, after one last call (an ``aclose``) that nobody waits for.

        That call is cancelled when it takes longer than ``seconds``.
        """
        if self.loop is not None and not self.loop.is_closed():
            on_loop(self.loop, self._enter_leaving, last, seconds)

    def _enter_leaving(self, last: Callable[[], Awaitable[Any]] | None, seconds: float) -> None:
        self.enter((_LEAVE, last, seconds))

    def enter(self, entry: Any) -> None:
        """Queue an entry for the task; on the loop."""
        self._calls.append(entry)
        if self._end is not None:
            self._answer(*self._end)
        elif self._task is None:
            assert self.loop is not None
            live = self._live()
            try:
                self._task = self.loop.create_task(live, context=self._context)
            except BaseException as error:  # noqa: BLE001 - a task factory's; the callers' to know
                live.close()
                self._end = (error,)
                self._answer(error)
        elif self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def interrupt(self, subscription: CallSubscription) -> None:
        """Cancel one call, in progress or still queued; on the loop."""
        if subscription.cancelled:
            return  # a second time would interrupt its cleaning up
        subscription.cancelled = True
        if self._current is subscription and self._task is not None:
            self._task.cancel()
        elif subscription in self._calls:
            self._calls.remove(subscription)
            give_up(subscription.sink)

    async def _live(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert self.loop is not None
        while True:
            while not self._calls:  # a call may be cancelled before it is seen
                self._arrival = self.loop.create_future()
                try:
                    await self._arrival
                except asyncio.CancelledError as cancelled:
                    await self._be_abandoned(cancelled)
                    raise
            entry = self._calls.popleft()
            if not isinstance(entry, CallSubscription):
                _, last, seconds = entry
                if last is not None:
                    overdue = self.loop.call_later(seconds, task.cancel)
                    try:
                        await last()
                    finally:
                        overdue.cancel()
                return
            if not entry.cancelled:
                await self._make(entry, task)
            del entry  # its outcome is not to live until the next one comes

    async def _be_abandoned(self, cancelled: asyncio.CancelledError) -> None:
        end: BaseException | None = cancelled
        try:
            if self._abandon is not None and await self._abandon(cancelled):
                end = None
        except BaseException as error:  # noqa: BLE001 - it belongs to the line that calls next
            end = error
        self._end = (end,)
        self._answer(end)

    def _answer(self, error: BaseException | None) -> None:
        """Settle all queued calls with false or the error: the task makes no more calls."""
        while self._calls:
            entry = self._calls.popleft()
            if isinstance(entry, CallSubscription):
                entry.sink.settle(False, error)

    async def _make(self, entry: CallSubscription, task: asyncio.Task[None]) -> None:
        self._current = entry
        try:
            value = await entry.promise.function(*entry.promise.args)
        except asyncio.CancelledError as error:
            entry.sink.settle(error=error)
            if not entry.cancelled:
                raise  # the loop is being shut down
        except BaseException as error:  # noqa: BLE001 - it belongs to the waiting line
            entry.sink.settle(error=error)
        else:
            entry.sink.settle(value)
        finally:
            self._current = None
            cancelled = entry.cancelled
            # An error's traceback holds this frame, and the entry the error: no cycle.
            del entry
        while cancelled and task.cancelling():
            task.uncancel()  # the cancelling was this call's, not the next one's


KINDS[Call] = CallSubscription
