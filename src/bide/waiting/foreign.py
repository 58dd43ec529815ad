"""What waiting knows of Twisted, of gevent, and of other loops that run below a request.

Nothing here imports them. Where one of their objects exists, or one of their loops runs, its
modules have been imported already.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from bide.systems import at_fork
from bide.waiting.futures import LIBRARIES, PASS_ON, kept_by, waited_for
from bide.waiting.outcome import Sink, Subscription, give_up, listen, withdraw

_HUBS: Final = {"Hub.run": "gevent.hub", "BaseHub.run": "eventlet.hubs.hub"}

LOOPS: Final = {"ReactorBase.run": "twisted.internet.base", **_HUBS}
"""Functions that run an event loop for as long as it turns: qualified names, and modules."""

LIBRARIES.add("twisted.internet.defer")
# These pass a result or a failure on where a Deferred was given one callback of the two, or cancel
# a future that a Deferred stands for.
PASS_ON.update(("_outer_done_callback", "_failthru", "passthru"))

# Twisted ------------------------------------------------------------------------------------------


class DeferredSubscription(Subscription):
    """Listens to an object with ``addCallback``.

    A ``Deferred`` is not thread-safe and belongs to the reactor's thread. A bare object is
    subscribed to on the waiting thread. The value is passed on to later callbacks. A failure is
    handled here, so that Twisted does not report it as unhandled.
    """

    __slots__ = ("_asked", "_promise", "_sink")

    waits = True

    def __init__(self, promise: Any, sink: Sink) -> None:
        self._promise = promise
        self._sink = sink
        self._asked = False

    @property
    def on_thread(self) -> bool:
        """True for a bare object, which has no thread of its own."""
        return not is_deferred(self._promise)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ARG002 - Subscription's signature
        """Begin to listen; to a ``Deferred`` on the reactor's thread."""
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
        if cancel is None or _is_shared(promise, self):
            give_up(self._sink)
            return
        # The failure that cancelling makes is taken here, too: perhaps nobody has listened yet.
        self._take_failure()
        cancel()
        if not is_deferred(promise):
            give_up(self._sink)  # it may never call back; a Deferred does


def is_deferred(promise: Any) -> bool:
    """Whether this is Twisted's ``Deferred``."""
    defer: Any = sys.modules.get("twisted.internet.defer")
    return defer is not None and isinstance(promise, defer.Deferred)


def is_cancelled_deferred(error: BaseException | None) -> bool:
    """Whether this is the error of a ``Deferred`` that was cancelled."""
    defer: Any = sys.modules.get("twisted.internet.defer")
    return defer is not None and isinstance(error, defer.CancelledError)


def _is_shared(deferred: Any, own: object) -> bool:
    """Whether others wait for a ``Deferred``; on the reactor's thread."""
    pairs = kept_by(deferred, "_callbacks" if hasattr(deferred, "_callbacks") else "callbacks")
    functions = [each[0] for pair in pairs for each in pair if isinstance(each, tuple)]
    return waited_for(functions, own)


def on_reactor(promise: Any, function: Callable[[], object]) -> None:
    """Call ``function``: on the reactor's thread if that runs and owns the promise; else here."""
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


def runs_reactor() -> bool:
    """Whether this thread runs Twisted's reactor."""
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if not getattr(reactor, "running", False):
        return False
    threadable: Any = sys.modules.get("twisted.python.threadable")
    return bool(threadable.isInIOThread())


def _forget_reactor() -> None:
    """Called in a forked child: code on the reactor's thread may have forked it."""
    threadable: Any = sys.modules.get("twisted.python.threadable")
    if threadable is not None:
        threadable.ioThread = None


at_fork(after_in_child=_forget_reactor)

# gevent and eventlet ------------------------------------------------------------------------------


def runs_greenlets(frame: FrameType | None) -> bool:
    """Whether the greenlet with this frame is another library's event loop, such as gevent's."""
    while frame is not None:
        module = _HUBS.get(frame.f_code.co_qualname)
        if module is not None and frame.f_globals.get("__name__") == module:
            return True
        frame = frame.f_back
    return False


def start_thread(function: Callable[..., None], *args: Any) -> None:
    """Start a real daemon thread, even where gevent has replaced threads by greenlets.

    asyncio's running loop belongs to the thread. A loop that runs in a greenlet would seem to run
    in every greenlet of its thread.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        monkey.get_original("_thread", "start_new_thread")(function, args)
    else:
        threading.Thread(
            target=function, args=args, name="bide-background-loop", daemon=True
        ).start()
