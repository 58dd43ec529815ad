"""The command line as a process: started, read line by line, signalled, ended with its test."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from tests.served import DEADLINE, Client, Response, request

# Beside the interpreter that runs the tests, which has Bide installed.
PROGRAM = [sys.executable, "-m", "bide"]


class Program:
    """A running program, its output line by line.

    Args:
        arguments: the command line.
        directory: where it runs.
        descriptors: what it has under the same numbers as this process.
        variables: what its environment has beside the usual.
    """

    def __init__(
        self,
        arguments: list[str],
        directory: Path,
        descriptors: Iterable[int] = (),
        **variables: str,
    ) -> None:
        environment = {key: value for key, value in os.environ.items() if "BIDE" not in key}
        environment |= {
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "error",
            # A busy machine does not fail these tests, and would have lines of its own.
            "BIDE_BLOCKED_LOOP": "inf",
            "BIDE_BLOCKED_THREAD": "inf",
            **variables,
        }
        self._process = subprocess.Popen(
            arguments,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=tuple(descriptors),
        )
        self.lines: list[str] = []
        self._coming: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._out: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_errors),
            threading.Thread(target=self._read_output),
        ]
        for reader in self._readers:
            reader.start()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._coming.put(line.rstrip("\n") or " ")  # the empty one is the end
        self._coming.put("")

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._out.append(line.rstrip("\n"))

    def until(self, text: str) -> str:
        """Read the log up to a line that has ``text`` in it; give that line."""
        while True:
            try:
                line = self._coming.get(timeout=DEADLINE)
            except queue.Empty:
                line = ""
            assert line, f"no line with {text!r} among {self.lines}"
            self.lines.append(line)
            if text in line:
                return line

    def serving(self) -> str:
        """Wait until it listens; give its first address, as for ``--bind``."""
        line = self.until(" serving ")
        return line.partition(" on ")[2].split(", ")[0].removeprefix("http://")

    @property
    def pid(self) -> int:
        """Its process's number."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return its exit code, once it has ended; all its lines are there then."""
        code = self._process.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        while not self._coming.empty():
            if line := self._coming.get():
                self.lines.append(line)
        return code

    @property
    def output(self) -> list[str]:
        """The lines of its standard output, once it has ended."""
        return self._out

    def close(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def get(address: str, path: str = "/") -> Response:
    """Make one request to a program."""
    client = Client(address)
    try:
        client.send(request(path))
        return client.response()
    finally:
        client.close()
