"""Lines on their way to a log, written by a thread so that nobody else waits for a slow reader.

A full pipe, or a slow disk, blocks whoever writes to it. So each place has one thread that writes,
and all others only queue. The queue is bounded; what it has no room for is dropped and counted.
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
"""Marks a record whose lines have been queued, and which other handlers are still to get."""
LINES: Final = 8192
"""Lines that may wait to be written to one place."""
BATCH: Final = 256
"""How many lines are written together at most."""
FLUSH_SECONDS: Final = 1.0
"""How long the end of the process waits for a reader that takes nothing."""
MOST_SECONDS: Final = 5.0
"""How long it waits for a reader that takes little."""


class Outbox(Generic[T]):
    """A queue of things that a thread of its own delivers. ``put`` never blocks, on any thread.

    Args:
        name: what the log calls the things when some were dropped.
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
        """Have a thing delivered soon. It is dropped when too many wait."""
        if self._token:
            self._start()
        if not self._threaded:
            self._deliver([item])
        elif self._queue.qsize() >= LINES:
            self._dropped += 1
        else:
            self._queue.put(item)

    def mark(self) -> threading.Event:
        """Return an event that is set once all that was put has been delivered."""
        done = threading.Event()
        if self._token or not self._threaded:
            done.set()
        else:
            self._queue.put(done)
        return done

    def flush(self, seconds: float) -> bool:
        """Wait until all that was put has been delivered; false when nothing moved for so long."""
        return self.wait(self.mark(), seconds, math.inf)

    def wait(self, done: threading.Event, seconds: float, until: float) -> bool:
        """Wait for a mark; false when nothing moved for so long, or at the latest ``until``.

        Args:
            done: from :meth:`mark`.
            seconds: how long to wait while nothing moves.
            until: in monotonic seconds.
        """
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
        """Begin anew in a forked child, which has no other thread; the parent writes the rest."""
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
        """Deliver things in order, and count each; never raises."""
        raise NotImplementedError


class Writer(Outbox[str]):
    """Writes lines to one place.

    Args:
        stream: the place.
        name: what the log calls it when lines were dropped.
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
    """Calls other people's log handlers, which may block.

    Args:
        name: what the log calls them when lines were dropped.
        writer: gets a line when a handler raises.
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
    """Takes the place of standard error or output in somebody's handler, and queues its lines."""

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
        """Do nothing: what was queued is written soon."""


class LineHandler(logging.Handler):
    """Queues each record's line. It never blocks, and needs no lock."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def createLock(self) -> None:  # noqa: N802 - logging's
        """Make no lock, as logging's NullHandler."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Queue a record, unless a filter drops it."""
        passes: Any = not self.filters or self.filter(record)
        if passes:
            self.emit(record if passes is True else passes)  # a filter may give another record
        return passes

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, unless its line was queued before it was relayed to other handlers."""
        if RELAYED in record.__dict__:
            return
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a mistake in a call of the log
            line = f"a line of the log cannot be made of {record.msg!r}: {error!r}"
        self._writer.put(line + "\n")


_outboxes: weakref.WeakSet[Outbox[Any]] = weakref.WeakSet()


def flush(seconds: float = FLUSH_SECONDS, most: float = MOST_SECONDS) -> bool:
    """Wait until all lines are written; from any thread.

    Args:
        seconds: how long to wait while nothing moves.
        most: how long to wait in all.

    Returns:
        Whether all other people's handlers have had their records.
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
    """Drop what was queued, in a forked child: the parent writes it."""
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
