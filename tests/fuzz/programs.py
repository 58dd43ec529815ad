"""Applications that do anything, drawn step by step, and that keep what they did."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from bide import wait
from bide.errors import Cancelled
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal
from bide.wsgi.conversation import Conversation
from tests.fakes import Bare
from tests.fuzz.drawing import Source

MARK: Final = "X-App"
"""A header that each of an application's heads has, and none of the server's own answers."""
INJECTED: Final = "X-Injected"
"""A header that no response may have: it is only ever a part of a value, a status or a body."""

STATUSES: Final[list[Any]] = [
    "200 OK",
    "200",
    "404 Not Found",
    "204 No Content",
    "304 Not Modified",
    "500 Internal Server Error",
    "299 ",
    "200 \xe9\t",
    "200 Ж",
    "100 Continue",
    "101 Switching Protocols",
    "2000 OK",
    "",
    "200 OK\r\nX-Injected: 1",
    "200 OK\nX-Injected: 1",
    "200 OK\r\n\r\nHTTP/1.1 200 OK",
    "200 \0",
    200,
]
HEADERS: Final[list[Any]] = [
    ("Content-Type", "text/plain"),
    ("Content-Length", "0"),
    ("Content-Length", "5"),
    ("content-length", "10"),
    ("Content-Length", "300"),
    ("Content-Length", "+5"),
    ("Content-Length", "5\r\nX-Injected: 1"),
    ("Content-Length", "٥"),
    ("Transfer-Encoding", "chunked"),
    ("Connection", "keep-alive"),
    ("Upgrade", "websocket"),
    ("Date", "never"),
    ("Server", "other"),
    ("X", " \t blanks \t "),
    ("X", ""),
    ("X", "\xe9\xff"),
    ("X", "Ж"),
    ("X", "a\r\nX-Injected: 1"),
    ("X", "a\nX-Injected: 1"),
    ("X", "a\rX-Injected: 1"),
    ("X", "a\r\n\r\nHTTP/1.1 200 OK\r\nX-Injected: 1"),
    ("X", "\0"),
    ("X\r\nX-Injected", "1"),
    ("X-Injected: 1\r\nX", "1"),
    ("X: y", "z"),
    ("", "z"),
    ("X", 5),
    ("X", b"z"),
    (b"X", "z"),
    ("X",),
]
BLOCKS: Final = [
    b"hello",
    b"",
    b"a",
    b"0\r\n\r\n",
    b"\r\n",
    b"HTTP/1.1 200 OK\r\nX-Injected: 1\r\nContent-Length: 0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"x" * 300,
]
ERRORS: Final[list[Callable[[], BaseException]]] = [
    ValueError,
    SystemExit,
    KeyboardInterrupt,
    MemoryError,
    RecursionError,
    GeneratorExit,
    StopIteration,
    TimeoutError,
]
NO_BLOCKS: Final[list[Any]] = ["text", 5, None, bytearray(b"bytes"), object()]
VALUES: Final[list[Any]] = [b"promised", b"", None, "text", 5, ValueError, SystemExit]
"""What promises give; a class is an error, made anew for each."""


class Asked:
    """One request, and what its application did.

    Attributes:
        heads: those that start_response took.
        blocks: what it gave to send, each with whether it was taken for certain.
        ended: how many blocks there were when ``finish`` was called with success, or None.
        read: what it read of the body.
        results: the iterables that it returned.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.conversation: Conversation | None = None
        self.heads: list[tuple[str, list[tuple[str, str]]]] = []
        self.blocks: list[tuple[bytes, bool]] = []
        self.ended: int | None = None
        self.read = b""
        self.results: list[Result] = []
        self.write: Any = None
        self.finish: Any = None
        self.pushing = False  # its application has done all but call finish

    def may_have(self, body: bytes, complete: bool) -> bool:
        """Whether these bytes can have come of its blocks; of all of them, if they are complete."""
        places = {0}
        blocks = self.blocks if self.ended is None else self.blocks[: self.ended]
        reached = not body
        for block, certain in blocks:
            ahead = {at + len(block) for at in places if body.startswith(block, at)}
            places = ahead if certain else ahead | places
            reached = reached or len(body) in places
        return len(body) in places if complete else reached


class Result:
    """An iterable that an application returns: its blocks are drawn, and its closing is counted."""

    def __init__(self, steps: Iterator[Any], throws: bool, fails: bool) -> None:
        self._steps = steps
        self._fails = fails
        self.closed = 0
        if throws:
            self.throw: Any = steps.throw  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._steps)

    def close(self) -> None:
        """Count, and fail if that was drawn."""
        self.closed += 1
        if self._fails:
            raise ValueError


