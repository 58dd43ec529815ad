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
import os
import select
import threading
import weakref
from queue import Empty, SimpleQueue
from typing import Final, TextIO

log = logging.getLogger("bide")

LINES: Final = 8192
"""Lines that may wait to be written to one place."""
BATCH: Final = 256
"""Lines written together, at most."""
FLUSH_SECONDS: Final = 1.0
"""How long to wait, at the end, for a reader that takes nothing."""


class Writer:
    """One place's lines; ``put`` from any thread.

    Args:
        stream: the place.
        name: what the log calls it, when lines of it were dropped.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name
        try:
            self._descriptor: int | None = stream.fileno()
        except (io.UnsupportedOperation, AttributeError, ValueError):
            self._descriptor = None  # somebody's own object
        self._token = [True]  # who takes it starts the thread
        self._queue: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._dropped = 0
        self._written = 0
        self._threaded = True
        _writers.add(self)

    def put(self, line: str) -> None:
        """Have a line written, soon; it is dropped when too many wait."""
        if self._token:
            self._start()
        if not self._threaded:
            self._write(line)
        elif self._queue.qsize() >= LINES:
            self._dropped += 1
        else:
            self._queue.put(line)

    def flush(self, seconds: float) -> bool:
        """Wait until all that was put is written; false when nothing moved for so long."""
        if self._token or not self._threaded:
            return True
        done = threading.Event()
        self._queue.put(done)
        written = self._written
        while not done.wait(seconds):
            if self._written == written:
                return False
            written = self._written
        return True

    def after_fork(self) -> None:
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
            lines: list[str] = []
            item: str | threading.Event = self._queue.get()
            with contextlib.suppress(Empty):
                while not isinstance(item, threading.Event):
                    lines.append(item)
                    if len(lines) >= BATCH:
                        break
                    item = self._queue.get_nowait()
            if lines:
                self._write("".join(lines))
                self._written += len(lines)
                self._tell_dropped()
            if isinstance(item, threading.Event):
                item.set()

    def _tell_dropped(self) -> None:
        dropped = self._dropped
        if dropped:
            self._dropped -= dropped
            log.warning("%d lines of %s were dropped: it is read too slowly", dropped, self._name)

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


class LineHandler(logging.Handler):
    """Queues each record's line; it never blocks."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a mistake in a call of the log
            line = f"a line of the log cannot be made of {record.msg!r}: {error!r}"
        self._writer.put(line + "\n")


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Wait until all lines are written, as long as they move; any thread."""
    for writer in list(_writers):
        writer.flush(seconds)


def _after_fork() -> None:
    for writer in list(_writers):
        writer.after_fork()


atexit.register(flush)
os.register_at_fork(after_in_child=_after_fork)
