"""SIGINT, SIGTERM, SIGHUP and SIGUSR1, answered by a thread that runs no code of the application.

Python runs a signal's handler on the main thread, between two bytecodes. While the main thread is
blocked, no handler runs. But Python's C code writes the signal's number to the wake-up descriptor
at once. A thread here reads it: the first SIGINT or SIGTERM stops the server, the second ends the
process. Where SIGTERM stops it after a delay, one that comes within the delay ends that alone.
SIGUSR1 opens the log files anew.

The handlers are set before the application is imported, because the kernel drops a signal without a
handler for the first process of a container. A handler of the application's is called before the
server stops.

SIGHUP has two meanings. Where the terminal that the process was started on is gone, it stops the
server; else somebody asks it to reload.

Only a thread that keeps the interpreter's lock (in an extension in C) can delay the answer.
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
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep  # the system's, also where gevent patches the module later
from types import FrameType, TracebackType
from typing import Any, Final

from bide.capabilities import name_of
from bide.forks import share, unshare
from bide.process.terminal import has_terminal, how_at_once
from bide.serving.lines import flush, reopen
from bide.serving.logs import say

log = logging.getLogger("bide")

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)
LAST_SECONDS: Final = 0.5
"""How long the process waits, at a second signal, until its log has been read."""
AGAIN: Final = 1.0
"""Seconds after which the wake-up descriptor is taken again, if other code has taken it."""
ASKED: Final = 0
"""In place of a signal's number: the main thread asks which signals came before."""


class StopHeard(BaseException):
    """A signal has ended the start; the message is one line for the deployer."""


