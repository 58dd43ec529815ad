"""One request's call of an application, for the code that begins, counts and watches calls.

It knows no interface (WSGI): each kind of call knows what it calls, and how.
"""

from __future__ import annotations

from typing import Any

from bide.compiling import mypyc_attr
from bide.errors import Cancelled
from bide.exchange.stream import Stream
from bide.waiting.times import Times


@mypyc_attr(allow_interpreted_subclasses=True)
class Call:
    """One request's call of an application; the base class of each interface's calls.

    Attributes:
        stream: the exchange with the client.
        started: when the head of its request had come, in monotonic seconds.
        times: where its time goes.
        expired: whether it has taken too long, and its wait was ended for that; set on the loop.
        over: whether all of it has ended.
        number: by which people know it; there is none before somebody has looked.
    """

    __slots__ = ("expired", "number", "over", "started", "stream", "times")

    stream: Stream
    started: float
    times: Times
    expired: bool
    over: bool
    number: int

    @property
    def needs_body(self) -> bool:
        """Whether it is best begun when its body has come, since it takes a thread to wait for it.

        A property, since compiled code does not see that an interpreted class has another value.
        """
        return True

    @property
    def begun_by(self) -> Any:
        """The dispatcher that has begun it."""
        raise NotImplementedError

    @property
    def parked(self) -> bool:
        """Whether it waits, and holds no thread; from any thread."""
        wait = self.times.spent[2]
        return wait is not None and wait.parked is not None

    @property
    def awaited(self) -> Any:
        """What its coroutine awaits, of a call that is one; from any thread."""
        return None

    @property
    def task(self) -> Any:
        """The task of the event loop that it is; None: it is none. From any thread."""
        return None

    @property
    def thread_name(self) -> str:
        """The name of the thread that it runs on; empty before it begins."""
        raise NotImplementedError

    def run(self) -> None:
        """Call the application and send what it returns; must not raise. On the call's thread."""
        raise NotImplementedError

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait in progress, or the next one, by raising; from any thread.

        Running code is not interrupted. A ``firm`` one ends a wait for the call's own client, too.
        """
        raise NotImplementedError

    def reject(self, retry_after: int, code: int = 503, stops: bool = False) -> None:
        """Answer 503 or 429 in place of running; on the loop, for a call that no executor has.

        Args:
            retry_after: seconds after which the client may ask again.
            code: the status.
            stops: whether that is since the server stops, and not since others are in its way.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """Return a text that names the request and the application; from any thread."""
        raise NotImplementedError
