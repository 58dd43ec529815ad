"""One request's call of an application that runs in a child: the server's side of it.

Everything here is on the loop, but for ``cancel`` and what the status asks.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final, Protocol

from bide.children.frames import (
    BEGUN,
    BODY,
    BROKEN,
    CUT,
    DONE,
    END,
    HEAD,
    MORE,
    ROOM,
    SEND,
    WANTED,
    cancellation_payload,
    error_payload,
    number,
)
from bide.children.link import Link
from bide.children.requests import request_payload
from bide.errors import Cancelled, ClientDisconnected, LocalProtocolError, RemoteProtocolError
from bide.exchange.answers import answer_cancelled, answer_failure, answer_rejected
from bide.exchange.call import Call
from bide.exchange.stream import CUT as IS_CUT
from bide.exchange.stream import ENDED, Stream
from bide.waiting.cleanups import cleanup_time
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Signal, Sink
from bide.waiting.process_bounds import ATTEMPTS
from bide.waiting.times import Times

log = logging.getLogger("bide")

GRACE: Final = 0.95
"""How much of the time to clean up has passed when a child is killed. The rest is the server's."""


class Site(Protocol):
    """What the calls of one application share; a dispatcher.

    Attributes:
        name: what it is called in the log.
    """

    name: str

    def done(self, call: Call) -> None:
        """Called when a call has ended."""


class Crew(Protocol):
    """The executor."""

    def release(self, link: Link) -> None:
        """Called when a link's call has ended, and it takes the next one."""

    def kill(self, link: Link) -> None:
        """End a child at once."""

    def drop(self, call: ProcessCall) -> None:
        """Called when a call that waits for a child does so no more."""


