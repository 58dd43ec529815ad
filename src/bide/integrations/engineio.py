"""Flask-SocketIO and python-socketio in threading mode: what waits there holds no thread.

They stand on python-engineio, which takes its threads, queues and events from one dictionary for
each mode. In that of the threading mode this puts Bide's own. So a poll waits for its packets, and
a client's reader, writer and pings wait, without a thread each. Servers that were made before use
them, too. Outside of Bide's requests they block, as those of Python.

Engine.IO's own functions become background work (:func:`bide.spawn`); so do the handlers of events.
What an application starts by ``start_background_task`` keeps a thread of its own, since it may
block for ever, and so does the listener of a message queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import Context, ContextVar
from functools import wraps
from typing import Any, Final

from engineio.async_drivers import threading as driver

from bide.errors import ServerStopping
from bide.executors.spawning import spawn
from bide.waiting.queues import Queue
from bide.waiting.sync import Event
from bide.waiting.waiter import current_waiter

_OWN: Final = frozenset(
    {"engineio.socket", "engineio.server", "engineio.base_server", "socketio.server"}
)
"""The modules whose functions wait by what is in the dictionary, and do not block otherwise."""
_ENDLESS: Final = frozenset({"_service_task", "_send_ping", "writer"})
"""Those of them that end with the last request, when the server stops."""
_MOMENT: Final = 0.0001
"""Seconds of a sleep of 0, in which others go on."""

log = logging.getLogger("bide")

_looks_after: ContextVar[bool] = ContextVar("bide_engineio", default=False)
"""Whether this is the work that looks after all clients."""

_before: dict[str, Any] = {}
_unsaid: list[None] = []


def install() -> Callable[[], None]:
    """Have the threading mode use Bide's queues, events and background work.

    Returns:
        A function that undoes this; call it while no client is connected. If this was installed
        already, the function does nothing.
    """
    if _before:
        return lambda: None
    places: dict[str, Any] = driver._async
    _before.update(places)
    _unsaid[:] = [None]
    places.update(
        thread=_thread_class(places["thread"]), queue=Queue, event=StoppingEvent, sleep=sleep
    )
    return uninstall


def uninstall() -> None:
    """Undo ``install``, if it was called; while no client is connected."""
    driver._async.update(_before)
    _before.clear()


class StoppingEvent(Event):
    """An event that a server which stops sets, in the work that looks after all clients.

    That work catches whatever its wait raises, logs it and goes on; by its event it ends.
    """

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it happens; as :meth:`Event.wait`."""
        try:
            return super().wait(timeout)
        except ServerStopping:
            if not _looks_after.get():
                raise
            self.set()
            return True


def sleep(seconds: float = 0) -> None:
    """Sleep; in a request, or in background work, without a thread."""
    if current_waiter() is None:
        time.sleep(seconds)
    else:
        Event().wait(max(seconds, _MOMENT))


def _thread_class(thread: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes a thread, or background work, as :class:`threading.Thread` is made."""

    def make(target: Callable[..., Any], args: Any = (), kwargs: Any = None, **others: Any) -> Any:
        if getattr(target, "__module__", None) in _OWN:
            if _unsaid:
                _unsaid.clear()
                log.info("Engine.IO in threading mode holds no thread while it waits")
            return Task(target, args, kwargs or {})
        return thread(target=target, args=args, kwargs=kwargs, **others)

    return make


class Task:
    """Background work, as far as it behaves as a thread that is a daemon."""

    daemon = True

    def __init__(
        self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.name: str = target.__name__
        self._target = target
        self._args = args
        self._kwargs = kwargs
        self._ended = Event()
        self._started = False

    def start(self) -> None:
        """Begin the work."""
        self._started = True

        @wraps(self._target)
        def run() -> None:
            _looks_after.set(self.name == "_service_task")
            try:
                self._target(*self._args, **self._kwargs)
            finally:
                self._ended.set()

        # With no context, as a thread: a handler is not in the request that has brought its event.
        Context().run(lambda: spawn(run, daemon=self.name in _ENDLESS))

    def is_alive(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._started and not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        self._ended.wait(timeout)