class Program:
    """Draws what applications do, and keeps the promises that they wait for.

    Attributes:
        promises: what fires each, oldest first.
    """

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self.source = source
        self.loop = loop
        self.promises: list[Callable[[], object]] = []

    def application(self, asked: Asked) -> Callable[[Any, Any], Any]:
        """Draw the kind of an application, for one request."""
        kind = self.source.below(8)

        def ordinary(environ: Any, start_response: Any) -> Any:
            self.steps(asked, environ, start_response)
            return self.result(asked, environ, start_response)

        async def coroutine(environ: Any, start_response: Any) -> Any:
            if self.source.below(2):
                await asyncio.sleep(0)
            self.start(asked, start_response, False)
            return self.result(asked, environ, start_response)

        async def generator(environ: Any, start_response: Any) -> AsyncIterator[Any]:
            self.start(asked, start_response, False)
            while step := self.source.below(4):
                if step == 3:
                    await asyncio.sleep(0)
                    continue
                block = self.source.choose(BLOCKS)
                asked.blocks.append((block, False))
                yield block
                asked.blocks[-1] = (block, True)

        return coroutine if kind == 6 else generator if kind == 7 else ordinary

    def steps(self, asked: Asked, environ: Any, start_response: Any) -> None:
        """Do some steps, each of which may fail, which may be swallowed."""
        while not self.source.spent:
            step = self.source.below(16)
            if step == 0:
                return
            try:
                self.step(step, asked, environ, start_response)
            except BaseException:
                if not self.source.below(3):
                    raise

    def step(self, step: int, asked: Asked, environ: Any, start_response: Any) -> None:
        """Do one step."""
        if step < 6:
            self.start(asked, start_response, step == 5)
        elif step < 9 and asked.write is not None:
            self.push(asked)
        elif step == 9 and asked.write is not None:
            asked.finish = asked.write.finish
        elif step == 10:
            asked.write = asked.finish = None
        elif step == 11 and asked.finish is not None:
            self.end(asked)
        elif step == 12:
            asked.read += environ["wsgi.input"].read(self.source.choose([1, 3, -1]))
        elif step == 13:
            wait(self.promise(self.value()), self.source.choose([None, 0, 1]))
        elif step == 14:
            raise self.source.choose(ERRORS)()

    def start(self, asked: Asked, start_response: Any, again: bool) -> None:
        """Call start_response."""
        status = self.source.choose(STATUSES) if self.source.below(4) == 3 else "200 OK"
        headers = [(MARK, str(len(asked.heads)))]
        headers += [self.source.choose(HEADERS) for _ in range(self.source.below(3))]
        if again:
            try:
                raise ValueError
            except ValueError:
                asked.write = start_response(status, headers, sys.exc_info())
        else:
            asked.write = start_response(status, headers)
        asked.heads.append((status, headers))

    def push(self, asked: Asked) -> None:
        """Call write."""
        block = self.source.choose(BLOCKS)
        try:
            asked.write(block)
        except Cancelled:  # it may have been sent, and the wait behind it ended
            asked.blocks.append((block, False))
            raise
        asked.blocks.append((block, True))

    def end(self, asked: Asked) -> None:
        """Call finish."""
        asked.finish()
        asked.ended = len(asked.blocks)

    def result(self, asked: Asked, environ: Any, start_response: Any) -> Any:
        """Draw what an application returns."""
        kind = self.source.below(8)
        pushes = asked.finish is not None
        if kind == 0 or (kind < 3 and pushes):
            asked.pushing = pushes
            return None
        if kind < 3:
            blocks = [self.source.choose(BLOCKS) for _ in range(kind)]
            asked.blocks += [(block, True) for block in blocks]
            return tuple(blocks) if self.source.below(2) else blocks
        if kind == 3:
            return self.source.choose(NO_BLOCKS)
        steps = self.yields(asked, environ, start_response)
        result = Result(steps, throws=kind < 7, fails=kind == 6)
        asked.results.append(result)
        return result

    def yields(self, asked: Asked, environ: Any, start_response: Any) -> Iterator[Any]:
        """Yield blocks, promises of them, and what is neither, with steps between them."""
        while (kind := self.source.below(8)) and not self.source.spent:
            if kind < 4:
                block = self.source.choose(BLOCKS)
                place = len(asked.blocks)
                asked.blocks.append((block, False))
                yield block
                asked.blocks[place] = (block, True)
            elif kind < 6:
                value = self.value()
                promise = self.promise(value)
                place = len(asked.blocks)
                asked.blocks.append((value if isinstance(value, bytes) else b"", False))
                try:
                    yield promise
                    asked.blocks[place] = (asked.blocks[place][0], True)
                except Exception:
                    if not self.source.below(2):
                        raise
            elif kind == 6:
                yield self.source.choose(NO_BLOCKS)
            else:
                self.steps(asked, environ, start_response)
        asked.pushing = asked.finish is not None

    def value(self) -> Any:
        """Draw what a promise gives, or the error with which it fails."""
        value = self.source.choose(VALUES)
        return value() if isinstance(value, type) else value

    def promise(self, value: Any) -> Any:
        """Draw a promise of a value, or of an error; it has fired, or will, or never does."""
        kind = self.source.below(6)
        error = value if isinstance(value, BaseException) else None
        if kind == 5:
            return Signal()
        if kind == 4:
            bare = Bare()
            self.promises.append(lambda: bare.fire(value))
            return bare
        if kind == 3:
            return _coroutine(value)
        if kind == 2:
            future = self.loop.create_future()
            self.promises.append(lambda: _fulfil(future, value))
            return future
        signal = Signal()
        if kind == 1:
            signal.fire(value, error)
        else:
            self.promises.append(lambda: signal.fire(value, error))
        return signal


async def _coroutine(value: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


def _fulfil(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
