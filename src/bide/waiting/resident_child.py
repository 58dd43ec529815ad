"""What runs in a child process of :mod:`bide.waiting.residents`: one object, and calls of it.

It is a new interpreter, as :mod:`bide.waiting.child` is, and ends when its parent does. The object
is made, and its plain methods are called, on the main thread. What can be awaited, and async
iterables, run on one event loop beside it, which turns also between calls. Another thread reads the
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
from _thread import start_new_thread
from collections.abc import AsyncIterable, Callable, Generator, Sequence
from queue import SimpleQueue
from typing import Any

from bide.forks import EndingChildren
from bide.waiting.api import wait
from bide.waiting.background import background_loop
from bide.waiting.child import described, open_socket
from bide.waiting.payloads import (
    BEGUN,
    CALL,
    END,
    ERROR,
    ITEM,
    LEFT,
    LOAD,
    MORE,
    NUMBER,
    READY,
    RESULT,
    STREAM,
    Part,
    dump,
    load,
    receive,
    send,
)


def serve(descriptor: int) -> None:
    """Make the object and its calls until the parent ends; never return.

    Args:
        descriptor: of the socket that leads to it.
    """
    resident = Resident(open_socket(descriptor))
    start_new_thread(resident.read, ())
    with contextlib.suppress(OSError):  # the parent is gone
        resident.run()
    os._exit(0)


class Current:
    """The call that is made now, and what the parent says of it.

    Attributes:
        number: of the call.
        on_left: called when nobody wants more of its stream; on the thread that reads.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.on_left: Callable[[], None] = _nothing
        self._said: SimpleQueue[int] = SimpleQueue()
        self._said.put(MORE)  # there is room for the first item

    def say(self, kind: int) -> None:
        """Called when the parent has said MORE or LEFT; on the thread that reads."""
        self._said.put(kind)
        if kind == LEFT:
            self.on_left()

    def is_wanted(self) -> bool:
        """Whether another item is wanted, once there is room for it; on the main thread."""
        return self._said.get() == MORE


def _nothing() -> None:
    """Called when a plain generator was left, which is closed at its next item."""


class Resident:
    """The object, and the calls of it, one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._inbox: SimpleQueue[list[bytearray]] = SimpleQueue()
        self._current = Current(0)

    def read(self) -> None:
        """Read what the parent sends; end with it, also in the midst of a call."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, parts = receive(self._socket)
                if kind in (LOAD, CALL):
                    self._inbox.put(parts)
                else:
                    current = self._current
                    if NUMBER.unpack(parts[0]) == (current.number,):
                        current.say(kind)
                del parts  # the arguments' memory
        os._exit(0)

    # On the main thread --------------------------------------------------------------------------

    def run(self) -> None:
        """Make the object, then the calls; raises OSError when the parent is gone."""
        try:
            with EndingChildren():
                target = load(self._inbox.get())()
                if inspect.isawaitable(target):
                    target = wait(target)
        except BaseException as error:  # noqa: BLE001 - told to the parent
            send(self._socket, ERROR, described(error))
            return
        send(self._socket, READY)
        while True:
            self._make(target, self._inbox.get())

    def _make(self, target: Any, parts: list[bytearray]) -> None:
        self._current = Current(*NUMBER.unpack(parts.pop(0)))
        self._send(BEGUN)
        try:
            with EndingChildren():
                kind, answer = self._called(target, parts)
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the call
            kind, answer = ERROR, described(error)
        self._send(kind, answer)

    def _called(self, target: Any, parts: list[bytearray]) -> tuple[int, list[Part]]:
        """Make a call, and send the items of a stream; return how it ends."""
        name, args, kwargs = load(parts)
        parts.clear()  # the memory is the arguments' now
        result = getattr(target, name)(*args, **kwargs)
        del args, kwargs
        if isinstance(result, Generator):
            return self._streamed(result)
        if hasattr(type(result), "__aiter__"):
            items = AsyncItems(result)
            self._current.on_left = items.leave
            return self._streamed(items)
        if inspect.isawaitable(result):
            result = wait(result)
        return RESULT, dump(result)

    def _streamed(self, items: Any) -> tuple[int, list[Part]]:
        """Send items, one ahead of the parent's room for them; close what they come from."""
        self._send(STREAM)
        with contextlib.closing(items):
            for item in items:
                parts = dump(item)
                if not self._current.is_wanted():
                    break
                self._send(ITEM, parts)
        return END, []

    def _send(self, kind: int, parts: Sequence[Part] = ()) -> None:
        send(self._socket, kind, [NUMBER.pack(self._current.number), *parts])


class AsyncItems:
    """The items of an async iterable, for the main thread.

    It runs in one task on the loop, one item ahead. When it is left, the task is cancelled.
    """

    def __init__(self, iterable: AsyncIterable[Any]) -> None:
        self._iterable = iterable
        self._came: SimpleQueue[tuple[bool, Any]] = SimpleQueue()  # whether it is the end, and what
        self._ended = False  # on the main thread
        self._room = asyncio.Semaphore(1)
        self._left = False  # on the loop
        self._loop = background_loop.get()
        self._loop.call_soon_threadsafe(self._start)

    def leave(self) -> None:
        """Cancel the task; from any thread, and more than once."""
        self._loop.call_soon_threadsafe(self._cancel)

    # On the main thread --------------------------------------------------------------------------

    def __iter__(self) -> AsyncItems:
        return self

    def __next__(self) -> Any:
        if self._ended:
            raise StopIteration
        self._ended, value = self._came.get()
        if not self._ended:
            self._loop.call_soon_threadsafe(self._room.release)
            return value
        if value is not None:
            raise value
        raise StopIteration

    def close(self) -> None:
        """Cancel the task, and wait for its end."""
        self.leave()
        while not self._ended:
            self._ended, _ = self._came.get()

    # On the loop ---------------------------------------------------------------------------------

    def _start(self) -> None:
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._done)

    def _cancel(self) -> None:
        if not self._left:  # a second time would interrupt its cleaning up
            self._left = True
            self._task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        error: BaseException | None
        if task.cancelled():
            error = None if self._left else asyncio.CancelledError()
        else:
            error = task.exception()
        self._came.put((True, error))

    async def _run(self) -> None:
        iterator = aiter(self._iterable)
        try:
            async for item in iterator:
                await self._room.acquire()
                self._came.put((False, item))
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
