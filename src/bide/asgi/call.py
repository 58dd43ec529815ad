"""One call of an ASGI application: a task of the event loop, without a greenlet.

What all kinds of calls share is here: how a call waits, is cancelled and ends. Each kind has a
scope and messages of its own. Coroutines are not compiled, so those of a call are in
:mod:`bide.asgi.http`, and here is what they call.

Everything here is called on the loop, but for ``cancel``, ``wake`` and what the status asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import Context
from time import monotonic
from typing import Any, Final, Protocol

from bide.asgi.drain import Drain
from bide.asgi.messages import Application, Scope
from bide.compiling import mypyc_attr
from bide.errors import Cancelled, ClientDisconnected, RequestTimeout, ServerStopping
from bide.exchange.answers import answer_rejected
from bide.exchange.call import Call
from bide.exchange.stream import CUT, ENDED, Stream
from bide.waiting.cleanups import cleanup_time
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Signal, Sink, Wait
from bide.waiting.parking import Parking
from bide.waiting.times import Times
from bide.waiting.waiter import ClientWait

LAST_MOMENT: Final = 1.0
"""Seconds between ``http.disconnect`` and the cancellation, when the server's time is over."""

FOR_CLIENT: Final = ClientWait(Parking())
"""Stands in the status for any wait of a task for its client."""


