"""A WebSocket of a test client, as its client's side sees it."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from email.message import Message as Headers
from time import monotonic
from typing import Any, Final

from bide.errors import BideError, WebSocketClosed
from bide.exchange.handshake import fields_of, subprotocols_of
from bide.exchange.messaging import LOST, NORMAL, Message, encoded
from bide.exchange.stream import Stream
from bide.hosts.channel import Part
from bide.hosts.messaging import Accepted, Closed, HostMessaging, Step
from bide.serving.dispatcher import Dispatcher
from bide.testing.exchange import Exchange
from bide.testing.response import Response
from bide.testing.watched import Watched, WatchedSocket, WatchedTask
from bide.waiting.times import Times
from bide.wsgi.lazy_websocket import environ_of
from bide.wsgi.websocket import until_closed

OPENING: Final = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
"""The headers of a request that opens a WebSocket; the key is that of RFC 6455."""


class WebSocketRefused(BideError):  # noqa: N818 - says what happened
    """The application has answered instead of accepting.

    Attributes:
        response: its answer, complete.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"the WebSocket was refused: {response.status} {response.reason}")
        self.response = response


class SocketExchange(Exchange):
    """One request that opens a WebSocket; as an exchange.

    Attributes:
        messaging: the WebSocket.
        forget: called when the call of the application has ended; on its thread.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._taken = threading.Event()  # the application has made room for messages
        fields = fields_of(self.stream.request)
        self.messaging = HostMessaging(
            self.stream,
            self.channel,
            fields,
            subprotocols_of(fields),
            self.something.set,
            self._taken.set,
        )
        self.forget: Callable[[], object] = self._taken.set
        self._steps: deque[Step] = deque()
        self._answer: Part | None = None

    def maker(self, dispatcher: Dispatcher) -> Callable[..., Watched | WatchedTask]:
        """Return what makes the call."""
        if dispatcher.interface == "wsgi":
            return super().maker(dispatcher)

        def make(site: Any, stream: Stream, times: Times, _: object) -> WatchedTask:
            return WatchedSocket(self, site, stream, times, self.messaging)

        return make

    def environ(self) -> dict[str, Any]:
        """Return the WebSocket."""
        return environ_of(self.messaging, self.stream)

    def ended(self) -> None:
        """Called when the call of the application has ended; on its thread."""
        super().ended()
        self.forget()

    def accepted(self, deadline: float) -> Accepted | None:
        """Wait until the application has accepted; return None where it answers instead.

        Raises:
            Overdue: it has not by ``deadline``, in monotonic seconds; the client has left.
        """
        what = "the answer to its WebSocket"
        step = self.await_something(lambda: self._step() or self.channel.take(), deadline, what)
        if isinstance(step, Part):
            self._answer = step
            return None
        assert isinstance(step, Accepted)
        return step

    def take(self, deadline: float, what: str) -> Part:
        """Wait for more of the answer in place of accepting."""
        answer, self._answer = self._answer, None
        return super().take(deadline, what) if answer is None else answer

    def step(self, deadline: float, what: str) -> Step:
        """Wait for the next thing that the application sends.

        Raises:
            Overdue: nothing has come by ``deadline``, in monotonic seconds; the client stays.
        """
        step: Step = self.await_something(self._step, deadline, what, stays=True)
        return step

    def _step(self) -> Step | None:
        if not self._steps:
            self.messaging.sent()
            self._steps.extend(self.messaging.take())
        return self._steps.popleft() if self._steps else None

    def feed(self, message: Message, deadline: float) -> None:
        """Send a message, once the application has room for it.

        Raises:
            Overdue: it has none by ``deadline``, in monotonic seconds.
            WebSocketClosed: the WebSocket has ended.
        """
        while True:
            self._taken.clear()
            if not self.messaging.must_pause():
                break
            if not self._taken.wait(max(0.0, deadline - monotonic())):
                raise self.overdue("the end of a message that waits before it")
        if self.messaging.over is not None:
            self.raise_error()
            raise WebSocketClosed(*self.messaging.over)
        self.messaging.feed(message)

    def close(self, code: int, reason: str) -> None:
        """Act as a client that closes, or whose connection is lost; from any thread."""
        if not self.done.is_set():
            # On the loop, where an ASGI application accepts, too.
            self.call_soon(self.messaging.lose, code, reason)

    def act_on_leaving(self, reason: str) -> None:
        """Called when the client has left; on the loop."""
        if not self.messaging.lose(LOST):
            super().act_on_leaving(reason)


class ClientWebSocket:
    """The client's side of a WebSocket; made by :meth:`Client.websocket`.

    It is a context manager: leaving the block closes it with 1000, and waits until the application
    has ended, up to the client's ``timeout``. One thread may receive at a time, and another send.

    An error of the application is raised by the next method that waits, or when the block is left.
    With ``raise_errors=False`` it is not raised, and the WebSocket is closed with 1011.

    Attributes:
        subprotocol: the one that the application has chosen; None for none.
        headers: the headers of the answer; names may be in upper or lower case.
        closed: how it has ended, with ``code`` and ``reason``; None while it is open.
    """

    def __init__(
        self,
        exchange: SocketExchange,
        timeout: float,
        accepted: Accepted,
        headers: Headers,
    ) -> None:
        self._exchange = exchange
        self._timeout = timeout
        self.subprotocol = accepted.subprotocol
        self.headers = headers
        self.closed: WebSocketClosed | None = None

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Send a message: str as text, bytes as binary. Waits if the application is slow.

        Args:
            message: str or bytes.
            timeout: seconds; None: the client's.

        Raises:
            WebSocketClosed: it has ended.
            Overdue: the application did not receive the earlier messages in time.
            TypeError: the message is neither str nor bytes.
        """
        encoded(message)
        if self.closed is not None:
            raise self.closed
        self._exchange.feed(message, self._deadline(timeout))

    def send_json(self, value: Any) -> None:
        """Send a value as JSON, as a message of text."""
        self.send(json.dumps(value))

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message, waiting for it.

        Args:
            timeout: seconds; None: the client's.

        Raises:
            WebSocketClosed: it has ended.
            Overdue: no message came in time. The error says what the application does.
            Exception: what the application has raised.
        """
        if self.closed is not None:
            raise self.closed
        step = self._exchange.step(self._deadline(timeout), "the next message")
        if isinstance(step, Closed):
            self.closed = WebSocketClosed(step.code, step.reason)
            self._exchange.raise_error()
            raise self.closed
        assert not isinstance(step, Accepted)
        return step

    def receive_json(self, timeout: float | None = None) -> Any:
        """Return the value of the next message, which is JSON; raises as :meth:`receive`."""
        return json.loads(self.receive(timeout))

    def __iter__(self) -> Iterator[str | bytes]:
        """Receive until the end; raise it, if it is not an ordinary one (1000, 1001, 1012)."""
        return until_closed(self.receive)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close it, as a client does. Nothing happens if it has ended already."""
        if self.closed is None:
            self._exchange.close(code, reason)
            self.closed = WebSocketClosed(code, reason)

    def leave(self) -> None:
        """Act as a client whose connection is lost: the application is told 1006."""
        self.close(LOST)

    def __enter__(self) -> ClientWebSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None:
            self._exchange.finish(monotonic() + self._timeout)

    def __repr__(self) -> str:
        return f"<ClientWebSocket {'open' if self.closed is None else self.closed}>"

    def _deadline(self, timeout: float | None) -> float:
        return monotonic() + (self._timeout if timeout is None else timeout)
