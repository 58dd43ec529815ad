"""The terminal of ``bide top``: keys one by one, a screen of its own, and all as before at the end.

Main thread only. Signals only leave a word, and wake :meth:`Terminal.wait`; what they ask for is
done between two pictures, so none of them comes in between when the terminal is put back.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final, TextIO

from rich.console import Console, Group
from rich.text import Text

from bide.seeing.top_keys import read_keys

MOMENT: Final = 0.05
"""Seconds after which an Escape is the key, and not the beginning of another's bytes."""

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Terminal:
    """The terminal, from ``with`` to its end.

    Args:
        keyboard: where keys come from; a terminal.
        screen: what is drawn on; the same terminal.

    Attributes:
        over: whether a signal, or the end of the terminal, asks to leave.
    """

    def __init__(self, keyboard: TextIO, screen: TextIO) -> None:
        self.over = False
        self._keyboard = keyboard.fileno()
        self._screen = screen
        self._console = Console(file=screen, highlight=False)
        self._suspended = self._resumed = False
        self._rest = b""
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._before: list[Any] = termios.tcgetattr(self._keyboard)
        self._handlers: dict[int, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> Terminal:
        self._wakeup = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in _ENDING:
            self._handlers[number] = signal.signal(number, self._end)
        for number in (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH):
            self._handlers[number] = signal.signal(number, self._hear)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._woken)
        os.close(self._wake)

    def wake(self) -> None:
        """Have :meth:`wait` return; from any thread."""
        with contextlib.suppress(OSError):  # it is full, so it is awake; or closed
            os.write(self._wake, b"\0")

    def size(self) -> tuple[int, int]:
        """Return the columns and the lines."""
        try:
            size = os.get_terminal_size(self._screen.fileno())
        except OSError:  # it is gone
            self.over = True
            return 80, 24
        return size.columns or 80, size.lines or 24  # one that does not know says 0

    def draw(self, lines: list[Text], width: int, height: int) -> None:
        """Draw over the whole screen. It is not erased first, so it does not flicker."""
        self._console.size = (width, height)
        try:
            self._console.update_screen(Group(*lines[:height]))
            self._screen.flush()
        except OSError:  # it is gone
            self.over = True

    def wait(self) -> Iterator[str]:
        """Wait for a key, a signal or :meth:`wake`; return the names of the keys, if any."""
        ready, _, _ = select.select(
            [self._keyboard, self._woken], [], [], MOMENT if self._rest else None
        )
        if self._woken in ready:
            self._clear()
        if self._suspended:
            self._suspended = False
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            # With several threads this one may go on for a moment, before all of them stop.
            while not (self._resumed or self.over):
                select.select([self._woken], [], [])
                self._clear()
        if self._resumed:  # also after a SIGSTOP from elsewhere
            self._resumed = False
            self._take()
        data = self._read() if self._keyboard in ready else b""
        names, self._rest = read_keys(self._rest + data, final=not data and bool(self._rest))
        return iter(names)

    def _clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)

    def _read(self) -> bytes:
        try:
            data = os.read(self._keyboard, 4096)
        except OSError:
            data = b""
        self.over = self.over or not data
        return data

    def _take(self) -> None:
        with contextlib.suppress(OSError, termios.error):  # it is gone, which reading tells
            state = termios.tcgetattr(self._keyboard)
            state[0] &= ~termios.IXON  # Ctrl-S would stop the pictures, and so the end
            state[3] &= ~(termios.ICANON | termios.ECHO)
            state[6][termios.VMIN], state[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._keyboard, termios.TCSANOW, state)
            self._console.set_alt_screen(True)
            self._console.show_cursor(False)
            self._screen.flush()

    def _give_back(self) -> None:
        try:
            with contextlib.suppress(OSError):
                self._console.show_cursor(True)
                self._console.set_alt_screen(False)
                self._screen.flush()
        finally:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSANOW, self._before)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.over = True

    def _hear(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            self._suspended = True
        elif number == signal.SIGCONT:
            self._resumed = True
        # A new size only has to wake it: the next picture has that.
