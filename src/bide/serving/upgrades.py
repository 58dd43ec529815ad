"""Which protocols connections have: what they begin with, and what they may change to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from bide.errors import RemoteProtocolError
from bide.exchange.call import Call
from bide.exchange.handshake import check, fields_of, tokens
from bide.exchange.limits import Limits
from bide.exchange.messages import Request
from bide.exchange.messaging import Messaging
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.http1.reading import HTTP1
from bide.protocols.interfaces import Owner, Protocol, Transport, Way
from bide.protocols.websocket.served import served
from bide.serving.connection import Serving
from bide.serving.dispatcher import Dispatcher
from bide.serving.loggers import log
from bide.waiting.times import Times
from bide.wsgi.lazy_websocket import environ_of


@cache
def say_missing() -> None:
    """Say once that an ASGI application could have a WebSocket."""
    log.warning("a client asks for a WebSocket, which needs: pip install 'bide[websocket]'")


def opens(request: Request) -> bool:
    """Whether a request is to open a WebSocket, be it as it must or not."""
    return request.method == "GET" and "websocket" in tokens(fields_of(request).get("upgrade", ""))


def offer(
    stream: Stream, way: Way, limits: Limits, unread: Total
) -> Messaging | RemoteProtocolError | None:
    """Make the WebSocket that a request asks for, for any interface to accept.

    Return what is wrong with the request, if it is not as it must be; None: none can be served.

    Args:
        stream: the request's.
        way: what the WebSocket takes over.
        limits: what a client may ask.
        unread: the total of what waits for all applications.
    """
    request = stream.request
    fields = fields_of(request)
    try:
        check(request.method, request.version, fields)
    except RemoteProtocolError as error:
        return error
    if not served():
        return None
    # Here, since a server that is asked for none should not load it.
    from bide.protocols.websocket.connection import WebSocketProtocol
    from bide.protocols.websocket.switching import answer_101

    transport, owner, agree = way
    if agree is None:
        agree = partial(answer_101, transport, fields["sec-websocket-key"])
    return WebSocketProtocol(stream, fields, transport, owner, limits, unread, agree)


def make_call(
    offered: Messaging | RemoteProtocolError | None,
    site: Dispatcher,
    stream: Stream,
    times: Times,
    more: Mapping[str, Any] | None = None,
) -> Call:
    """Make the call of a request that is to open a WebSocket, by its application's interface.

    A WSGI application finds in its environ what was offered. What is wrong with a request it learns
    when it asks for the WebSocket; for an ASGI application, which cannot, the server answers.
    """
    if site.interface == "wsgi":
        if offered is not None and not isinstance(offered, RemoteProtocolError):
            more = {**(more or {}), **environ_of(offered, stream)}
        return site.make(site, stream, times, more)
    if offered is None:
        say_missing()
        return site.make(site, stream, times, more)
    # Here, as above.
    from bide.asgi.websocket import MalformedCall, WebSocketCall

    if isinstance(offered, RemoteProtocolError):
        return MalformedCall(site, stream, times, offered)
    return WebSocketCall(site, stream, times, offered)


class Upgrading(Serving):
    """A server whose connections may change their protocol; on the loop."""

    def protocol(self, transport: Transport, owner: Owner) -> Protocol:
        """Make the protocol that a connection begins with."""
        return HTTP1(transport, owner, self.limits, self.unread_total)

    def http2(self, transport: Transport, owner: Owner) -> Protocol:
        """Make the protocol of a connection whose client speaks HTTP/2."""
        # Here, since a server without TLS seldom has such clients, and should not load it.
        from bide.protocols.http2.connection import HTTP2

        return HTTP2(transport, owner, self.limits, self.unread_total, self.unsent_total)

    def conversation(self, stream: Stream, make: Callable[..., Call] | None = None) -> Call | None:
        """Make a stream's conversation; ``make`` as for :meth:`Dispatcher.begin`."""
        raise NotImplementedError

    def upgrades(self, stream: Stream) -> bool:
        """Whether a request may change its connection's protocol: to WebSocket."""
        return opens(stream.request)

    def offered(self, stream: Stream, way: Way) -> Call | None:
        """Make the conversation of a stream that may accept a WebSocket."""
        offered = offer(stream, way, self.limits, self.unread_total)
        return self.conversation(stream, partial(make_call, offered))
