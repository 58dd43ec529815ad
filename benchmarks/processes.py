"""A server under test: started on some cores, watched through /proc, ended with its children.

Linux only. Every server is the leader of a session of its own, so that its whole tree of processes
can be found and ended.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from .errors import RoundFailedError

ROOT = Path(__file__).resolve().parent.parent
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Variables from which servers take settings; only the command line is to count.
_SETTINGS = ("BIDE_", "GRANIAN_", "GUNICORN_", "UVICORN_", "UWSGI_", "WEB_CONCURRENCY", "PYTHON")
_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_IDLE_SECONDS = 0.2


class ServerProcess:
    """A started server and all processes below it.

    Attributes:
        port: The port of 127.0.0.1 that it was told.
        started: When it was started, by `time.monotonic`.
        origin: What its URLs begin with: scheme and authority.
    """

    def __init__(
        self,
        leader: subprocess.Popen[bytes],
        port: int,
        log: Path,
        started: float,
        certificate: Path | None,
    ) -> None:
        self._leader = leader
        self._log = log
        self._context = ssl.create_default_context(cafile=certificate) if certificate else None
        self.origin = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
        self.port = port
        self.started = started

    def fetch(self, path: str, timeout: float) -> tuple[int, bytes]:
        """GET `path` on a connection of its own; return status and body.

        Raises `OSError` or `http.client.HTTPException` where there is no answer within `timeout`
        seconds.
        """
        connection = self._connect(timeout)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _connect(self, timeout: float) -> HTTPConnection:
        if self._context is None:
            return HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        return HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self._context)

    def await_answer(self, path: str, pause: float = 0.05) -> None:
        """Return once `path` answers 200; else raise `RoundFailedError` with the reason.

        It is asked every `pause` seconds.
        """
        deadline = time.monotonic() + _START_SECONDS
        answer = "no answer"
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                status, body = self.fetch(path, timeout=5.0)
            except (OSError, HTTPException) as error:
                answer = str(error) or type(error).__name__
                time.sleep(pause)
                continue
            if status != 200:
                raise RoundFailedError(f"answered {status} to {path}{self._last_words()}")
            if not body:
                raise RoundFailedError(f"answered {path} with an empty body")
            return
        raise RoundFailedError(f"did not answer in {_START_SECONDS:.0f} s: {answer}")

    def check_alive(self) -> None:
        """Raise `RoundFailedError` where the server has ended."""
        code = self._leader.poll()
        if code is not None:
            raise RoundFailedError(f"ended with code {code}{self._last_words()}")

    def await_idle(self) -> None:
        """Return once the server has nothing left to do, 5 s at most."""
        deadline = time.monotonic() + 5.0
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(_IDLE_SECONDS)
            now = self.cpu_seconds()
            if now - before <= 0.05 * _IDLE_SECONDS:
                return
            before = now

    def processes(self) -> list[int]:
        """Return the ids of the server's processes that are alive."""
        return [pid for pid, fields in _stat_all() if int(fields[3]) == self._leader.pid]

    def cpu_seconds(self) -> float:
        """Return the CPU time, user and system, that the whole tree has used so far.

        Children that have ended and were waited for are in their parent's sum, so the figure never
        goes back.
        """
        ticks = 0
        for _, fields in _stat_all():
            if int(fields[3]) == self._leader.pid:
                ticks += sum(int(field) for field in fields[11:15])
        return ticks / _TICKS_PER_SECOND

    def memory_kb(self) -> int:
        """Return the proportional set size of the whole tree: pages shared by two count half."""
        return sum(_rollup(pid, "Pss:") for pid in self.processes())

    def stop(self) -> None:
        """End every process of the server: asked first, killed after five seconds."""
        self._leader.terminate()
        try:
            self._leader.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # ended since the listing
        self._leader.wait()

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines()]
        lines = [line for line in lines if line]
        return f": {lines[-1][:200]}" if lines else ""


@contextmanager
def start(
    argv: list[str],
    port: int,
    cores: Collection[int],
    packages: Path | None = None,
    certificate: Path | None = None,
) -> Iterator[ServerProcess]:
    """Start a server on some cores; end it and all its processes when the `with` block is left.

    It imports what is in the directory `packages` before what is installed. With a `certificate` it
    speaks TLS, and must have that one. Raises `RoundFailedError` where the program cannot be
    started at all.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)
    }
    environment["PYTHONPATH"] = os.pathsep.join(map(str, [packages, ROOT] if packages else [ROOT]))
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        log = Path(directory, "log")
        with log.open("wb") as output:
            started = time.monotonic()
            try:
                leader = subprocess.Popen(
                    argv,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=lambda: os.sched_setaffinity(0, cores),
                )
            except OSError as error:
                raise RoundFailedError(f"could not be started: {error}") from error
        server = ServerProcess(leader, port, log, started, certificate)
        try:
            yield server
        finally:
            server.stop()


def find_free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listened just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def busy_seconds(core: int) -> float:
    """Return for how long a core has been busy since boot, with anything at all."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SECOND
    raise LookupError(f"/proc/stat has no cpu{core}")


def own_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _stat_all() -> Iterator[tuple[int, list[str]]]:
    # proc(5): the fields after the name, which may itself hold spaces and parentheses. Counted
    # from the state as 0: session 3, utime 11, stime 12, cutime 13, cstime 14.
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path("/proc", entry, "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since the listing
        yield int(entry), text.rpartition(")")[2].split()


def _rollup(pid: int, name: str) -> int:
    try:
        text = Path("/proc", str(pid), "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # ended since the listing
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0  # a zombie has no memory
