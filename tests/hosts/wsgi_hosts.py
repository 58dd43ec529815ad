"""Real WSGI servers as processes, each with ``wsgi_site``, and what a client sees of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.hosts.wsgi_site import BLOCKS
from tests.ports import free_port
from tests.served import DEADLINE, Client, Response, request, until

PROJECT: Final = Path(__file__).parent.parent.parent
SHORT: Final = 1.0
"""Seconds that a client waits for what may never come."""
NO_UWSGI: Final = "uWSGI is not installed: pip install uwsgi, which needs a C compiler"
QUIET: Final = 0.3
"""Seconds without progress that mean that there will be none."""

SITE: Final = "tests.hosts.wsgi_site"
_GUNICORN: Final = f"-m gunicorn -b 127.0.0.1:PORT --log-level critical {SITE}:application"
_UWSGI: Final = f"--http-socket 127.0.0.1:PORT --module {SITE}:application --need-app"

COMMANDS: Final[dict[str, str]] = {
    "gunicorn sync": _GUNICORN,
    "gunicorn gthread": f"{_GUNICORN} -k gthread --threads 4",
    "gunicorn gevent": f"{_GUNICORN} -k gevent",
    "waitress": f"-m waitress --listen=127.0.0.1:PORT {SITE}:application",
    "granian": "-m granian --interface wsgi --host 127.0.0.1 --port PORT --no-log "
    f"--blocking-threads 4 {SITE}:application",
    "cheroot": f"-m cheroot --bind 127.0.0.1:PORT {SITE}:application",
    "Twisted": f"-m twisted web --listen tcp:PORT:interface=127.0.0.1 --wsgi {SITE}.application",
    "wsgiref": f"-m {SITE} wsgiref PORT",
    "Werkzeug": f"-m {SITE} werkzeug PORT",
    "uWSGI": f"{_UWSGI} --enable-threads --threads 4",
    "uWSGI without threads": _UWSGI,
}
"""The servers, and how each is started by the interpreter; uWSGI is a program of its own."""


def uwsgi() -> str | None:
    """Find uWSGI, which is compiled where it is installed; None where it is not."""
    beside = Path(sys.executable).parent / "uwsgi"
    return str(beside) if beside.exists() else shutil.which("uwsgi")


class Host:
    """A running WSGI server.

    Args:
        name: one of :data:`COMMANDS`.
        directory: where the application leaves its notes.
        patience: seconds that a client waits for an answer, which may never come.
    """

    def __init__(self, name: str, directory: Path, patience: float = 2 * SHORT) -> None:
        self.name = name
        self._patience = patience
        self._directory = directory / name.replace(" ", "-")
        self._directory.mkdir()
        self._numbers = itertools.count()
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        words = COMMANDS[name].replace("PORT", str(port)).split()
        program = [sys.executable]
        if name.startswith("uWSGI"):
            program = [uwsgi() or "uwsgi", "--virtualenv", sys.prefix, "--pythonpath", str(PROJECT)]
        self._out = (self._directory / "out").open("w")
        self.process = subprocess.Popen(
            [*program, *words],
            cwd=PROJECT,
            env={**os.environ, "WSGI_SITE_TEST": str(self._directory)},
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._out,
            start_new_session=True,
        )

    def ready(self) -> None:
        """Return once it serves."""
        until(self._listens, f"{self.name} does not listen")

    def _listens(self) -> bool:
        assert self.process.poll() is None, (self._directory / "out").read_text()
        try:
            Client(self.address).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End it and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        self._out.close()

    # What a client sees -------------------------------------------------------------------------

    def ask(self, path: str, method: str = "GET", version: str = "1.1") -> Response | str:
        """Make a request; give the response, or what came in its place."""
        client = Client(self.address)
        client.sock.settimeout(self._patience)
        headers = ["Connection: close"] if version == "1.1" else []
        try:
            client.send(request(path, method=method, version=version, headers=headers))
            return client.response(method)
        except TimeoutError:
            return "no end"
        except (AssertionError, ValueError, OSError):
            return "no answer"
        finally:
            client.close()

    def right(self, path: str, method: str = "GET", status: int = 200) -> str:
        """Return whether a route is answered as it should be."""
        response = self.ask(path, method)
        if isinstance(response, str):
            return response
        body = b"" if method == "HEAD" or status == 204 else b"123"
        if (response.status, response.body, response.complete) == (status, body, True):
            return "yes"
        return self._says(response)

    def _says(self, response: Response) -> str:
        end = "" if response.complete else ", cut"
        body = (
            ""
            if response.status >= 500
            else f", {len(response.body)} bytes"
            if (response.body)
            else ", empty"
        )
        return f"{response.status}{body}{end}"

    def end(self, path: str, version: str = "1.1") -> str:
        """Return how a response ends whose application fails in the middle."""
        response = self.ask(path, version=version)
        if isinstance(response, str):
            return response
        if response.status >= 500:
            return str(response.status)
        return "a complete response" if response.complete else "a cut"

    def status(self, path: str) -> str:
        """Return the status with which a request is answered."""
        response = self.ask(path)
        return response if isinstance(response, str) else str(response.status)

    # What the application notes -----------------------------------------------------------------

    def _note(self, query: str, name: str) -> Path:
        return self._directory / f"{query}-{name}"

    def streams(self) -> str:
        """Return whether a block reaches the client before the next is made."""
        query = str(next(self._numbers))
        client = Client(self.address)
        client.sock.settimeout(SHORT)
        try:
            client.send(request(f"/streams?{query}", version="1.0"))
            client.head()
            seen = client.read(1) == b"1"
        except TimeoutError:
            seen = False
        except AssertionError:  # no status line
            return "no answer"
        finally:
            self._note(query, "seen").touch()
            client.close()
        return "yes" if seen else "no"

    def bounded(self) -> tuple[str, str]:
        """Return whether a slow client holds the application up, and whether its end stops it."""
        query = str(next(self._numbers))
        client = Client(self.address, window=4096)
        client.send(request(f"/big?{query}"))
        asked = self._settled(query)
        client.reset()
        closed = self._noted(query, "closed")
        if not asked:
            return "no answer", "no answer"
        held = "yes" if asked < BLOCKS - 1 else "no: all is in memory"
        return held, "yes" if closed else "no"

    def _settled(self, query: str) -> int:
        path = self._note(query, "asked")
        last, since, end = "", time.monotonic(), time.monotonic() + DEADLINE
        while time.monotonic() < end:
            now = path.read_text() if path.exists() else ""
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > (QUIET if last else SHORT):
                break
            time.sleep(0.01)
        return int(last or 0)

    def _noted(self, query: str, name: str) -> str:
        path = self._note(query, name)
        end = time.monotonic() + 2 * SHORT
        while time.monotonic() < end:
            if path.exists() and (text := path.read_text()):
                return text
            time.sleep(0.01)
        return ""

    def departure(self) -> str:
        """Return whether a wait is ended when the client leaves."""
        query = str(next(self._numbers))
        client = Client(self.address)
        client.sock.settimeout(SHORT)
        client.send(request(f"/left?{query}", version="1.0"))
        if not self._noted(query, "waits"):
            client.close()
            return "no answer"
        client.reset()
        return "yes" if self._noted(query, "left") == "ClientDisconnected" else "no"
