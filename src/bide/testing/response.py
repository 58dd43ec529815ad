"""A response as a test sees it."""

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
    """A response, on its way or complete. It belongs to one thread at a time.

    Whatever of it has not come yet is waited for, up to the client's ``timeout``: for the head,
    and for each block; :meth:`Client.request` gives one that has come whole.

    It is a context manager, and an iterator over the blocks of the body as the application sent
    them. Leaving the ``with`` block before its end is what a client does that closes its
    connection: the application's wait raises :exc:`bide.ClientDisconnected`, and ``close()`` is
    called. The block is left when the application has ended, or at the time-out.

    Whatever needs more of the response than has come raises:
        Exception: what the application raised, with its traceback; not with
            ``raise_errors=False``.
        IncompleteResponse: the response was cut.
        Overdue: the application is late.
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
    def reason(self) -> str:
        """The status's reason phrase."""
        return self._heading().reason

    @property
    def headers(self) -> Message:
        """The headers, looked up in any case: ``headers["X"]``, None where there is none.

        ``headers.get_all(name)`` gives all of one name, and ``headers.items()`` all, in order.
        """
        self._heading()
        return self._headers

    @property
    def body(self) -> bytes:
        """The whole body, with what has been iterated over."""
        self.read()
        return b"".join(self._blocks)

    @property
    def text(self) -> str:
        """The body as text, in the charset that Content-Type names, else in UTF-8."""
        return self.body.decode(self.headers.get_content_charset("utf-8"))

    def json(self) -> Any:
        """Return the body, parsed as JSON; raises ValueError where it is not JSON."""
        return json.loads(self.body)

    @property
    def received(self) -> bytes:
        """What has been taken of the body so far, without waiting for more."""
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
        """Wait for the whole response, up to the time-out in all."""
        deadline = monotonic() + self._timeout
        while not self._over:
            self._take(deadline, "its response" if self._head is None else "all of its response")
        self._coming.clear()
        self._finish(deadline)

    def leave(self) -> None:
        """Leave as a client that closes its connection, and do not wait for the application."""
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