class ProcessCall(Call):
    """One request's call in a child.

    Attributes:
        site: what it shares with the application's other calls.
        queued_at: when the executor took it, in monotonic seconds.
    """

    __slots__ = (
        "_asked",
        "_attempts",
        "_behind",
        "_cancellation",
        "_crew",
        "_firm",
        "_in_child",
        "_killed",
        "_left",
        "_link",
        "_loop",
        "_on_way",
        "_timer",
        "_uploads",
        "queued_at",
        "site",
    )

    def __init__(
        self,
        site: Site,
        stream: Stream,
        times: Times,
        more: Mapping[str, Any] | None = None,  # noqa: ARG002 - objects of this process
    ) -> None:
        """Make a call."""
        self.site = site
        self.stream = stream
        self.times = times
        self.started = monotonic()
        self.queued_at = self.started
        self.expired = False
        self.over = False
        self._loop = asyncio.get_running_loop()
        self._crew: Crew | None = None
        self._link: Link | None = None
        self._behind = False  # all children were busy when it came
        self._attempts = 0  # how many children have ended before one began it
        self._in_child = False  # the application may have been called
        self._uploads = False  # a wait for more of the body is on its way
        self._asked = False  # the child has room for a block of the body
        self._on_way = 0  # bytes that the client has not taken
        self._cancellation: Cancelled | None = None
        self._firm = False
        self._left = False  # nobody takes the response any more
        self._killed = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def begun_by(self) -> Any:
        """The dispatcher that has begun it."""
        return self.site

    @property
    def thread_name(self) -> str:
        """The process that it runs in; empty before it begins."""
        link = self._link
        return f"process {link.pid}" if link is not None else ""

    def describe(self) -> str:
        """Return a text that names the request and the application; from any thread."""
        request = self.stream.request
        return f"{request.method} {request.target.decode('latin-1')} of {self.site.name}"

    # Its beginning, by the executor --------------------------------------------------------------

    def queue(self, crew: Crew, behind: bool) -> None:
        """Called when it waits for a child; ``behind``: for one that makes another call."""
        self._crew = crew
        self._behind = behind
        self.queued_at = monotonic()

    def begin(self, crew: Crew, link: Link) -> bool:
        """Begin in a child; return false if it has ended in place of that."""
        if self._is_pointless:
            self._give_up()
            return False
        self._crew, self._link = crew, link
        self.times.begun = monotonic()
        link.begin(self, request_payload(self.stream))
        if self._cancellation is not None:
            self._tell_cancellation(self._cancellation, self._firm)
        return True

    @property
    def _is_pointless(self) -> bool:
        """Whether nobody wants it to begin.

        A client that has closed its sending side may only have nothing more to say, as `nc -N` has
        from the start. It has left if it did so while all children were busy.
        """
        why = self._cancellation
        left = self._behind or not isinstance(why, ClientDisconnected)
        return self.stream.gone or (why is not None and left)

    def _give_up(self) -> None:
        if self._cancellation is not None:
            answer_cancelled(self.stream, self._cancellation)
        self._finish()

    def run(self) -> None:
        """Do nothing: the executor begins it in a child."""
        raise NotImplementedError

    def reject(self, retry_after: int, code: int = 503, stops: bool = False) -> None:
        """Answer 503 or 429 in place of running."""
        answer_rejected(self.stream, retry_after, code, stops)
        self._finish()

    # From the child -----------------------------------------------------------------------------

    def received(self, kind: int, payload: bytes) -> None:
        """Called with each frame of the call."""
        if self.over:
            return
        try:
            self._receive(kind, payload)
        except Cancelled:
            pass  # the client has left: the child is told when its connection has ended
        except LocalProtocolError as error:
            # The child has checked it by the same rules: what it says is not to be relied on.
            log.error("internal error: %s: %s", self.describe(), error)
            answer_failure(self.stream)
            self._kill()

    def _receive(self, kind: int, payload: bytes) -> None:
        stream = self.stream
        if kind == BEGUN:
            self._in_child = self._asked = True
            if not stream.expects_continue:
                self._upload()
        elif kind == HEAD:
            status, headers, length = pickle.loads(payload)
            if not stream.gone:
                stream.start(status, headers)
                if length is not None:
                    stream.announce(length)
        elif kind in (SEND, END):
            self._send(payload, kind == END)
        elif kind == CUT:
            stream.cut()
        elif kind == WANTED:
            self._upload()
        elif kind == MORE:
            self._asked = True
            self._upload()
        elif kind == DONE:
            self._finish()

    def _send(self, block: bytes, last: bool) -> None:
        stream = self.stream
        if stream.gone or stream.state in (ENDED, IS_CUT):
            return
        self._on_way += len(block)
        if last:
            stream.end(block)
            signal = None
        elif block:
            signal = stream.send(block)
        else:
            stream.send_head()
            return
        if signal is None:
            self._taken()
        else:
            signal.listen(_Calls(self._loop, self._taken))

    def _taken(self) -> None:
        """Called when the client has caught up."""
        taken, self._on_way = self._on_way, 0
        if taken and self._link is not None:
            self._link.send(ROOM, number(taken))

    def _upload(self) -> None:
        """Send the child a block of the body, if it has room, and one is there."""
        link, stream = self._link, self.stream
        if link is None or not self._asked or self._uploads or not self._in_child:
            return
        try:
            block = stream.receive()
        except (Cancelled, LocalProtocolError, RemoteProtocolError) as error:
            self._asked = False
            link.send(BROKEN, error_payload(error))
            return
        if isinstance(block, Signal):
            self._uploads = True
            block.listen(_Calls(self._loop, self._come))
            return
        self._asked = False
        link.send(BODY, block)

    def _come(self) -> None:
        self._uploads = False
        self._upload()

    # Its end ------------------------------------------------------------------------------------

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """Tell the child; from any thread. After the time to clean up, it is killed."""
        on_loop(self._loop, self._cancel, cancellation, firm)

    def _cancel(self, cancellation: Cancelled, firm: bool) -> None:
        if self.over:
            return
        if self._cancellation is None or (firm and not self._firm):
            self._cancellation, self._firm = cancellation, firm
        if self._link is not None:
            self._tell_cancellation(cancellation, firm)
        elif self._crew is not None and self._is_pointless:
            self._crew.drop(self)
            self._give_up()

    def _tell_cancellation(self, cancellation: Cancelled, firm: bool) -> None:
        gone = self.stream.gone
        assert self._link is not None
        self._link.cancel(cancellation_payload(cancellation, firm, gone))
        self._left = self._left or firm or gone
        if self._timer is None and not self._killed:
            self._timer = self._loop.call_later(GRACE * cleanup_time.seconds, self._too_late)

    def _too_late(self) -> None:
        self._timer = None
        if not self._left and self.stream.head_sent:
            return  # a client that has closed its sending side alone takes its response still
        assert self._link is not None
        self._killed = True
        log.warning(
            "%s: its code goes on %.0f s after it was cancelled (%s): process %d is killed",
            self.describe(),
            cleanup_time.seconds,
            self._cancellation,
            self._link.pid,
        )
        self._kill()

    def _kill(self) -> None:
        if self._crew is not None and self._link is not None:
            self._crew.kill(self._link)

    def died(self) -> bool:
        """Called when its child has ended; return whether another one may make the call."""
        link = self._link
        assert link is not None
        self._attempts += 1
        if not self._in_child and self._attempts < ATTEMPTS:
            self._link = None
            self._killed = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self.times.begun = 0.0
            return True
        if self._killed and self._cancellation is not None:
            answer_cancelled(self.stream, self._cancellation)
        else:
            log.error("%s: process %d %s", self.describe(), link.pid, link.ended)
            answer_failure(self.stream)
        self._finish()
        return False

    def _finish(self) -> None:
        if self.over:
            return
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.stream.state != ENDED:
            self.stream.cut()
        # What its stream still brings must not reach the link, whose next call is another one.
        link, self._link = self._link, None
        crew = self._crew
        self.site.done(self)
        if link is not None and crew is not None:
            link.call = None
            self._crew = None
            crew.release(link)


class _Calls(Sink):
    """Has a function called on a loop."""

    __slots__ = ("_function", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
        self._loop = loop
        self._function = function

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:  # noqa: ARG002
        """Have it called soon; from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._function)
        except RuntimeError:  # the loop is closed, and the child is being ended
            return False
        return True
