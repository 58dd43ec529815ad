"""SIGINT and SIGTERM, answered by a thread that runs nothing of the application.

Python runs a signal's handler on the main thread, between two bytecodes: while that is blocked, it
does not. But its C code writes the signal's number to the wake-up descriptor at once. Here a thread
reads that: the first signal has the server stop, the second ends the process.

Both are heard from before the application is imported: the first process of a container gets no
signal that it has no handler for. What the application has installed is called before the server
stops.

Nobody but a thread that keeps the interpreter's lock for itself (an extension in C) can delay it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import sys
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep  # the system's, also where gevent patches the module later
from types import FrameType, TracebackType
from typing import Any, Final

from bide.capabilities import name_of
from bide.forks import share, unshare
from bide.serving.lines import flush
from bide.serving.logs import say

log = logging.getLogger("bide")

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)
LAST_SECONDS: Final = 0.5  # and no longer for one that reads slowly
"""How long the process waits, at a second signal, for whoever reads its log."""
AGAIN: Final = 1.0
"""Seconds between two looks whether somebody else has taken the wake-up descriptor."""
ASKED: Final = 0
"""In place of a signal's number: the main thread asks what has been heard before."""


class StopHeard(BaseException):
    """A signal has ended the start; its message is one line for whoever reads the output."""


