"""Real ASGI servers as processes, each with the application of ``asgi_site``, and what they say."""

import ast
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from tests.ports import free_port
from tests.served import DEADLINE, Client, Response, request, until

PROJECT: Final = Path(__file__).parent.parent.parent
SHORT: Final = 0.7
"""Seconds that a client waits for what is not expected to come."""
QUIET: Final = 0.3
"""Seconds without any progress that mean that there will be none."""

NOTHING: Final = "nothing: the connection stays"
NONE: Final = "—"

_UVICORN = ["uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "critical",
            "--timeout-graceful-shutdown", "1"]  # fmt: skip
COMMANDS: Final = {
    "uvicorn": [*_UVICORN, "{site}:under_bide"],
    "hypercorn": ["hypercorn", "-b", "127.0.0.1:{port}", "--graceful-timeout", "1",
                  "--log-level", "critical", "{site}:under_bide"],
    "granian": ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}",
                "--no-log", "--workers-kill-timeout", "1", "{site}:under_bide"],
    "daphne": ["daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0", "{site}:under_bide"],
    "a2wsgi": [*_UVICORN, "{site}:under_a2wsgi"],
    "asgiref": [*_UVICORN, "{site}:under_asgiref"],
}  # fmt: skip
SERVERS: Final = ("uvicorn", "hypercorn", "granian", "daphne")
ADAPTERS: Final = ("uvicorn", "a2wsgi", "asgiref")  # Bide's own, first, is the one under uvicorn


class Host:
    """A running ASGI server; ``ready`` before anything else.

    Attributes:
        expected: what the conversation that is to begin is expected to answer; empty where nothing
            is. It says only how long to wait: whether something comes, or stays away.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.expected = ""
        self.notes = directory / f"notes-{name}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE)
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        words = [word.format(port=port, site="tests.hosts.asgi_site") for word in COMMANDS[name]]
        self._out = (directory / f"out-{name}").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=PROJECT,
            env={
                **os.environ,
                "ASGI_SITE_TEST": f"127.0.0.1:{self._listener.getsockname()[1]}",
                "ASGI_SITE_NOTES": str(self.notes),
            },
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._out,
            start_new_session=True,
        )

    @property
    def patience(self) -> float:
        """Seconds that a client waits for what may not come."""
        return SHORT if self.expected.startswith("no") or not self.expected else DEADLINE

    def ready(self) -> None:
        """Return once it serves."""
        self._asking, _ = self._listener.accept()
        self._asking.settimeout(DEADLINE)
        self._lines: Any = self._asking.makefile("rw")
        until(self._listens, f"{self.name} does not listen")

    def _listens(self) -> bool:
        try:
            Client(self.address).close()
        except OSError:
            return False
        return True

    def ask(self, expression: str) -> Any:
        """Ask the site to evaluate an expression of literals."""
        print(expression, file=self._lines, flush=True)
        return ast.literal_eval(self._lines.readline())

    def until(self, expression: str) -> bool:
        """Return true once it is true in the site, or false when patience ends."""
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            if self.ask(expression):
                return True
            time.sleep(0.005)
        return False

    def settled(self, expression: str, most: int) -> int:
        """Return a number of the site's that grows, once it is ``most``, or grows no more."""
        least = int(self.expected) if self.expected.isdecimal() else 0
        last, since = -1, time.monotonic()
        while last < most:
            quiet = time.monotonic() - since
            if quiet > DEADLINE or (last >= least and quiet > QUIET):
                break
            now = self.ask(expression)
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.005)
        return last

    def open(self, name: str) -> None:
        """Open a gate of the site's."""
        self.ask(f"gate({name!r}).open()")

    def client(self, data: bytes = b"", **options: Any) -> Client:
        """Connect, and send something."""
        client = Client(self.address, **options)
        client.sock.settimeout(self.patience)
        client.send(data)
        return client

    def get(self, path: str, **options: Any) -> Response:
        """Make one request."""
        client = self.client(request(path, **options))
        try:
            return client.response(options.get("method", "GET"))
        finally:
            client.close()

    def http2(self, path: str, say: Callable[[httpx.Response], str]) -> str:
        """Make a request of HTTP/2, and say what became of it; NONE for a server without."""
        with httpx.Client(http1=False, http2=True, trust_env=False, timeout=self.patience) as http:
            try:
                with http.stream("GET", f"http://{self.address}{path}") as answer:
                    try:
                        answer.read()
                    except httpx.RemoteProtocolError:
                        return "a cut"
                    except httpx.ReadTimeout:
                        return NOTHING
                    return say(answer)
            except httpx.HTTPError:
                return NONE

    def terminate(self) -> None:
        """Stop the host."""
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End it and what it has started, if it has not ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        for each in (self._lines, self._asking, self._listener, self._out):
            each.close()
