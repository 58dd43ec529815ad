"""Every load of our own clients, once and small, against a real Bide; no figure is looked at."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import servers
from benchmarks.certificate import CERTIFICATE, make_certificate
from benchmarks.command import choose_cores
from benchmarks.errors import CannotRunError, RoundFailedError
from benchmarks.loads import kind
from benchmarks.loads.beside import Beside
from benchmarks.loads.echoing import Echo
from benchmarks.loads.fan_out import FanOut
from benchmarks.loads.idling import IdleSockets
from benchmarks.loads.kind import Conditions, Load, Meter
from benchmarks.loads.requests import BROWSER, Requests
from benchmarks.loads.start_up import StartUp
from benchmarks.loads.streaming import Stream
from benchmarks.loads.transfers import Blocks, Upload
from benchmarks.processes import ServerProcess, find_free_port, start
from benchmarks.servers import WORKERS, Server
from tests.failures import Failures
from tests.served import until

LOADS: list[tuple[str, str, list[Load]]] = [
    (
        "transfers",
        "threads",
        [
            StartUp("/"),
            Blocks(count=40, size=1000, length=False),
            Blocks(count=40, size=1000, length=True),
            Upload(size=200_000, chunked=False),
            Upload(size=200_000, chunked=True),
        ],
    ),
    ("events_waiting", "threads", [FanOut(clients=3)]),
    ("events_waiting_async", "loop", [FanOut(clients=3)]),
    ("computing", "threads", [Beside("/sleep", views=1)]),
    ("both", "threads", [Stream("/live/events", "/slow", clients=2)]),
    ("echo_view", "threads", [Echo(clients=3, size=32)]),
    ("echo_asgi", "loop", [Echo(clients=3, size=32)]),
    ("flask_sockets", "threads", [IdleSockets(3, deflate=False), IdleSockets(3, deflate=True)]),
]


ANSWERING_OVER_TLS = """
import http.server
import ssl
import sys

class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Hello)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[2:])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def measure(server: Server, application: str, loads: list[Load]) -> list[set[str]]:
    cores = choose_cores(least=1)
    conditions = Conditions("no wrk", *cores, rounds=1, seconds=0.5, warm_up_seconds=0.0)
    port = find_free_port()
    argv = server.argv(f"benchmarks.applications.{application}:app", port)
    with start(argv, port, cores[0]) as process:
        return [
            {figure.name for figure in load.measure(process, conditions).figures} for load in loads
        ]


def await_processes(process: ServerProcess, number: int) -> None:
    until(lambda: len(process.processes()) == number, f"{number} processes")


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_a_server_with_workers_is_measured_with_all_its_processes() -> None:
    """The supervisor and its workers, and with --preload the process that they are forked from."""
    make_certificate()
    load = Requests("/", connections=8)
    conditions = Conditions(shutil.which("wrk") or "", *choose_cores(1, WORKERS), 1, 1.0, 1.0)
    with Failures() as failures:
        for server, others in [
            (servers.bide_workers, 1),
            (servers.bide_preloaded.over_tls(), 2),
        ]:
            with failures.of(server.label):
                port = find_free_port()
                argv = server.argv("benchmarks.applications.hello:app", port)
                certificate = CERTIFICATE if server.tls else None
                with start(argv, port, conditions.server_cores, None, certificate) as process:
                    assert set(load.measure(process, conditions).figures) == set(load.columns)
                    await_processes(process, WORKERS + others)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_server_with_tls_is_asked_over_it_and_must_have_the_runs_certificate(
    tmp_path: Path,
) -> None:
    """Else what answers on the port might be something else."""
    made = []
    for name in ("one", "other"):
        made.append((tmp_path / f"{name}.pem", tmp_path / f"{name}.key"))
        make_certificate(*made[-1])
    (certificate, key), (other, _) = made
    port = find_free_port()
    argv = [sys.executable, "-c", ANSWERING_OVER_TLS, str(port), str(certificate), str(key)]
    cores, _ = choose_cores(least=1)
    with start(argv, port, cores, certificate=certificate) as process:
        assert process.origin == f"https://127.0.0.1:{port}"
        process.await_answer("/")
        with (
            start(["sleep", "600"], port, cores, certificate=other) as absent,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            absent.fetch("/", timeout=60.0)


def test_without_openssl_a_run_with_tls_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the only program that nothing else needs."""

    def run(*arguments: Any, **settings: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(CannotRunError, match="openssl is not installed"):
        make_certificate()


class Idle:
    """What stands for a server that has used no CPU."""

    def cpu_seconds(self) -> float:
        """Return none."""
        return 0.0

    def check_alive(self) -> None:
        """Find it alive."""


def test_clients_on_the_servers_cores_are_not_among_the_others_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where they share them; else they are elsewhere. The share is of all the server's cores."""
    clock = {"now": 0.0, "busy": 0.0, "own": 0.0}
    monkeypatch.setattr(kind, "busy_seconds", lambda core: clock["busy"])
    monkeypatch.setattr(kind, "own_seconds", lambda: clock["own"])
    monkeypatch.setattr(time, "monotonic", lambda: clock["now"])
    with Failures() as failures:
        for server_cores, client_cores, share in [
            ({0, 1}, {0, 1}, 0.35),
            ({1, 2}, {0}, 0.5),
            ({1}, {0}, 0.5),
        ]:
            with failures.of((server_cores, client_cores)):
                clock.update(now=0.0, busy=0.0, own=0.0)
                cores = frozenset(server_cores), frozenset(client_cores)
                idle: Any = Idle()
                with Meter(idle, Conditions("no wrk", *cores, 1, 1.0, 0.0)) as meter:
                    # Each core was busy half the time; all clients for 3 of 10 seconds.
                    clock.update(now=10.0, busy=5.0, own=3.0)
                assert meter.foreign_share == pytest.approx(share)


def test_every_load_gives_the_figures_of_its_table() -> None:
    """One that lost a column would be a column of dashes."""
    with Failures() as failures:
        for application, executor, loads in LOADS:
            server = servers.bide_threads if executor == "threads" else servers.bide_loop
            with failures.of(f"{application}, {executor}"):
                wanted = [{figure.name for figure in load.columns} for load in loads]
                assert measure(server, application, loads) == wanted


def test_a_body_that_did_not_arrive_whole_fails_its_round() -> None:
    """Else a server that cuts streams and bodies short would be the fastest."""
    limited = replace(
        servers.bide_threads, command=servers.bide_threads.command + " --limit-body 1000"
    )
    for load in (Upload(size=200_000, chunked=False), Upload(size=200_000, chunked=True)):
        with pytest.raises(RoundFailedError):
            measure(limited, "transfers", [load])
    with pytest.raises(RoundFailedError, match="14 bytes of a stream of 2,000 arrived"):
        measure(servers.bide_threads, "hello", [Blocks(count=40, size=1000, length=True)])


def test_a_browsers_headers_are_thirteen_beside_host() -> None:
    """The titles say fourteen; none comes twice."""
    names = [re.match(r"([A-Za-z-]+): \S", header) for header in BROWSER]
    assert len({name[1] for name in names if name}) == 13
