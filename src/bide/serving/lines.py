"""Lines on their way to a log: nobody waits for whoever reads it.

A pipe that is full, or a disk that is slow, blocks whoever writes to it. So one thread for each
place writes, and the others only queue. The queue is bounded; what it has no room for is dropped,
and counted.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import math
import os
import select
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final, Generic, TextIO, TypeVar

T = TypeVar("T")

log = logging.getLogger("bide")

RELAYED: Final = "bide_relayed"
"""What a record is marked with, when its lines are queued and other handlers are to have it."""
LINES: Final = 8192
"""Lines that may wait to be written to one place."""
BATCH: Final = 256
"""Lines written together, at most."""
FLUSH_SECONDS: Final = 1.0
"""How long to wait, at the end, for a reader that takes nothing."""
MOST_SECONDS: Final = 5.0
"""How long to wait, at the end, for one that takes little."""


class Outbox(Generic[T]):
    """Things to be delivered by a thread of their own; ``put`` from any thread, which never blocks.

    Args:
        name: what the log calls them, when some were dropped.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._token = [True]  # who takes it starts the thread
        self._queue: SimpleQueue[T | threading.Event] = SimpleQueue()
        self._dropped = 0
        self._done = 0  # delivered, in all
        self._threaded = True
        _outboxes.add(self)

    def put(self, item: T) -> None:
        """Have a thing delivered, soon; it is dropped when too many wait."""
        if self._token:
            self._start()
        if not self._threaded:
            self._deliver([item])
        elif self._queue.qsize() >= LINES:
            self._dropped += 1
        else:
            self._queue.put(item)

    def mark(self) -> threading.Event:
        """Return what is set once all that was put is delivered."""
        done = threading.Event()
        if self._token or not self._threaded:
            done.set()
        else:
            self._queue.put(done)
        return done

    def flush(self, seconds: float) -> bool:
        """Wait until all that was put is delivered; false when nothing moved for so long."""
        return self.wait(self.mark(), seconds, math.inf)

    def wait(self, done: threading.Event, seconds: float, until: float) -> bool:
        """Wait for a mark as long as things move, and until then, in monotonic seconds."""
        before = self._done
        while not done.wait(max(0.0, min(seconds, until - monotonic()))):
            if self._done == before or monotonic() >= until:
                return False
            before = self._done
        return True

    def end(self) -> None:
        """Deliver directly from now on: no thread runs while the interpreter ends."""
        self._token.clear()
        if self._queue.empty():  # else its thread hangs, and so would this one
            self._threaded = False

    def forget(self) -> None:
        """In a child, which has no other thread, and whose lines the parent writes: begin anew."""
        self._queue = SimpleQueue()
        self._token.clear()
        self._threaded = False
        self._dropped = 0

    def _start(self) -> None:
        try:
            self._token.pop()
        except IndexError:
            return
        try:
            threading.Thread(target=self._work, name="bide-log", daemon=True).start()
        except RuntimeError:  # the system gives no thread
            self._threaded = False

    def _work(self) -> None:
        while True:
            items: list[T] = []
            item: T | threading.Event = self._queue.get()
            with contextlib.suppress(Empty):
                while not isinstance(item, threading.Event):
                    items.append(item)
                    if len(items) >= BATCH:
                        break
                    item = self._queue.get_nowait()
            if items:
                self._deliver(items)
                self._tell_dropped()
            if isinstance(item, threading.Event):
                item.set()

    def _tell_dropped(self) -> None:
        dropped = self._dropped
        # Not before there is room again: the line that says so would be dropped too.
        if dropped and self._queue.qsize() < LINES // 2:
            self._dropped -= dropped
            log.warning("lines of %s were dropped, for it is too slow: %d", self._name, dropped)

    def _deliver(self, items: list[T]) -> None:
        """Deliver them, in order, and count each; never raises."""
        raise NotImplementedError


class Writer(Outbox[str]):
    """One place's lines.

    Args:
        stream: the place.
        name: what the log calls it, when lines of it were dropped.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__(name)
        self._stream = stream
        try:
            self._descriptor: int | None = stream.fileno()
        except (io.UnsupportedOperation, AttributeError, ValueError):
            self._descriptor = None  # somebody's own object

    def _deliver(self, items: list[str]) -> None:
        self._write("".join(items))
        self._done += len(items)

    def _write(self, text: str) -> None:
        # Nobody reads it any more, or it is closed: there is no place to say so.
        with contextlib.suppress(OSError, ValueError):
            if self._descriptor is None:
                self._stream.write(text)
                self._stream.flush()
            else:
                # Not through the stream: at the interpreter's end its lock would be held.
                self._write_bytes(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def _write_bytes(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                select.select([], [descriptor], [])


class Relay(Outbox[Callable[[], object]]):
    """Calls of other people's log handlers, which may block.

    Args:
        name: as for the others.
        writer: told of a handler that raises.
    """

    def __init__(self, name: str, writer: Writer) -> None:
        super().__init__(name)
        self._writer = writer

    def _deliver(self, items: list[Callable[[], object]]) -> None:
        for call in items:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - it is said, and the others have their lines
                self._writer.put(f"a logging handler of {self._name} has raised {error!r}\n")
            self._done += 1


class Stream:
    """Stands for standard error or output in somebody's handler: what is written is queued."""

    def __init__(self, stream: TextIO, writer: Writer) -> None:
        self.stream = stream
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Queue a text."""
        self._writer.put(text)
        return len(text)

    def flush(self) -> None:
        """It is written soon."""


class LineHandler(logging.Handler):
    """Queues each record's line; it never blocks, and needs no lock for that."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def createLock(self) -> None:  # noqa: N802 - logging's
        """Have none, as logging's NullHandler."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Queue a record that no filter drops."""
        passes: Any = not self.filters or self.filter(record)
        if passes:
            self.emit(record if passes is True else passes)  # a filter may give another record
        return passes

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, unless it is relayed to other handlers and has been queued before."""
        if RELAYED in record.__dict__:
            return
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a mistake in a call of the log
            line = f"a line of the log cannot be made of {record.msg!r}: {error!r}"
        self._writer.put(line + "\n")


_outboxes: weakref.WeakSet[Outbox[Any]] = weakref.WeakSet()


def flush(seconds: float = FLUSH_SECONDS, most: float = MOST_SECONDS) -> bool:
    """Wait until all lines are written, as long as they move, ``most`` seconds; any thread.

    Returns:
        Whether all other people's handlers have had theirs.
    """
    until = monotonic() + most
    # First those that may put lines into others.
    boxes = sorted(_outboxes, key=lambda each: isinstance(each, Writer))
    relayed = [each.wait(each.mark(), seconds, until) for each in boxes if isinstance(each, Relay)]
    marks = [(each, each.mark()) for each in boxes if isinstance(each, Writer)]
    for each, mark in marks:
        each.wait(mark, seconds, until)
    return all(relayed)


def forget() -> None:
    """In a forked child: the parent writes what was queued."""
    for outbox in list(_outboxes):
        outbox.forget()


def _at_exit() -> None:
    if not flush():
        # It would wait for the lock of the handler that hangs.
        atexit.unregister(logging.shutdown)
    for outbox in list(_outboxes):
        outbox.end()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=forget)
