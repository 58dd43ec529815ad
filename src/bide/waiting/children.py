"""A child process that makes calls, as its parent sees it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from multiprocessing.spawn import get_executable
from typing import Final

from bide.forks import how_it_ended

_PROGRAM: Final = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "importlib.import_module(sys.argv[1]).serve(int(sys.argv[2]))"
)


class Child:
    """A new interpreter, and the socket that leads to it; from one thread, but for ``kill``.

    It imports from where this process does, and has its standard output and error.

    Args:
        module: whose ``serve`` it calls with the descriptor of its socket.

    Attributes:
        socket: see there; it blocks.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, module: str) -> None:
        self.socket, its = socket.socketpair()
        with its:
            try:
                self._process = subprocess.Popen(
                    [
                        os.fsdecode(get_executable()),
                        *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                        "-c",
                        _PROGRAM,
                        module,
                        str(its.fileno()),
                        json.dumps([str(each) for each in sys.path]),
                    ],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(its.fileno(),),
                )
            except BaseException:
                self.socket.close()
                raise

    @property
    def number(self) -> int:
        """The system's number of the process."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it, whatever it does; from any thread."""
        self._process.kill()

    def end(self) -> str:
        """End it, if it has not ended; return in words how it has."""
        self.socket.close()
        self._process.kill()
        return how_it_ended(self._process.wait())

    def after_fork(self) -> None:
        """Close its socket, in a fork of this process: it ends when nobody has that any more."""
        self.socket.close()
        self._process.returncode = 0  # it is not this process's to wait for
