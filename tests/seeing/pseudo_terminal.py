"""A program in a pseudo-terminal, and a server made by hand that it looks at."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.served import DEADLINE

# A terminal controls a session of its own: only so it sends signals.
_CONTROLLED = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class Screen:
    """A program in a terminal: what it writes, what is typed.

    Args:
        arguments: those of Python.
        variables: what its environment has beside the usual.
    """

    def __init__(self, *arguments: str, **variables: str) -> None:
        self._master, self._terminal = os.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(self._terminal)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CONTROLLED, *arguments],
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "PYTHONWARNINGS": "error", **variables},
        )
        self.written = ""
        self._mark = 0

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._terminal)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self.written += os.read(self._master, 65536).decode("utf-8", "replace")
        return True

    def until(self, text: str) -> None:
        """Read until the program has written a text that it has not been seen to write before."""
        end = time.monotonic() + DEADLINE
        while text not in self.written[self._mark :]:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} is not in {self.written[self._mark :]!r}"
            self._read(left)
        self._mark = self.written.index(text, self._mark) + len(text)

    def press(self, keys: str) -> None:
        """Type; what is written from now on is new."""
        self._mark = len(self.written)
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, as a window's manager does."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        """Send the program a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for the program's end; return its exit code."""
        end = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it goes on: {self.written[-2000:]!r}"
            self._read(0.01)
        while self._read(0):
            pass
        return self.process.returncode

    def is_put_back(self) -> bool:
        """Whether the terminal is as it was: its state, its screen, its cursor."""
        own, cursor = "\x1b[?1049", "\x1b[?25"
        return (
            termios.tcgetattr(self._terminal) == self.before
            and self.written.rpartition(own)[2][:1] == "l"
            and self.written.rpartition(cursor)[2][:1] == "h"
        )


class Told:
    """A control socket: whoever watches is told the same instance, and each new one."""

    def __init__(self, path: Path, instance: dict[str, Any]) -> None:
        self._path = path
        self._instance = instance
        self._watching: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _accept(self) -> None:
        while True:
            try:
                watcher, _ = self._listener.accept()
            except OSError:
                return
            self._watching.append(watcher)
            self._send(watcher)

    def _send(self, watcher: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it has left
            watcher.sendall(json.dumps(self._instance).encode() + b"\n")

    def say(self, instance: dict[str, Any]) -> None:
        """Tell all that watch, and will, something new."""
        self._instance = instance
        for watcher in list(self._watching):
            self._send(watcher)

    def end(self) -> None:
        """End, as a server does: its socket's file, too."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE)
        self._listener.close()
        for watcher in self._watching:
            watcher.close()
        self._watching.clear()
