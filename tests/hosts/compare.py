"""The measured table of ``docs/comparison.md``: waits, stalling clients, stops, malformed requests.

``make comparison`` runs this, with the servers of :data:`COMMANDS`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.hosts.compare_site import SECONDS
from tests.hosts.wsgi_hosts import NO_UWSGI, PROJECT, uwsgi
from tests.ports import free_port
from tests.samples import tables
from tests.served import DEADLINE, Client, request, until

PAGE: Final = PROJECT / "docs" / "comparison.md"
MARK: Final = "<!-- comparison -->\n"
END: Final = "<!-- end -->"
CLIENTS: Final = 100
PATIENCE: Final = 5.0
"""Seconds that a new client waits beside those that stall."""
QUIET: Final = 0.5
"""Seconds of silence after which no more answers to a sample are expected."""

_SITE: Final = "tests.hosts.compare_site"
COMMANDS: Final[dict[str, str]] = {
    "Bide": f"bide {_SITE}:application --bind 127.0.0.1:PORT --threads 4 --limit-threads 4",
    "gunicorn, threads": f"gunicorn {_SITE}:application -b 127.0.0.1:PORT -k gthread --threads 4",
    "gunicorn, gevent": f"gunicorn {_SITE}:application -b 127.0.0.1:PORT -k gevent",
    "granian": f"granian {_SITE}:application --interface wsgi --host 127.0.0.1 --port PORT "
    "--blocking-threads 4",
    "waitress": f"waitress --listen 127.0.0.1:PORT --threads 4 {_SITE}:application",
    "uWSGI": f"uwsgi --http-socket 127.0.0.1:PORT --module {_SITE}:application --threads 4 "
    "--master --die-on-term",
    "hypercorn": f"hypercorn wsgi:{_SITE}:application --bind 127.0.0.1:PORT",
    "uvicorn, ASGI": f"uvicorn {_SITE}:asgi --host 127.0.0.1 --port PORT",
}
"""The servers, and the command that starts each."""


@contextlib.contextmanager
def running(name: str, directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a server; bring its process and address; end it."""
    address = f"127.0.0.1:{free_port()}"
    words = COMMANDS[name].replace("127.0.0.1:PORT", address).split()
    words = [each.replace("PORT", address.rpartition(":")[2]) for each in words]
    program = [sys.executable, "-m", words[0]]
    if words[0] == "uwsgi":
        packages = sysconfig.get_path("purelib")
        program = [uwsgi() or "uwsgi", "--pythonpath", str(PROJECT), "--pythonpath", packages]
    with (directory / "out").open("wb") as out:
        process = subprocess.Popen(
            [*program, *words[1:]],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        until(lambda: _status(address, "/") == 200, f"{name} does not serve")
        yield process, address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE)


def _status(address: str, path: str, patience: float = DEADLINE * 2) -> int:
    """Return the status that a new client gets; 0 for none in that time."""
    try:
        client = Client(address)
    except OSError:
        return 0
    client.sock.settimeout(patience)
    try:
        client.send(request(path, headers=["Connection: close"]))
        return client.response().status
    except (AssertionError, ValueError, OSError):
        return 0
    finally:
        client.close()


def waits(address: str) -> str:
    """Return after how many seconds a hundred requests that wait for one are answered."""
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        statuses = list(pool.map(lambda _: _status(address, "/wait"), range(CLIENTS)))
    good = statuses.count(200)
    return f"{time.monotonic() - began:.1f} s" if good == CLIENTS else f"{good} answered"


def stalls(address: str) -> str:
    """Return whether a new client is answered while a hundred stand in their headers."""
    clients = [Client(address) for _ in range(CLIENTS)]
    try:
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n")
        time.sleep(QUIET)  # until the server has taken them
        return "yes" if _status(address, "/", PATIENCE) == 200 else "no"
    finally:
        for client in clients:
            client.close()


def stops(process: subprocess.Popen[bytes], address: str) -> str:
    """Return whether a request that waits is answered when the server is told to stop."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_status, address, "/wait")
        time.sleep(SECONDS / 2)
        process.send_signal(signal.SIGTERM)
        return "yes" if answer.result() == 200 else "no"


def accepts(address: str) -> str:
    """Return how many of the malformed samples are answered as if they were good."""
    samples = malformed()
    with ThreadPoolExecutor(8) as pool:
        good = list(pool.map(lambda each: _good(address, each.data), samples))
    taken = sum(count > sample.good for count, sample in zip(good, samples, strict=True))
    return f"{taken} of {len(samples)}"


def malformed() -> list[tables.Sample]:
    """Return the samples that RFC 9110 or 9112 rules out; none that only a limit refuses."""
    return [
        each
        for each in tables.rejected()
        if each.status == 400 and any("RFC 91" in source for source in each.source)
    ]


def _good(address: str, data: bytes) -> int:
    """Return how many good answers some bytes get."""
    client = Client(address)
    client.sock.settimeout(QUIET)
    received = b""
    try:
        client.send(data)
        while block := client.sock.recv(65536):
            received += block
    except OSError:
        pass  # it is silent now, or has left
    finally:
        client.close()
    return len(re.findall(rb"HTTP/1\.[01] 2\d\d", received))


ROWS: Final = (
    f"{CLIENTS} requests at once, each waits 1 s: all are answered after",
    f"A new client is answered while {CLIENTS} others stall in their headers",
    "SIGTERM: a request that waits is still answered",
    "Malformed requests answered as if they were good",
)


def measure(name: str, directory: Path) -> list[str]:
    """Measure a server; return its cells."""
    with running(name, directory) as (_, address):
        cells = [waits(address), stalls(address)]
    with running(name, directory) as (process, address):
        bad = accepts(address)
        return [*cells, stops(process, address), bad]


def main() -> None:
    """Measure one server after the other, and write the table."""
    assert uwsgi(), NO_UWSGI
    with tempfile.TemporaryDirectory() as directory:
        columns = [measure(name, Path(directory)) for name in COMMANDS]
    lines = ["| | " + " | ".join(COMMANDS) + " |", "|---" * (len(COMMANDS) + 1) + "|"]
    for row, cells in zip(ROWS, zip(*columns, strict=True), strict=True):
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    text = before + mark + "\n".join(lines) + "\n" + END + rest.partition(END)[2]
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
