"""One call of a WSGI application, from start to close, in straight-line code (PEP 3333).

It is written once and runs in a greenlet; on which thread, and what waiting means there, is its
executor's. Everything here happens on the conversation's thread and in its context, but for
``cancel`` and ``reject``.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from time import monotonic
from types import CoroutineType, TracebackType
from typing import Any, Final

from bide.errors import (
    Cancelled,
    ClientDisconnected,
    LocalProtocolError,
    RemoteProtocolError,
    RequestTimeout,
    ServerStopping,
    ThreadEnded,
)
from bide.exchange.stream import ENDED, IDLE, NotStartedError, Stream
from bide.executors.hub import Job
from bide.forks import end_child
from bide.waiting.adapters import kind_of
from bide.waiting.api import iterate
from bide.waiting.locks import begins
from bide.waiting.outcome import Signal
from bide.waiting.waiter import Waiter
from bide.wsgi.breaches import (
    BreachError,
    check_iterable,
    not_started,
    note_connection,
    nothing_returned,
    wrong_block,
    wrong_value,
)
from bide.wsgi.environ import request_environ
from bide.wsgi.file_responses import file_of, send_file
from bide.wsgi.input import Input
from bide.wsgi.push import Guard, Write
from bide.wsgi.site import ForkedSite, Site

log = logging.getLogger("bide")

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
Application = Callable[..., Any]

_END: Final = object()
# Iterators over blocks that are all there.
_MADE: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))
_LARGE: Final = 64 * 1024  # bytes of a response that a client may not take at once
_PLAIN: Final = [("Content-Type", "text/plain; charset=utf-8")]


class Conversation(Job):
    """One request's call of a WSGI application.

    Attributes:
        site: what it has in common with the application's other conversations.
        finished: set when the application took ``finish``; see :mod:`bide.wsgi.push`.
        guard: see :mod:`bide.wsgi.push`.
    """

    __slots__ = (
        "_more",
        "finished",
        "guard",
        "site",
    )

    def __init__(
        self,
        site: Site,
        stream: Stream,
        waiter: Waiter,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a conversation; ``more`` is what a host adds to its environ."""
        self.site = site
        self._more = more
        self.stream = stream
        self.waiter = waiter
        self.times = waiter.times
        self.started = monotonic()
        self.expired = False
        self.finished: Signal | None = None
        self.guard: weakref.ref[Guard] | None = None
        self.over = False

    @property
    def thread_name(self) -> str:
        """The thread that it has begun on, for people; empty before."""
        parking = self.waiter.parking
        return parking.name if parking is not None and self.times.begun else ""

    # From the loop ------------------------------------------------------------------------------

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait in progress, or the next one, by raising; as :meth:`Waiter.cancel`."""
        self.waiter.cancel(cancellation, firm)

    def reject(self, retry_after: int) -> None:
        """Answer 503 in place of running; on the loop, for a conversation that no executor has."""
        headers = [*_PLAIN, ("Retry-After", str(retry_after))]
        self._answer("503 Service Unavailable", b"All threads are busy.\n", headers)
        self.site.done(self)

    def describe(self) -> str:
        """Name the request and the application, for people; from any thread."""
        request = self.stream.request
        return f"{request.method} {request.target.decode('latin-1')} of {self.site.name}"

    # On the conversation's thread ---------------------------------------------------------------

    def run(self) -> None:
        """Call the application and send what it returns; never raises."""
        try:
            if not self.stream.gone:
                self._converse()
        except RemoteProtocolError as error:
            status = HTTPStatus(error.status)
            self._answer(f"{status} {status.phrase}", f"{error}\n".encode(), _PLAIN)
        except RequestTimeout:
            self._answer("504 Gateway Timeout", b"The request took too long.\n", _PLAIN)
        except ServerStopping:
            self._answer("503 Service Unavailable", b"The server stops.\n", _PLAIN)
        except ThreadEnded:
            self._answer_failure()
        except Cancelled as cancelled:
            # Also a client that only closed its sending side is gone now: whoever still pushes to
            # it is told so.
            if isinstance(cancelled, ClientDisconnected):
                self.stream.gone = True
            self.stream.cut()
        except BaseException as error:  # noqa: BLE001 - it is logged
            # Whatever it is, SystemExit and KeyboardInterrupt too, ends this request only.
            self.failed(error)
        finally:
            self._finish()

    def after_fork(self) -> None:
        """Give it up in a forked child, where its code may have been forked; on its thread."""
        self.site = ForkedSite(self.site)
        self.stream.after_fork()
        self.waiter.ends = ()
        self.waiter.cancel(ClientDisconnected("a forked child has no client"), firm=True)

    def lost(self) -> None:
        """End the conversation though its code cannot: answer 500, or cut what it has begun."""
        if not self.over:
            try:
                self._answer_failure()
            finally:
                self._finish()

    def _finish(self) -> None:
        if self.stream.state != ENDED:
            self.stream.cut()  # whatever happened, the client is not left to wait
        for end in self.waiter.ends:
            self._end(end)
        self.site.done(self)
        self.over = True

    def _end(self, end: Callable[[], None]) -> None:
        try:
            end()
        except BaseException:
            log.exception("the application failed when it had ended: %s", self.describe())

    def environ(self) -> dict[str, Any]:
        """Make what the application is called with; called once, right before the call."""
        stream = self.stream
        environ = request_environ(self.site.environ, stream.peer, stream.request)
        environ["wsgi.input"] = Input(stream)
        return self.extended(environ)

    def extended(self, environ: dict[str, Any]) -> dict[str, Any]:
        """Add Bide's own keys."""
        environ["bide.disconnected"] = self._disconnected
        environ["bide.status"], environ["bide.state"] = self.site.status, self.site.state
        if self._more is not None:
            environ.update(self._more)
        return environ

    def failed(self, error: BaseException) -> None:
        """Log what the application raised, and answer 500, or cut what it has begun."""
        if type(self.site) is ForkedSite:
            end_child(error)
        try:
            if isinstance(error, BreachError):
                log.error("the application failed: %s: %s", self.describe(), error)
            else:
                log.error("the application failed: %s", self.describe(), exc_info=error)
        finally:
            self._answer_failure()

    def _answer_failure(self) -> None:
        self._answer("500 Internal Server Error", b"Internal Server Error\n", _PLAIN)

    @begins
    def _converse(self) -> None:
        environ = self.environ()
        result = self.site.application(environ, self.start_response)
        del environ  # it may be what keeps finish; see bide.wsgi.push
        if type(result) is CoroutineType:
            result = self.waiter.wait(result)
        if result is None:
            if self.finished is None:
                raise nothing_returned(self.site.name)
            self.waiter.wait(self.finished)
            return
        try:
            self._send_all(result)
        except NotStartedError:
            raise not_started(self.site.name, result) from None
        except Cancelled as cancelled:
            self.waiter.raised(cancelled)  # close() may wait to clean up
            raise
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                self.close(close)

    def _send_all(self, result: Any) -> None:
        stream = self.stream
        kind = type(result)
        if (kind is list or kind is tuple) and len(result) == 1 and self.finished is None:
            block = result[0]
            if type(block) is bytes:
                stream.end(block)  # the whole response in one piece, with its Content-Length
                return
        file = file_of(result, stream.head)
        if file is not None and not self.finished and send_file(stream, self.waiter, file):
            return
        check_iterable(self.site.name, result)
        # One that is both kinds, as Django's streaming responses are, is PEP 3333's here.
        iterator: Iterator[Any] = (
            iterate(result)
            if isinstance(result, AsyncIterable) and not isinstance(result, Iterable)
            else iter(result)
        )
        if type(iterator) in _MADE and self.finished is None:
            made = list(iterator)
            if all(type(block) is bytes for block in made):
                self._send_made(made)
                return
            iterator = iter(made)
        for block in self._blocks(iterator):
            self.waiter.keep_pace(stream.send(block))
            if stream.bodiless and self.finished is None:
                break  # the head is out, and nothing else may follow it
        if self.finished is None:
            stream.end()
        else:
            self.waiter.wait(self.finished)

    def _send_made(self, blocks: list[bytes]) -> None:
        """Send blocks that are all there, without waiting for the client.

        They are queued uncopied, and the loop sends them: the conversation ends at once.
        """
        stream = self.stream
        if len(blocks) == 1:
            stream.end(blocks[0])
            return
        head = stream.head
        size = sum(map(len, blocks))
        if (
            size > _LARGE
            and head is not None
            and head.length is None
            and not (stream.head_sent or stream.bodiless)
        ):  # chunks would be copies
            stream.announce(size)
        for block in blocks:
            if block:
                stream.send(block)
                if stream.bodiless:
                    break  # the head is out, and nothing else may follow it
                self.waiter.keep_pace(None)
        stream.end()

    def _blocks(self, iterator: Iterator[Any]) -> Iterator[bytes]:
        """Yield the blocks that are not empty, waiting for those that are promised."""
        cancelled = False
        block = next(iterator, _END)
        while block is not _END:
            if type(block) is not bytes:
                try:
                    block = self._value(block)
                except BaseException as error:
                    # It belongs to the application. But the time to clean up is over with a second
                    # cancellation: one that swallows it would spin for ever.
                    if isinstance(error, Cancelled):
                        if cancelled:
                            raise
                        cancelled = True
                    block = _throw(iterator, error)
                    continue
            if block:
                yield block
            block = next(iterator, _END)

    def _value(self, block: Any) -> bytes:
        """Return the bytes that the application yielded, or promised."""
        if isinstance(block, bytes):
            return block
        if kind_of(block) is None:
            raise wrong_block(self.site.name, block)
        value = self.waiter.wait(block)
        if value is None:
            return b""
        if not isinstance(value, bytes):
            raise wrong_value(self.site.name, value)
        return value

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Write:
        """PEP 3333's ``start_response``; what it returns also unpacks into write and finish.

        Raises:
            LocalProtocolError: called a second time without ``exc_info``, or with a status or a
                header that must not be sent.
        """
        stream = self.stream
        if exc_info is not None:
            try:
                if stream.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through this frame
        elif stream.state != IDLE:
            raise LocalProtocolError("start_response was called twice: give exc_info the 2nd time")
        stream.start(status, headers)
        head = stream.head
        if head is not None and head.connection:
            note_connection(self.site.name, head)
        return Write(self)

    def _disconnected(self) -> bool:
        return self.stream.gone or self.waiter.cancelled

    def close(self, close: Callable[[], object]) -> None:
        """Call the iterable's ``close``."""
        try:
            close()
        except Cancelled:
            pass  # the client left while it waited: what is to be done for it has been done
        except BaseException:
            log.exception("the application failed in close(): %s", self.describe())

    def _answer(self, status: str, body: bytes, headers: list[tuple[str, str]]) -> None:
        """Answer in the application's place, or cut what it has begun."""
        stream = self.stream
        try:
            if stream.head_sent:
                stream.cut()
            else:
                stream.start(status, headers)
                stream.end(body)
        except Cancelled:
            stream.cut()


def _throw(iterator: Iterator[Any], error: BaseException) -> Any:
    """Throw an error in at the iterable's ``yield``; give the block that it yields next."""
    throw = getattr(iterator, "throw", None)
    if throw is None:
        raise error
    try:
        return throw(error)
    except StopIteration:
        return _END
    finally:
        del error  # its traceback holds this frame: no cycle
