"""SIGINT and SIGTERM, answered by a thread that runs nothing of the application.

Python runs a signal's handler on the main thread, between two bytecodes: while that is blocked, it
does not. But its C code writes the signal's number to the wake-up descriptor at once. Here a thread
reads that: the first signal has the server stop, the second ends the process.

Nobody but a thread that keeps the interpreter's lock for itself (an extension in C) can delay it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final

from bide.lines import flush
from bide.logs import say

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)
LAST_SECONDS: Final = 0.5  # and no longer for one that reads slowly
"""How long the process waits, at a second signal, for whoever reads its log."""
AGAIN: Final = 1.0
"""Seconds between two looks whether somebody else has taken the wake-up descriptor."""


class Signals:
    """Hears the signals while it is entered; on the main thread, where the loop runs.

    Args:
        loop: the running loop.
        stop: called on the loop at the first signal.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
        self._loop = loop
        self._stop = stop
        self._heard = 0
        self._others = -1  # who had the wake-up descriptor: asyncio, or Twisted
        self._before: dict[int, Any] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._descriptor = self._writer.fileno()
        self._thread = threading.Thread(target=self._listen, name="bide-signals", daemon=True)

    def __enter__(self) -> Signals:
        _entered.append(self)
        self._thread.start()
        for number in NUMBERS:
            self._before[number] = signal.signal(number, self._handle)
        self._keep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._take()
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        signal.set_wakeup_fd(self._others)
        _entered.remove(self)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def forget(self) -> None:
        """In a forked child: it is not the server, and what it is sent is its own."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._reader.close()
        self._writer.close()

    # On the main thread -------------------------------------------------------------------------

    def _take(self) -> bool:
        """Have the numbers written to us; whether they were written to somebody else."""
        before = signal.set_wakeup_fd(self._descriptor, warn_on_full_buffer=False)
        if before == self._descriptor:
            return False
        self._others = before
        return True

    def _keep(self) -> None:
        # ``loop.add_signal_handler`` of the application takes the descriptor for asyncio.
        self._take()
        self._timer = self._loop.call_later(AGAIN, self._keep)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._take():
            self._writer.send(bytes([number]))  # it has gone to somebody else
        time.sleep(0.001)  # lets the thread run, where this one keeps the interpreter's lock

    # On the thread ------------------------------------------------------------------------------

    def _listen(self) -> None:
        while data := self._reader.recv(64):
            for number in data:
                if number in NUMBERS:
                    self._answer(number)
            if self._others != -1:
                try:
                    os.write(self._others, data)  # those who added handlers by their own means
                except OSError:  # it is full, so they will look; or they are no more
                    continue

    def _answer(self, number: int) -> None:
        self._heard += 1
        if self._heard == 1:
            name = signal.Signals(number).name
            say(logging.INFO, "stopping: requests in progress are finished (%s)", name)
            try:
                self._loop.call_soon_threadsafe(self._stop)
            except RuntimeError:  # it is closed: the process is about to end
                return
            return
        say(logging.WARNING, "stopped at once, by a second signal")
        flush(LAST_SECONDS, LAST_SECONDS)
        os._exit(128 + number)


_entered: list[Signals] = []


def _after_fork() -> None:
    while _entered:
        _entered.pop().forget()


os.register_at_fork(after_in_child=_after_fork)
