"""One call of a WSGI application, from start to close, in straight-line code (PEP 3333).

It is written once and runs in a greenlet. The executor decides on which thread, and so what waiting
means. Everything here runs on the conversation's thread and in its context, except ``cancel`` and
``reject``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from time import monotonic
from types import CoroutineType
from typing import Any, Final

from bide.compiling import mypyc_attr
from bide.errors import (
    Cancelled,
    ClientDisconnected,
    LocalProtocolError,
    RemoteProtocolError,
    ThreadEnded,
    WebSocketClosed,
)
from bide.exchange.answers import (
    answer_cancelled,
    answer_failure,
    answer_malformed,
    answer_rejected,
    refusal_in,
)
from bide.exchange.breaches import NotStartedError, SwitchedError
from bide.exchange.identity import current
from bide.exchange.stream import ENDED, IDLE, SWITCHED, Stream
from bide.forks import end_child
from bide.twins import key_of
from bide.waiting.adapters import kind_of
from bide.waiting.api import iterate
from bide.waiting.locks import begins
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
from bide.wsgi.push import Write
from bide.wsgi.pushing import Pushing
from bide.wsgi.site import ForkedSite, Site

log = logging.getLogger("bide")

Application = Callable[..., Any]

_END: Final = object()
_MADE: Final[tuple[type, ...]] = (type(iter([])), type(iter(())))  # iterators over what is there
_LEAVES: Final = (StopIteration, SwitchedError, WebSocketClosed)  # a WebSocket's ordinary ends
_LARGE: Final = 64 * 1024  # bytes of a response that a client may not take at once


@mypyc_attr(allow_interpreted_subclasses=True)
class Conversation(Pushing):
    """One request's call of a WSGI application.

    Attributes:
        site: what it shares with the application's other conversations.
    """

    __slots__ = ("_more", "site")

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
        self.times = waiter
        self.started = monotonic()
        self.expired = False
        self.finished = None
        self.guard = None
        self.over = False

    @property
    def begun_by(self) -> Any:
        """The dispatcher that has begun it."""
        return self.site

    @property
    def thread_name(self) -> str:
        """The name of the thread that it runs on; empty before it begins."""
        parking = self.waiter.parking
        return parking.name if parking is not None and self.times.begun else ""

    # From the loop ------------------------------------------------------------------------------

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait in progress, or the next one, by raising; as :meth:`Waiter.cancel`."""
        self.waiter.cancel(cancellation, firm)

    def reject(self, retry_after: int, code: int = 503, stops: bool = False) -> None:
        """Answer 503 or 429 in place of running; on the loop, when no executor has it."""
        answer_rejected(self.stream, retry_after, code, stops)
        self.site.done(self)

    def describe(self) -> str:
        """Return a text that names the request and the application; from any thread."""
        request = self.stream.request
        return f"{request.method} {request.target.decode('latin-1')} of {self.site.name}"

    # On the conversation's thread ---------------------------------------------------------------

    def run(self) -> None:
        """Call the application and send what it returns; never raises."""
        if self.stream.identity is not None:
            current.set(self.stream.identity)
        try:
            if not self.stream.gone:
                self._converse()
        except RemoteProtocolError as error:
            answer_malformed(self.stream, error)
        except ThreadEnded:
            answer_failure(self.stream)
        except Cancelled as cancelled:
            answer_cancelled(self.stream, cancelled)
        except BaseException as error:  # noqa: BLE001 - it is logged
            # Whatever it is, SystemExit and KeyboardInterrupt too, ends this request only.
            refusal = refusal_in(error)  # of a task group
            if refusal is not None:
                answer_cancelled(self.stream, refusal)
            elif self.stream.state is SWITCHED and isinstance(error, _LEAVES):
                self.stream.leave()
            else:
                self.failed(error)
        finally:
            self._finish()

    def after_fork(self) -> None:
        """Called in a forked child, perhaps forked by its own code: end the wait; on its thread."""
        self.site = ForkedSite(self.site)
        self.stream.after_fork()
        self.waiter.ends = ()
        self.waiter.cancel(ClientDisconnected("a forked child has no client"), firm=True)

    def lost(self) -> None:
        """Called when its code cannot go on: answer 500, or cut the response that it has begun."""
        if not self.over:
            try:
                answer_failure(self.stream)
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
        except BaseException:  # as any error of the application, SystemExit too
            log.exception("cleaning up after the application failed: %s", self.describe())

    def environ(self) -> dict[str, Any]:
        """Return the environ for the application; called once, right before the call."""
        environ = request_environ(self.site.environ, self.stream.peer, self.stream.request)
        environ["wsgi.input"] = Input(self.stream)
        return self.extended(environ)

    def extended(self, environ: dict[str, Any]) -> dict[str, Any]:
        """Add Bide's own keys."""
        environ["bide.disconnected"] = self._disconnected
        environ["bide.status"], environ["bide.state"] = self.site.status, self.site.state
        identity = self.stream.identity
        if identity is not None and identity.id:
            # Under the header's name too, where libraries look for it, in place of what was sent.
            environ["bide.request_id"] = environ[key_of(identity.header.encode())] = identity.id
        if identity is not None and identity.trace:
            environ["bide.trace_id"] = identity.trace
        if self._more is not None:
            environ.update(self._more)
        return environ

    def failed(self, error: BaseException) -> None:
        """Log what the application raised, and answer 500, or cut the response it has begun."""
        if type(self.site) is ForkedSite:
            end_child(error)
        try:
            if isinstance(error, BreachError):
                log.error("the application failed: %s: %s", self.describe(), error)
            else:
                log.error("the application failed: %s", self.describe(), exc_info=error)
        finally:
            answer_failure(self.stream)

    def _converse(self) -> None:
        environ = self.environ()
        try:
            result = self.site.application(environ, self.start_response)
        finally:
            route = environ.get("bide.route")
            if type(route) is str:
                self.stream.route = route
            del environ  # it may hold finish; see bide.wsgi.push
        if type(result) is CoroutineType:
            result = self.waiter.wait(result)
        if result is None and self.stream.state is not SWITCHED:
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
            kind = type(result)
            # Compiled, to look in vain costs 3,200 instructions: a twentieth of a short request.
            plain = kind is list or kind is tuple
            close = None if plain else getattr(result, "close", None)
            if close is not None:
                self.close(close)

    def _send_all(self, result: Any) -> None:
        stream = self.stream
        if stream.state is SWITCHED:
            return stream.leave()  # whatever was returned is closed and ignored
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
        # An iterable of both kinds, as Django's streaming responses are, is iterated as PEP 3333's.
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
                    # It belongs to the application. But with a second cancellation the time to
                    # clean up is over: an application that swallows it would spin for ever.
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
        # Of any type: what an application gives. What is wrong with it is said by the head.
        self,
        status: Any,
        headers: Any,
        exc_info: Any = None,
    ) -> Write:
        """PEP 3333's ``start_response``; what it returns also unpacks into write and finish.

        Raises:
            LocalProtocolError: called twice without ``exc_info``, or with what must not be sent.
        """
        stream = self.stream
        if exc_info is not None:
            try:
                if stream.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through this frame
        elif stream.state is SWITCHED:
            return Write(self)  # ignored, as what is returned
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
            pass  # the client left while it waited: that has been handled already
        except BaseException:  # as above
            log.exception("the application failed in close(): %s", self.describe())


def _throw(iterator: Iterator[Any], error: BaseException) -> Any:
    """Throw an error into the iterable at its ``yield``; return the block that it yields next."""
    throw = getattr(iterator, "throw", None)
    if throw is None:
        raise error
    try:
        return throw(error)
    except StopIteration:
        return _END
    finally:
        del error  # its traceback holds this frame: no cycle


begins(Conversation.run)
