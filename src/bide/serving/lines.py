"""Lines on their way to a log, written by a thread so that no other waits for a slow reader.

A full pipe, or a slow disk, blocks the thread that writes to it. So each place has one thread that
writes, and all others only queue. The queue is bounded; lines beyond it are dropped and counted.
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

from bide.systems import at_fork

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
_PIPE: Final = 4096
"""Bytes that a pipe takes at once when it is writable."""
MOST_SECONDS: Final = 5.0
"""How long it waits for a reader that takes little."""


class Outbox(Generic[T]):
    """A queue of things that a thread of its own delivers. ``put`` never blocks, on any thread.

    Args:
        name: what the log calls the things when some were dropped.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._token = [True] if _threads_wanted else []  # who takes it starts the thread
        self._queue: SimpleQueue[T | threading.Event] = SimpleQueue()
        self._dropped = 0
        self._done = 0  # delivered, in all
        self._threaded = bool(_threads_wanted)
        _outboxes.add(self)

    def put(self, item: T) -> None:
        """Queue a thing for delivery; drop it when too many wait. From any thread."""
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

    def may_start(self) -> None:
        """Have a thread again, after :meth:`forget`."""
        self._threaded = True
        self._token.append(True)

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
            log.warning("lines of %s were dropped, because it is too slow: %d", self._name, dropped)

    def _deliver(self, items: list[T]) -> None:
        """Deliver things in order, and count each; never raises."""
        raise NotImplementedError


class Writer(Outbox[str]):
    """Writes lines to one place.

    Args:
        place: a stream, or the path of a file, which is added to and can be opened anew.
        name: what the log calls it when lines were dropped.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, place: TextIO | str, name: str) -> None:
        super().__init__(name)
        self._path = place if isinstance(place, str) else ""
        self._stale = False  # to be opened anew; set on any thread, taken back by the writing one
        self._lost = 0  # lines that could not be written since one could
        self._cut = False  # whether the last one is there in part
        stream = _opened(place) if isinstance(place, str) else place
        self._stream = stream
        self._stuck = False  # its reader takes nothing
        try:
            self._descriptor: int | None = stream.fileno()
        except (io.UnsupportedOperation, AttributeError, ValueError):
            self._descriptor = None  # an object without a file

    def reopen(self) -> None:
        """Have a file opened anew, which was renamed, before the next line; from any thread."""
        if self._path:
            self._stale = True
            self.put("")

    def _deliver(self, items: list[str]) -> None:
        if self._stale:
            self._stale = False
            self._open_anew()
        text = "".join(items)
        if text:
            try:
                self._write(f"\n{text}" if self._cut else text)
            except (OSError, ValueError) as error:  # a full disk, a reader that has gone
                self._lose(len(items), error)
            else:
                self._cut = False
                self._tell_lost()
        self._done += len(items)

    def _lose(self, lines: int, error: OSError | ValueError) -> None:
        first = not self._lost
        self._lost += lines
        if first:
            reason = error.strerror if isinstance(error, OSError) else error
            log.error("cannot write %s: %s; its lines are lost until it can", self._name, reason)

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            log.warning("%s is written again; lines that were lost: up to %d", self._name, lost)

    def _open_anew(self) -> None:
        try:
            stream = _opened(self._path)
        except OSError as error:
            log.error(
                "cannot open %s again, and write to the old file: %s: %s",
                self._name,
                self._path,
                error.strerror,
            )
            return
        self._stream.close()
        self._stream = stream
        self._descriptor = stream.fileno()

    def _write(self, text: str) -> None:
        if self._descriptor is None:
            self._stream.write(text)
            self._stream.flush()
        else:
            # Not through the stream: at the interpreter's end its lock would be held.
            self._write_bytes(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def _write_bytes(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view and (self._threaded or self._takes(descriptor)):
            try:
                size = os.write(descriptor, view if self._threaded else view[:_PIPE])
            except BlockingIOError:
                select.select([], [descriptor], [])
            else:
                self._cut = view[size - 1] != ord("\n")
                view = view[size:]

    def _takes(self, descriptor: int) -> bool:
        """Whether a write does not block, soon: without a thread, what is not read is dropped."""
        watched = select.poll()
        watched.register(descriptor, select.POLLOUT)
        self._stuck = not watched.poll(0 if self._stuck else FLUSH_SECONDS * 1000)
        return not self._stuck


def _opened(path: str) -> TextIO:
    return open(path, "a", encoding="utf-8")


class Relay(Outbox[Callable[[], object]]):
    """Calls log handlers that are not Bide's, which may block.

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
    """Replaces standard error or output in another's log handler, and queues its lines."""

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
_threads_wanted = [True]


def flush(seconds: float = FLUSH_SECONDS, most: float = MOST_SECONDS) -> bool:
    """Wait until all lines are written; from any thread.

    Args:
        seconds: how long to wait while nothing moves.
        most: how long to wait in all.

    Returns:
        Whether all handlers that are not Bide's have had their records.
    """
    until = monotonic() + most
    # First those that may put lines into others.
    boxes = sorted(_outboxes, key=lambda each: isinstance(each, Writer))
    relayed = [each.wait(each.mark(), seconds, until) for each in boxes if isinstance(each, Relay)]
    marks = [(each, each.mark()) for each in boxes if isinstance(each, Writer)]
    for each, mark in marks:
        each.wait(mark, seconds, until)
    return all(relayed)


def reopen() -> None:
    """Open each log file anew, after it was renamed; from any thread."""
    for outbox in list(_outboxes):
        if isinstance(outbox, Writer):
            outbox.reopen()


def forget() -> None:
    """Drop what was queued, in a forked child: the parent writes it."""
    for outbox in list(_outboxes):
        outbox.forget()


def start_no_threads() -> None:
    """Deliver directly from now on, and drop what is not taken soon: there is one thread."""
    _threads_wanted.clear()
    forget()


def start_threads() -> None:
    """Undo :func:`start_no_threads`, in a forked child that serves."""
    _threads_wanted.append(True)
    for outbox in list(_outboxes):
        outbox.may_start()


def _at_exit() -> None:
    if not flush():
        # It would wait for the lock of the handler that hangs.
        atexit.unregister(logging.shutdown)
    for outbox in list(_outboxes):
        outbox.end()


atexit.register(_at_exit)
at_fork(after_in_child=forget)
