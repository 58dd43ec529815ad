"""One HTTP request's call of an ASGI application: its scope, its events and its response.

What may wait is in :mod:`bide.asgi.http`. Everything here is called on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from bide.asgi.call import ASGICall, Site
from bide.asgi.departures import is_departure
from bide.asgi.messages import (
    TRAILERS,
    Message,
    Scope,
    announced_in,
    body_of,
    headers_of,
    http_scope,
    links_of,
    status_of,
    trailers_of,
)
from bide.compiling import mypyc_attr
from bide.errors import ClientDisconnected, LocalProtocolError, RemoteProtocolError
from bide.exchange.answers import answer_cancelled, answer_failure, answer_malformed, refusal_in
from bide.exchange.stream import CUT, ENDED, IDLE, Stream
from bide.waiting.outcome import Signal
from bide.waiting.times import Times

log = logging.getLogger("bide")


@mypyc_attr(allow_interpreted_subclasses=True)
class Answering(ASGICall):
    """One HTTP request's call, as far as nothing is waited for.

    Attributes:
        listeners: tasks that wait for the departure, or were told of it.
        yielded: whether the one that sends has left them their moment.
    """

    __slots__ = (
        "_body_over",
        "_malformed",
        "_read",
        "_takes_trailers",
        "_trailers",
        "listeners",
        "yielded",
    )

    def __init__(
        self, site: Site, stream: Stream, times: Times, more: Mapping[str, Any] | None = None
    ) -> None:
        """Make a call."""
        super().__init__(site, stream, times, more)
        self._read = False  # whether the application has all of the body
        self._malformed: RemoteProtocolError | None = None
        self.listeners = 0  # tasks that wait for the departure, or were told of it
        self.yielded = False  # whether the one that sends has left them their moment
        self._takes_trailers = False  # whether the client does
        self._trailers: list[tuple[str, str]] | None = None  # once the start has promised some
        self._body_over = False  # whether trailers are to come, and nothing else

    def scope(self) -> Scope:
        """Return what the application is told of the request."""
        stream, site = self.stream, self.site
        scope = http_scope(stream.request, stream.peer, site.state, site.drain, stream.identity)
        self._takes_trailers = TRAILERS in scope["extensions"]
        return scope

    # The end -------------------------------------------------------------------------------------

    def returned(self) -> None:
        """End a response that the application has left incomplete."""
        state = self.stream.state
        if state in (ENDED, CUT) or self.left or self.cancellation is not None:
            self._give_up()
            return
        if state == IDLE:
            what = "without a response"
        else:
            last = "trailers without more_trailers" if self._body_over else "body without more_body"
            what = f"before the end of its response: http.response.{last} is missing"
        log.error("the application failed: %s: it has returned %s", self.describe(), what)
        answer_failure(self.stream)

    def failed(self, error: BaseException) -> None:
        """Log what the application raised, if it is of its own, and answer in its place."""
        cancelled = isinstance(error, asyncio.CancelledError) and self.cancellation is not None
        refusal = refusal_in(error)
        if refusal is not None:
            self.cancellation = self.cancellation or refusal
        elif not (cancelled or is_departure(error) or self._malformed is not None):
            log.error("the application failed: %s", self.describe(), exc_info=error)
        self._give_up()

    def _give_up(self) -> None:
        """Answer in the application's place, if that is still possible."""
        stream = self.stream
        if stream.state in (ENDED, CUT):
            return
        if self._malformed is not None:
            answer_malformed(stream, self._malformed)
        elif self.cancellation is not None:
            answer_cancelled(stream, self.cancellation)
        elif self.left:
            stream.cut()
        else:
            answer_failure(stream)

    # Its events, and its response ----------------------------------------------------------------

    def event(self) -> Message | Signal | None:
        """Return the next event, or what to wait for before asking again.

        Return None when nothing but the end is to come.
        """
        stream = self.stream
        if not (self._read or self.has_ended()):
            try:
                block = stream.receive()
            except ClientDisconnected:
                self.left = True
            except RemoteProtocolError as error:
                self._malformed = error
                self.left = True
            else:
                if isinstance(block, Signal):
                    return block
                self._read = not block or (stream.body.complete and not stream.body.unread)
                return {"type": "http.request", "body": block, "more_body": not self._read}
        return {"type": "http.disconnect"} if self.has_ended() else None

    def has_ended(self) -> bool:
        """Whether there is nothing to be received but the end; once true, it stays so."""
        stream = self.stream
        return self.left or stream.gone or stream.state == ENDED or stream.state == CUT

    def take(self, message: Message) -> Signal | None:
        """Send a part of the response; return what to wait for if the client is behind.

        Raises:
            ClientDisconnected: the client has left.
            LocalProtocolError: this message may not be sent, or not now.
        """
        stream = self.stream
        kind = message["type"]
        if kind == "http.response.start":
            self._start(message)
            return None
        if kind != "http.response.body":
            return self._take_more(kind, message)
        if stream.state == IDLE:
            raise LocalProtocolError("http.response.start must be sent before the body")
        block = body_of(message)
        self.require_client()
        if self._body_over:
            raise LocalProtocolError("the body has ended: only trailers may follow")
        if not message.get("more_body", False):
            if self._trailers is None or not self._takes_trailers or stream.bodiless:
                stream.end(block)
                self.wake_all()
                return None
            self._body_over = True
        if block:
            return stream.send(block)
        stream.send_head()
        return None

    def _take_more(self, kind: str, message: Message) -> Signal | None:
        """Send what one of the extensions has; as :meth:`take`."""
        if kind == "http.response.early_hint":
            if self.stream.state != IDLE:
                raise LocalProtocolError("http.response.early_hint comes before the start")
            self.require_client()
            return self.stream.inform(links_of(message))
        if kind != TRAILERS:
            raise LocalProtocolError(f"an HTTP response has no message {kind!r}")
        self._send_trailers(message)
        return None

    def _start(self, message: Message) -> None:
        if self.stream.state != IDLE:
            raise LocalProtocolError("http.response.start was sent already")
        if message.get("trailers", False):
            self._start_with_trailers(message)
        else:
            self.stream.start(status_of(message), headers_of(message))

    def _start_with_trailers(self, message: Message) -> None:
        """Start a response whose body is chunked: only there is a place behind it."""
        headers = headers_of(message)
        announced = announced_in(headers)
        dropped = {"trailer", "content-length"} if self._takes_trailers else {"trailer"}
        self.stream.start(
            status_of(message), [each for each in headers if each[0].lower() not in dropped]
        )
        self._trailers = []
        head = self.stream.head
        if announced and self._takes_trailers and head is not None:
            head.add("Trailer", announced)

    def _send_trailers(self, message: Message) -> None:
        """End the response with the last of them. If the client takes none, it has ended."""
        trailers, stream = self._trailers, self.stream
        if trailers is None:
            raise LocalProtocolError("http.response.start did not have trailers: True")
        fields = trailers_of(message)
        if stream.state == ENDED and not self._body_over:
            return
        self.require_client()
        if not (self._body_over or stream.state == CUT):
            raise LocalProtocolError("http.response.trailers must come after the body")
        trailers += fields
        if message.get("more_trailers", False) and stream.state != CUT:
            return
        stream.trailers = trailers
        stream.end()  # it raises what any other message does, if the response was cut
        self.wake_all()

    def require_client(self) -> None:
        """Raise ClientDisconnected if nobody takes the response any more."""
        if self.stream.state in (ENDED, CUT):
            return  # it is too late for another reason
        if self.stream.gone or isinstance(self.cancellation, ClientDisconnected):
            raise ClientDisconnected("the client has left")