class Signals:
    """Hears the signals while it is entered; on the main thread.

    A first signal that comes before :meth:`attach` is kept until then, or ends what runs in
    :meth:`ending`.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], object] | None = None
        self._heard: list[int] = []  # by the thread
        self._due = [True]  # taken by whoever has the server stop: the thread, or ``attach``
        self._ends = False  # a signal raises, on the main thread
        # The system's threads and locks: gevent may put others in their places.
        self._asking = allocate_lock()
        self._listening = allocate_lock()
        self._others = -1  # who had the wake-up descriptor: asyncio, or Twisted
        self._before: dict[int, Any] = {}
        self._calling = False
        self._timer: asyncio.TimerHandle | None = None
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._descriptor = self._writer.fileno()

    def __enter__(self) -> Signals:
        _entered.append(self)
        share(self)
        self._listening.acquire()
        start_new_thread(self._listen, ())
        self._install()
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self not in _entered:  # a forked child comes here
            return
        self._take()
        self._restore()
        signal.set_wakeup_fd(self._others)
        _entered.remove(self)
        unshare(self)
        self._writer.close()
        self._listening.acquire()
        self._reader.close()

    @contextmanager
    def ending(self, what: str) -> Iterator[None]:
        """Have the first signal end what runs on the main thread meanwhile.

        That is by ``SystemExit`` or ``KeyboardInterrupt``, as from a handler of its own.

        Raises:
            StopHeard: at the end, whatever has come of that.
        """
        try:
            try:
                self._ends = True
                yield
            finally:
                self._ends = False  # which a signal may interrupt, so that is not all
        finally:
            number = self._first() if self in _entered else 0  # a forked child goes its own way
            if number:
                name = signal.Signals(number).name
                raise StopHeard(f"stopped by {name} while {what}") from None

    @contextmanager
    def attach(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> Iterator[None]:
        """Have the first signal stop a server; at once, if it has come already.

        What handles the signals on entering is the application's, and is called too, before the
        server stops; this logs which.

        Args:
            loop: the running loop.
            stop: called on the loop.
        """
        self._install()
        self._say_whose()
        self._keep(loop)
        # The thread writes down what it hears, then looks for a loop: here it is the other way.
        self._stop = stop
        self._loop = loop
        if self._heard:
            self._begin_to_stop()
        try:
            yield
        finally:
            self._loop = None
            if self._timer is not None:
                self._timer.cancel()

    def after_fork(self) -> None:
        """Give the handlers up in a forked child: what it is sent is its own."""
        _entered.remove(self)
        signal.set_wakeup_fd(-1)
        self._restore()
        self._reader.close()
        self._writer.close()

    # On the main thread -------------------------------------------------------------------------

    def _install(self) -> None:
        for number in NUMBERS:
            before = signal.signal(number, self._handle)
            if before != self._handle:
                self._before[number] = before

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def _say_whose(self) -> None:
        for number, handler in self._before.items():
            if _is_own(handler):
                log.info(
                    "the application handles %s: %s is called before the server stops",
                    signal.Signals(number).name,
                    name_of(handler),
                )

    def _take(self) -> bool:
        """Have the numbers written to us; whether they were written to somebody else."""
        before = signal.set_wakeup_fd(self._descriptor, warn_on_full_buffer=False)
        if before == self._descriptor:
            return False
        self._others = before
        return True

    def _keep(self, loop: asyncio.AbstractEventLoop) -> None:
        # ``loop.add_signal_handler`` of the application takes the descriptor for asyncio.
        self._take()
        self._timer = loop.call_later(AGAIN, self._keep, loop)

    def _first(self) -> int:
        """Return the number of the first signal that has come until now, or 0."""
        self._take()
        self._asking.acquire()
        self._writer.send(bytes([ASKED]))  # behind those that have come
        with self._asking:  # released by the thread
            pass
        return self._heard[0] if self._heard else 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._calling:  # the application's handler calls the one that it has replaced
            return
        if self._take():
            self._writer.send(bytes([number]))  # it has gone to somebody else
        sleep(0.001)  # lets the thread run, where this one keeps the interpreter's lock
        if self._ends:
            self._ends = False
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(0)
        handler = self._before[number]
        if self._loop is not None and _is_own(handler):
            self._call(handler, number, frame)

    def _call(self, handler: Any, number: int, frame: FrameType | None) -> None:
        """Call the application's handler. What it raises would end the process; this stops it."""
        self._calling = True
        try:
            handler(number, frame)
        except (SystemExit, KeyboardInterrupt):  # its word for what happens anyway
            return
        except BaseException as error:  # noqa: BLE001 - any of them would end the loop
            # Not from here: this may have interrupted whoever writes to the log.
            assert self._loop is not None
            message = "the application's handler of %s failed"
            name = signal.Signals(number).name
            self._loop.call_soon_threadsafe(
                lambda error: log.error(message, name, exc_info=error), error
            )
        finally:
            self._calling = False

    # On the thread ------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            while data := self._reader.recv(64):
                for number in data:
                    if number == ASKED:
                        self._asking.release()
                    elif number in NUMBERS:
                        self._answer(number)
                self._pass_on(data)
        finally:
            self._listening.release()

    def _pass_on(self, data: bytes) -> None:
        if self._others != -1:
            try:
                os.write(self._others, data)  # those who added handlers by their own means
            except OSError:  # it is full, so they will look; or they are no more
                return

    def _answer(self, number: int) -> None:
        self._heard.append(number)
        if len(self._heard) == 1:
            if self._loop is not None:  # else whoever attaches looks
                self._begin_to_stop()
            return
        if self._stop is None:
            _write_if_read("bide: stopped at once, by a second signal\n")
        else:
            say(logging.WARNING, "stopped at once, by a second signal")
            flush(LAST_SECONDS, LAST_SECONDS)
        os._exit(128 + number)

    # On either ----------------------------------------------------------------------------------

    def _begin_to_stop(self) -> None:
        try:
            self._due.pop()
        except IndexError:
            return
        loop, stop = self._loop, self._stop
        assert stop is not None
        name = signal.Signals(self._heard[0]).name
        say(logging.INFO, "stopping: requests in progress are finished (%s)", name)
        if loop is None:  # it has ended meanwhile
            return
        try:
            loop.call_soon_threadsafe(stop)
        except RuntimeError:  # it is closed: the process is about to end
            return


def _is_own(handler: Any) -> bool:
    """Whether a handler is somebody's, and not Python's or the system's."""
    return callable(handler) and handler is not signal.default_int_handler


def _write_if_read(line: str) -> None:
    """Write a line to standard error, where there is no log yet, unless nobody reads it."""
    try:
        descriptor = sys.__stderr__.fileno() if sys.__stderr__ is not None else -1
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, line.encode())
    except (OSError, ValueError):  # it is closed
        return


_entered: list[Signals] = []