class Signals:
    """Answers the signals inside its ``with`` block; on the main thread.

    A first signal that comes before :meth:`attach` is kept until then, or ends the block of
    :meth:`ending`.

    Args:
        deaf_to: those of them that are not for this process, which a parent answers: they do
            nothing.
    """

    def __init__(self, deaf_to: Collection[int] = ()) -> None:
        self._deaf_to = deaf_to
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[float], object] | None = None
        self._reload: Callable[[], object] | None = None
        self._finishing: Callable[[], str] | None = None
        self._terminal = has_terminal()
        self._delay = 0.0
        self._delayed_until = 0.0  # monotonic seconds; until then one more signal ends the delay
        self._heard: list[int] = []  # the numbers that the thread has read
        self._due = [True]  # taken out by what stops the server: the thread, or ``attach``
        self._ends = False  # a signal's handler raises, on the main thread
        # The system's threads and locks: gevent may patch those of ``threading``.
        self._asking = allocate_lock()
        self._listening = allocate_lock()
        self._others = -1  # the wake-up descriptor that was set before: asyncio's, or Twisted's
        self._before: dict[int, Any] = {}
        self._calling = False
        self._reopens = False  # SIGUSR1 is Bide's; else the application has a handler of its own
        self._timer: asyncio.TimerHandle | None = None
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._descriptor = self._writer.fileno()

    def __enter__(self) -> Signals:
        _entered.append(self)
        share(self, Signals.after_fork)
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
        self._restore(_behind[0])
        signal.set_wakeup_fd(self._others)
        _entered.remove(self)
        unshare(self)
        self._writer.close()
        self._listening.acquire()
        self._reader.close()

    @contextmanager
    def ending(self, what: str) -> Iterator[None]:
        """In this ``with`` block, the first signal ends the block, on the main thread.

        The signal's handler raises ``SystemExit`` or ``KeyboardInterrupt`` there.

        Raises:
            StopHeard: at the end of the block, however it ended, if a signal has come.
        """
        try:
            try:
                self._ends = True
                yield
            finally:
                self._ends = False  # a signal may interrupt even this: so there is an outer block
        finally:
            number = self._first() if self in _entered else 0  # 0 in a forked child
            if number:
                name = signal.Signals(number).name
                raise StopHeard(f"stopped by {name} while {what}") from None

    @contextmanager
    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[float], object],
        delay: float = 0.0,
        reload: Callable[[], object] | None = None,
        finishing: Callable[[], str] | None = None,
    ) -> Iterator[None]:
        """In this ``with`` block, the first signal stops a server; at once if it came already.

        Handlers that are set on entering are the application's. They are named in the log, and
        called before the server stops.

        Args:
            loop: the running loop.
            stop: called on the loop, with the seconds after which the server is to stop: ``delay``
                for SIGTERM, 0 for SIGINT, and once more, with 0, when another one ends the delay.
            delay: the seconds.
            reload: called on the loop for each SIGHUP that asks for it. Where this is None, or that
                signal is ignored or handled by the application, it is left as it is.
            finishing: returns what is left to finish; from any thread. None: nothing is said.
        """
        self._install()
        self._say_whose()
        self._keep(loop)
        # The thread notes a signal, then checks for a loop. Here it is the other way round.
        self._stop = stop
        self._delay = delay
        self._reload = reload
        self._finishing = finishing
        if reload is not None and signal.getsignal(signal.SIGHUP) in (signal.SIG_DFL, unheard):
            signal.signal(signal.SIGHUP, self._hear)
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
        """Called in a forked child, which answers its signals itself: drop the handlers."""
        _entered.remove(self)
        signal.set_wakeup_fd(-1)
        self._restore(signal.SIG_DFL)
        self._reader.close()
        self._writer.close()

    # On the main thread -------------------------------------------------------------------------

    def _install(self) -> None:
        for number in NUMBERS:
            before = signal.signal(number, self._handle)
            if before != self._handle:
                self._before[number] = before
        if signal.getsignal(signal.SIGUSR1) in (signal.SIG_DFL, unheard):
            signal.signal(signal.SIGUSR1, self._hear)
        self._reopens = signal.getsignal(signal.SIGUSR1) == self._hear

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's
        if self._take():
            self._writer.send(bytes([number]))  # this number was written to another descriptor

    def _restore(self, behind: Any) -> None:
        for heard in (signal.SIGHUP, signal.SIGUSR1):
            if signal.getsignal(heard) in (self._hear, unheard, signal.SIG_DFL):
                signal.signal(heard, behind)
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
        """Take the wake-up descriptor; return whether other code had it."""
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
        self._hear(number, frame)
        if number in self._deaf_to:
            return
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
        """Call the application's handler; log an error of it, which would end the process."""
        self._calling = True
        try:
            handler(number, frame)
        except (SystemExit, KeyboardInterrupt):  # the process is about to end anyway
            return
        except BaseException as error:  # noqa: BLE001 - any of them would end the loop
            # Logged later, on the loop: this may have interrupted code that writes to the log.
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
                        if number not in self._deaf_to:
                            self._answer(number)
                    elif number == signal.SIGUSR1 and self._reopens:
                        reopen()
                    elif number == signal.SIGHUP and self._reload is not None:
                        self._hang_up(self._reload)
                self._pass_on(data)
        finally:
            self._listening.release()

    def _pass_on(self, data: bytes) -> None:
        if self._others != -1:
            try:
                os.write(self._others, data)  # for handlers that asyncio or Twisted have added
            except OSError:  # it is full, and what is in it wakes them; or it is closed
                return

    def _hang_up(self, reload: Callable[[], object]) -> None:
        if self._terminal and not has_terminal():
            self._answer(signal.SIGHUP)
        elif self._loop is not None and not self._heard:
            self._call_soon(self._loop, reload)

    def _answer(self, number: int) -> None:
        self._heard.append(number)
        if len(self._heard) == 1:
            if self._loop is not None:  # else ``attach`` looks
                self._begin_to_stop()
            return
        # By the clock, not by what the loop has done: that may be blocked.
        if monotonic() < self._delayed_until:
            self._delayed_until = 0.0
            self._tell(0.0)
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
        number = self._heard[0]
        name = signal.Signals(number).name
        delay = self._delay if number == signal.SIGTERM else 0.0
        if delay:
            self._delayed_until = monotonic() + delay
            say(logging.INFO, "stopping in %g s: accepting until then (%s)", delay, name)
        elif self._finishing is not None:
            how = how_at_once(number, signal.SIGINT in self._deaf_to)
            say(logging.INFO, "stopping: %s; %s", self._finishing(), how)
        self._tell(delay)

    def _tell(self, delay: float) -> None:
        loop, stop = self._loop, self._stop
        assert stop is not None
        if loop is not None:  # else it has ended meanwhile
            self._call_soon(loop, stop, delay)

    def _call_soon(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: Any
    ) -> None:
        try:
            loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # it is closed: the process is about to end
            return


def answered(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Return them without SIGHUP where that is ignored, as under nohup: it stays so."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [each for each in numbers if each != signal.SIGHUP or not ignored]


def unheard(*_: object) -> None:
    """Handle a signal that is answered elsewhere. Programs that are started are not deaf to it."""


def end_behind() -> None:
    """Have SIGHUP and SIGUSR1 do nothing behind each :class:`Signals`: the process ends there."""
    _behind[0] = unheard


def postpone() -> None:
    """Have SIGHUP and SIGUSR1 end no process that has no :class:`Signals` yet."""
    for number in answered((signal.SIGHUP, signal.SIGUSR1)):
        signal.signal(number, unheard)


def _is_own(handler: Any) -> bool:
    """Whether a handler is the application's, and not Python's or the system's."""
    return callable(handler) and handler is not signal.default_int_handler


def _write_if_read(line: str) -> None:
    """Write a line to standard error, where there is no log yet, if that has a reader."""
    try:
        descriptor = sys.__stderr__.fileno() if sys.__stderr__ is not None else -1
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, line.encode())
    except (OSError, ValueError):  # it is closed
        return


_entered: list[Signals] = []
_behind: Final[list[Any]] = [signal.SIG_DFL]
