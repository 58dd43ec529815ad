"""One request's call of an application, as whoever begins, counts and watches it knows it.

It knows no interface: what is called, and how, is that of the kind of call.
"""

from __future__ import annotations

from bide.errors import Cancelled
from bide.exchange.stream import Stream
from bide.waiting.times import Times


class Call:
    """One request's call of an application; a base of each interface's own.

    Attributes:
        stream: the exchange with the client.
        started: when its request had come, in monotonic seconds.
        times: where its time goes.
        expired: whether it has taken too long, and has been told so; the loop's.
        over: whether all of it has ended.
    """

    __slots__ = ("expired", "over", "started", "stream", "times")

    stream: Stream
    started: float
    times: Times
    expired: bool
    over: bool

    @property
    def thread_name(self) -> str:
        """The thread that it has begun on, for people; empty before."""
        raise NotImplementedError

    def run(self) -> None:
        """Call the application and send what it returns; must not raise. On the call's thread."""
        raise NotImplementedError

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait in progress, or the next one, by raising; from any thread.

        Running code is not interrupted. A ``firm`` one ends a wait for the call's own client, too.
        """
        raise NotImplementedError

    def reject(self, retry_after: int) -> None:
        """Answer 503 in place of running; on the loop, for a call that no executor has.

        Args:
            retry_after: seconds after which the client may ask again.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """Name the request and the application, for people; from any thread."""
        raise NotImplementedError
