"""A response, for a test to read."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from email.message import Message
from time import monotonic
from typing import Any

from bide.exchange.messages import Head
from bide.testing.exchange import Exchange, IncompleteResponse


class Response:
    """A response, in progress or complete. One thread at a time may use it.

    Attributes and methods wait for the head or for the next block, up to the client's ``timeout``
    in seconds. A response of :meth:`Client.request` is complete.

    It is a context manager, and an iterator over the blocks of the body as the application sent
    them. Leaving the ``with`` block before the response's end acts as a client that closes its
    connection: the application's wait raises :exc:`bide.ClientDisconnected`, and ``close()`` is
    called. The end of the block waits until the application has ended, up to the ``timeout``.

    What needs more of the response than has come raises:
        Exception: what the application raised, with its traceback; not with
            ``raise_errors=False``.
        IncompleteResponse: the response was cut.
        Overdue: the application has not gone on within the ``timeout``.
    """

    def __init__(
        self, exchange: Exchange, timeout: float, arrived: Callable[[Message], None]
    ) -> None:
        self._exchange = exchange
        self._timeout = timeout
        self._arrived = arrived
        self._head: Head | None = None
        self._headers = Message()
        self._over = False  # nothing more comes
        self._cut = False
        self._coming: deque[bytes] = deque()  # what has not been iterated over
        self._blocks: list[bytes] = []  # all of them

    @property
    def status(self) -> int:
        """The status code."""
        return self._heading().code

    @property
    def status_code(self) -> int:
        """The status code, too; as httpx and Werkzeug name it."""
        return self.status

    @property
    def reason(self) -> str:
        """The status's reason phrase."""
        return self._heading().reason

    @property
    def headers(self) -> Message:
        """The headers: ``headers["x"]``, in upper or lower case; None if there is none.

        ``headers.get_all(name)`` returns all of a name. ``headers.items()`` returns all, in order.
        """
        self._heading()
        return self._headers

    @property
    def trailers(self) -> Message:
        """The trailers: headers after the body. The request must have ``TE: trailers``."""
        self.read()
        trailers = Message()
        for name, value in self._exchange.stream.trailers or ():
            trailers[name] = value
        return trailers

    @property
    def body(self) -> bytes:
        """The whole body, including blocks that were iterated over."""
        self.read()
        return b"".join(self._blocks)

    @property
    def text(self) -> str:
        """The body as text, in the charset of Content-Type, or UTF-8."""
        return self.body.decode(self.headers.get_content_charset("utf-8"))

    def json(self) -> Any:
        """Return the body, parsed as JSON; raises ValueError if it is not JSON."""
        return json.loads(self.body)

    @property
    def received(self) -> bytes:
        """The part of the body that has come so far. Does not wait for more."""
        return b"".join(self._blocks)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Return the next block of the body, waiting for it."""
        self._heading()
        deadline = monotonic() + self._timeout
        while not self._coming:
            if self._over:
                self._finish(deadline)
                raise StopIteration
            self._take(deadline, "the next block of its response")
        return self._coming.popleft()

    def read(self) -> None:
        """Wait for the whole response, up to ``timeout`` seconds in all."""
        deadline = monotonic() + self._timeout
        while not self._over:
            self._take(deadline, "its response" if self._head is None else "all of its response")
        self._coming.clear()
        self._finish(deadline)

    def leave(self) -> None:
        """Act as a client that closes its connection; does not wait for the application."""
        if not self._over:
            self._over = self._cut = True
            self._exchange.leave()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.leave()
        if kind is None:
            self._exchange.finish(monotonic() + self._timeout)

    def __repr__(self) -> str:
        return f"<Response {'…' if self._head is None else self._head.code}>"

    def _heading(self) -> Head:
        deadline = monotonic() + self._timeout
        while self._head is None:
            if self._over:
                self._finish(deadline)
            self._take(deadline, "its response")
        return self._head

    def _take(self, deadline: float, what: str) -> None:
        """Take what has come, or wait for it."""
        exchange = self._exchange
        part = exchange.take(deadline, what)
        if part.head is not None:
            self._head = part.head
            for name, value in part.head.headers:
                self._headers[name] = value
            if part.length is not None:  # as a server says that has all before it sends any
                self._headers["Content-Length"] = str(part.length)
            self._arrived(self._headers)
        self._coming += part.blocks
        self._blocks += part.blocks
        exchange.sent(part.blocks)
        self._over = part.ended or part.cut
        self._cut = part.cut

    def _finish(self, deadline: float) -> None:
        """Wait for the application's end, after the response's; raises as the class says."""
        self._exchange.finish(deadline)
        if self._cut:
            raise IncompleteResponse(
                "the response was cut: its client has left"
                if self._exchange.left
                else "the response was cut: the application has failed, or the client was closed"
            )
