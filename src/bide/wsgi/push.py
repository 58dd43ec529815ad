"""Push: an application writes at any time, from any thread, until it calls ``finish``.

``start_response`` returns PEP 3333's ``write`` callable, which also unpacks into ``write`` and
``finish``. Of the conversation this module knows only its base class, :class:`Pushing`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from bide.errors import BideError, ClientDisconnected, FinishLost, WriteWouldBlock
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal
from bide.waiting.parking import runs_loop
from bide.waiting.waiter import current_waiter, waiter_here
from bide.wsgi.pushing import Pushing


class Write:
    """PEP 3333's ``write``, with ``finish`` beside it; from any thread, in the order of the calls.

    The conversation does not refer to it. When the application has dropped every reference,
    ``finish`` can never be called, and the request ends with an error.
    """

    __slots__ = ("_guard", "_pushing")

    def __init__(self, pushing: Pushing) -> None:
        self._pushing = pushing
        self._guard: Guard | None = None

    def __call__(self, data: bytes) -> None:
        """Send a block now; waits while the client is behind, as :func:`bide.wait` does.

        Raises:
            ClientDisconnected: the client has left.
            LocalProtocolError: ``finish`` was called, or there is more than Content-Length.
            WriteWouldBlock: on a thread that runs an event loop, while the client is behind.
            TypeError: ``data`` is not bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"write() takes bytes, not {type(data).__name__}")
        if not data:
            return
        stream = self._pushing.stream
        waiter = current_waiter()
        if waiter is None and runs_loop():
            if stream.behind:
                raise WriteWouldBlock(
                    "the client reads too slowly, and this thread runs an event loop: "
                    "write from a thread (asyncio.to_thread), where it can wait"
                )
            stream.send(data)
            return
        if waiter is not self._pushing.waiter:
            behind = stream.send(data)
            if behind is not None:  # in another request that pushes here its own client ends it
                waiter_here().wait(behind)
            return
        try:
            behind = stream.send(data)
        except ClientDisconnected as gone:
            waiter.raised(gone)
            raise
        waiter.keep_pace(behind)

    @property
    def finish(self) -> Callable[[], None]:
        """The function that ends the response, which does not end before this has been called.

        One thread at a time may take it; any thread may call it.
        """
        if self._guard is None:
            pushing = self._pushing
            if pushing.finished is None:
                pushing.finished = Signal()
            guard = None if pushing.guard is None else pushing.guard()
            if guard is None:
                guard = Guard(pushing.stream, pushing.finished, pushing.describe())
                pushing.guard = weakref.ref(guard)
            self._guard = guard
        return self._finish

    def __iter__(self) -> Iterator[Any]:
        """Unpack: ``write, finish = start_response(...)``."""
        return iter((self, self.finish))

    def _finish(self) -> None:
        """End the response; from any thread, once.

        Raises:
            ClientDisconnected: the client has left.
            LocalProtocolError: it was called before, or less than Content-Length was written.
        """
        finished = self._pushing.finished
        assert finished is not None
        try:
            self._pushing.stream.end()
        except BideError as error:
            finished.fire(error=error)
            raise
        except ClientDisconnected as gone:
            if current_waiter() is self._pushing.waiter:
                self._pushing.waiter.raised(gone)
            raise
        finished.fire()


class Guard:
    """Lives as long as ``finish`` can be called; fires its signal in its destructor, anywhere."""

    __slots__ = ("__weakref__", "_described", "_finished", "_stream")

    def __init__(self, stream: Stream, finished: Signal, described: str) -> None:
        self._stream = stream
        self._finished = finished
        self._described = described

    def __del__(self) -> None:
        if self._finished.fired:
            return
        if self._stream.gone:  # the pushing thread may have seen it, and ended, before the loop
            self._finished.fire(error=ClientDisconnected("the client has left"))
            return
        self._finished.fire(
            error=FinishLost(
                f"{self._described} took finish() and lost it without calling it: "
                "the response could never end"
            )
        )
