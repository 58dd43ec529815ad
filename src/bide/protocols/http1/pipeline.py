"""HTTP/1's turn-taking: one response at a time, in the order of the requests (RFC 9112, 9.3.2).

What has come and cannot begin yet waits in a queue: streams, and the answers to what is refused.
A token says whether the next one may begin. It is a list's one element::

                 begin, or the first in the queue
        free ──────────────────────────────────────▶ responding
     (the token                                      (the token
     is there)  ◀────────────────────────────────── is taken)
       │  ▲             the response has ended           │
       │  │                                              │ it was the last one, or a refusal
       │  │ the client has taken enough                  ▼
       │  └──────────────── catching up               closing
       │                         ▲                       ▲
       ├─────────────────────────┘                       │
       │ something is queued, and the client is behind   │
       └─────────────────────────────────────────────────┘
         nothing is queued, and the client has half-closed or the server drains

The loop, and the thread of a response that ends, both act here. Each first writes its own mark, and
then checks the other's. The loop queues a stream, or marks that it must be called at the end; then
it checks whether the token is there. A response that ends puts the token back; then it checks the
queue and the mark, and calls the loop. So the next stream is always begun. Only the loop takes the
token, so it is begun once.

A request for another protocol (``Upgrade``) that the connection's owner may follow holds up what
comes behind it. That is kept as it is: HTTP/1 if the response ends, else the other protocol's.
"""

from __future__ import annotations

from bide.compiling import mypyc_attr
from bide.errors import RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.protocols.caught_up import CaughtUp
from bide.protocols.http1.writing import Responses
from bide.protocols.interfaces import BODY, HEAD, IDLE, Owner, Transport


@mypyc_attr(allow_interpreted_subclasses=True)
class Pipeline(Responses):
    """The requests of one connection, in order; on the loop, but for ``next``."""

    __slots__ = (
        "_catching_up",
        "_ending",
        "_half_closed",
        "_queue",
        "_turn",
        "_upgrading",
        "_wants_end",
    )

    def __init__(self, transport: Transport, owner: Owner, limits: Limits) -> None:
        super().__init__(transport, owner, limits)
        self._queue: list[Stream | RemoteProtocolError] = []  # short, and mostly empty
        self._turn = [True]  # the token
        self._catching_up = False  # the loop is called when the client has
        self._ending = False  # the server has begun to drain
        self._half_closed = False
        self._upgrading = False  # the last request may change the protocol
        self._wants_end = False  # the loop is called when the response has ended

    # The way in tells what has come ---------------------------------------------------------------

    @property
    def receiving(self) -> bool:
        """Whether a request has begun to come and is not complete."""
        raise NotImplementedError

    @property
    def head_begun(self) -> bool:
        """Whether anything has come since the last head and its body, but for one empty line."""
        raise NotImplementedError

    def read_on(self) -> None:
        """Take in what was held, if anything was."""
        raise NotImplementedError

    def refuse(self, error: RemoteProtocolError, head: bytes = b"") -> None:
        """Take in nothing more; answer with the error, or fail the body in which it came."""
        raise NotImplementedError

    @property
    def full(self) -> bool:
        """Whether as many requests wait as may."""
        return len(self._queue) >= self.limits.pipeline

    def begin(self, stream: Stream) -> None:
        """Begin a stream at once when none is before it; else queue it."""
        if self._turn and not self._queue and self.transport.room() is None:
            self._turn.pop()
            self.owner.begin(stream)
        else:
            self._wait(stream)

    def begin_upgrade(self, stream: Stream) -> None:
        """Begin a stream as :meth:`begin` does, and read no further before it has ended."""
        # First the marks: its response may end before this returns.
        self._upgrading = self._wants_end = True
        self.transport.pause_reading()
        self.begin(stream)

    def answer(self, error: RemoteProtocolError) -> None:
        """Answer a request that cannot be served, when it is its turn."""
        self.owner.refused(error)
        self._wait(error)

    def _wait(self, item: Stream | RemoteProtocolError) -> None:
        self._queue.append(item)
        self._advance()
        if self.full:
            self.transport.pause_reading()

    def half_close(self) -> None:
        """Close after the response in progress and those in the queue; at once without any."""
        self._half_closed = self._wants_end = True
        if self._turn and not self._queue:
            self.transport.close()

    def leave(self) -> None:
        """Begin nothing more: the connection has ended, or is another protocol's."""
        self._queue.clear()
        self._turn.clear()

    # The responses' ------------------------------------------------------------------------------

    def next(self, stream: Stream) -> None:
        """Called when the connection goes on after a response; from any thread."""
        self.owner.ended(stream)
        self._put_back()
        if self._queue or self._wants_end:
            self.owner.call_soon(self._go_on)

    def _put_back(self) -> None:
        """Put the token back. A method, so that tests let the loop come before or after it."""
        self._turn.append(True)

    def _go_on(self) -> None:
        if self._upgrading and self._turn and not self._queue:  # it stays with HTTP/1
            self._upgrading = False
            self._wants_end = self._half_closed or self._ending
            self._read_on()
        self._advance()

    def _read_on(self) -> None:
        self.read_on()
        if not (self.full or self._upgrading):
            self.transport.resume_reading()

    def _caught_up(self) -> None:
        self._catching_up = False
        self._advance()

    def _advance(self) -> None:
        while self._queue:
            if self._catching_up or not self._turn:
                return  # it goes on from there
            room = self.transport.room()
            if room is not None:  # else a client that sends requests and reads nothing fills memory
                self._catching_up = True
                room.listen(CaughtUp(self.owner, self._caught_up))
                return
            self._turn.pop()
            item = self._queue.pop(0)
            if len(self._queue) == self.limits.pipeline // 2 and not self._upgrading:
                self._read_on()
            if isinstance(item, RemoteProtocolError):
                self.answer_refusal(item)
                return
            self.owner.begin(item)
        last = self._half_closed or self._ending
        if last and self._turn and not (self.receiving or self._upgrading):
            self.transport.close(linger=True)

    # The connection's ----------------------------------------------------------------------------

    def retire(self) -> None:
        """Say in each response that the connection is closed after it.

        One whose response has begun already stays open: its client may be sending the next request.
        """
        self.draining = True

    def drain(self) -> None:
        """Close when idle, or before half a request; else after the response in progress.

        A request that has come is served, even if it has not been read yet.
        """
        if not self._ending:
            self.draining = self._ending = self._wants_end = True
            self.transport.look()
        if self._turn and not (self._queue or self._upgrading):
            self.transport.close(linger=self.receiving)

    @property
    def awaits(self) -> str:
        """What the client is waited for between responses; see :class:`Protocol`."""
        if self._queue or not self._turn:
            return ""
        return HEAD if self.receiving or self.head_begun else IDLE

    def unsent(self, stream: Stream | None) -> int | None:  # noqa: ARG002 - one at a time is sent
        """Return the bytes that wait for the client; None when it is not behind."""
        return self.transport.queued if self.transport.behind else None

    def timed_out(self, phase: str, stream: Stream | None) -> None:  # noqa: ARG002 - as above
        """End the connection: by a 408 where a request is on its way, and nothing of its answer."""
        if phase == IDLE:
            self.transport.close()
        elif phase in (HEAD, BODY):
            self.refuse(RemoteProtocolError("the request took too long", 408))
        else:
            self.transport.abort()