class Site(Protocol):
    """What the calls of one application share; a dispatcher.

    Attributes:
        application: the ASGI callable.
        name: what it is called in the log.
        state: what the application has made at its start.
        context: the context in which it has started.
        drain: fires when the server begins to stop.
        asgi_cancel: seconds that a call has once its client has left.
    """

    application: Application
    name: str
    state: dict[str, Any]
    context: Context
    drain: Drain
    asgi_cancel: float

    def done(self, call: Call) -> None:
        """Called when a call has ended."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ASGICall(Call):
    """One request's call of an ASGI application; the base class of each kind of call.

    Attributes:
        site: what it shares with the application's other calls.
        left: whether the client is gone, as far as this call knows.
        cancellation: why the request ends early; None: it does not.
    """

    __slots__ = (
        "_cancelled",
        "_loop",
        "_task",
        "_timer",
        "_waiting",
        "cancellation",
        "left",
        "site",
    )

    def __init__(
        self,
        site: Site,
        stream: Stream,
        times: Times,
        more: Mapping[str, Any] | None = None,  # noqa: ARG002 - of an environ
    ) -> None:
        """Make a call."""
        self.site = site
        self.stream = stream
        self.times = times
        self.started = monotonic()
        self.expired = False
        self.over = False
        self.left = False
        self.cancellation: Cancelled | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False  # whether the task has been cancelled
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[Waiting] = []

    # Each kind's own -----------------------------------------------------------------------------

    def scope(self) -> Scope:
        """Return what the application is told of the request."""
        raise NotImplementedError

    def returned(self) -> None:
        """Called when the application has returned: end what it has left incomplete."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> None:
        """Called when the application has raised: log it, and answer in its place."""
        raise NotImplementedError

    @property
    def answered(self) -> bool:
        """Whether nothing more goes to the client: a departure matters no more."""
        return self.stream.state in (ENDED, CUT)

    # The status's --------------------------------------------------------------------------------

    @property
    def needs_body(self) -> bool:
        """No: it may receive its body as it comes."""
        return False

    @property
    def begun_by(self) -> Any:
        """The dispatcher that has begun it."""
        return self.site

    @property
    def awaited(self) -> Any:
        """The future that its task waits for; None while the task runs, or is ready to."""
        return getattr(self._task, "_fut_waiter", None)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Its task, once it has begun."""
        return self._task

    @property
    def parked(self) -> bool:
        """Whether its task waits."""
        return self.awaited is not None

    @property
    def thread_name(self) -> str:
        """The name of the thread that it runs on; empty before it begins."""
        return "the event loop" if self._task is not None else ""

    def describe(self) -> str:
        """Return a text that names the request and the application; from any thread."""
        request = self.stream.request
        return f"{request.method} {request.target.decode('latin-1')} of {self.site.name}"

    # From its beginning to its end ---------------------------------------------------------------

    def finish(self) -> None:
        """Called when the task has ended, however that was."""
        if self._timer is not None:
            self._timer.cancel()
        if self.stream.state != ENDED:
            self.stream.cut()  # whatever happened, the client is not left to wait
        self.wake_all()  # a task that the application has left behind may receive still
        self.site.done(self)
        self.over = True
        self._task = None  # which refers to this call

    def reject(self, retry_after: int, code: int = 503, stops: bool = False) -> None:
        """Answer 503 or 429 in place of running, for a call that has not begun."""
        answer_rejected(self.stream, retry_after, code, stops)
        self.site.done(self)

    # Its client and its server -------------------------------------------------------------------

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:  # noqa: ARG002
        """Tell the application that the request ends, and cancel its task; from any thread."""
        on_loop(self._loop, self._cancel, cancellation)

    def _cancel(self, cancellation: Cancelled) -> None:
        """Tell the application, and cancel its task in time.

        Once is enough: what cleans up then is interrupted neither by a client that leaves nor by a
        time-out. When the server stops, a task that was cancelled before has half of the time in
        which requests clean up. Then it is cancelled once more: it may have swallowed the first.
        """
        departed = isinstance(cancellation, ClientDisconnected)
        if self.over or (departed and self.answered):
            return  # background tasks go on
        self.left = True
        self.wake_all()
        first = self.cancellation
        stopping = isinstance(cancellation, ServerStopping)
        if first is not None and (departed or (self._cancelled and not stopping)):
            return
        if first is None or isinstance(first, ClientDisconnected):
            self.cancellation = cancellation
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(cancellation, RequestTimeout):
            self._end()
            return
        if departed:
            seconds = self.site.asgi_cancel
        else:
            seconds = cleanup_time.of_promise if self._cancelled else LAST_MOMENT
        self._timer = self._loop.call_later(seconds, self._end)

    def _end(self) -> None:
        departed = isinstance(self.cancellation, ClientDisconnected)
        if self._task is None or (departed and self.stream.state == ENDED):
            return
        self._cancelled = True
        self._task.cancel()

    # Waiting -------------------------------------------------------------------------------------

    def begin_wait(self, signal: Signal | None, shown: Wait = FOR_CLIENT) -> Waiting:
        """Begin to wait until something has happened: a signal, or what ends this request.

        Args:
            signal: what it waits for; None: nothing but the end.
            shown: stands for it in the status.
        """
        waiting = Waiting(self, self._loop.create_future(), signal)
        self._waiting.append(waiting)
        if signal is not None:
            signal.listen(waiting)
            times = self.times
            if times.spent[2] is None and not self.over:
                waiting.counted = True
                waited, sent, _, _ = times.spent
                times.spent = (waited, sent, shown, monotonic())
        return waiting

    def end_wait(self, waiting: Waiting) -> None:
        """Called when the wait is over, however it has ended."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        signal = waiting.signal
        if signal is None:
            return
        if not signal.fired:
            signal.forget(waiting)  # else each wait for the same one would leave a sink there
        if waiting.counted:
            times = self.times
            waited, sent, shown, since = times.spent
            if shown is not None and shown.for_client:
                sent += monotonic() - since
            else:
                waited += monotonic() - since
            times.spent = (waited, sent, None, 0.0)

    def wake_all(self) -> None:
        """Let each wait look again at what has happened."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.future.done():
                    each.future.set_result(None)

    def wake(self) -> None:
        """Called when the application has to look again; from any thread."""
        try:
            on_loop(self._loop, self.wake_all)
        except RuntimeError:  # the loop is closed, and the task with it
            pass


class Waiting(Sink):
    """One wait of a call; ends with each thing that happens to the call.

    Attributes:
        future: what the task awaits.
        signal: what it waits for, if for one.
        counted: whether its time counts.
    """

    __slots__ = ("_call", "counted", "future", "signal")

    def __init__(self, call: ASGICall, future: asyncio.Future[None], signal: Signal | None) -> None:
        self._call = call
        self.future = future
        self.signal = signal
        self.counted = False

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:  # noqa: ARG002
        """Wake the call: its signal has fired; from any thread."""
        self._call.wake()
        return True
