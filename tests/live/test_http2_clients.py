"""Other people's clients and proxies over HTTP/2, as they come; skipped where one is missing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Serve
from tests.failures import same
from tests.live.conftest import Start
from tests.live.processes import Program
from tests.live.test_proxies import proxied
from tests.ports import free_port
from tests.served import DEADLINE, Environ, Served, answering, until
from tests.tls import certificates

PATH = f"{os.environ['PATH']}:/usr/sbin"
LARGE = 3_000_000
SOURCE = """
import time

def app(environ, start_response):
    size = 0
    while block := environ["wsgi.input"].read(65536):
        size += len(block)
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * 50_000]
"""


def told(environ: Environ) -> str:
    """Answer with the protocol, the scheme, and how large the body was."""
    size = 0
    while block := environ["wsgi.input"].read(65_536):
        size += len(block)
    return f"{environ['SERVER_PROTOCOL']} {environ['wsgi.url_scheme']} {size}"


def run(program: str, *arguments: str, seconds: float = 60.0) -> str:
    """Run a client to its end; return what it prints. Skip the test where it is missing."""
    command = shutil.which(program, path=PATH)
    if command is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [command, *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:], done.stdout[-500:])
    return done.stdout


def secure(served: Served, path: str = "/") -> str:
    """Return the URL of a server with TLS, by a name of its certificate."""
    return f"https://localhost:{served.address.rpartition(':')[2]}{path}"


def load(*arguments: str) -> tuple[int, int]:
    """Run h2load; return how many requests have succeeded, and how many have not."""
    text = run("h2load", *arguments)
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    assert found is not None, text
    succeeded, *others = map(int, found.groups())
    bad = re.search(r"(\d+) 4xx, (\d+) 5xx", text)
    assert bad is not None, text
    return succeeded, sum(others) + sum(map(int, bad.groups()))


@pytest.fixture
def upload(tmp_path: Path) -> str:
    """Return a file to be uploaded."""
    path = tmp_path / "upload"
    path.write_bytes(b"x" * LARGE)
    return str(path)


def test_curl_is_answered(serve: Serve, upload: str) -> None:
    """Over TLS, by prior knowledge, and by an Upgrade, which is left alone; and its uploads."""
    plain = serve(answering(told))
    ca = ("--silent", "--show-error", "--cacert", certificates().authority)
    prior = (*ca, "--http2-prior-knowledge")
    same(run("curl", *prior, plain.url), "HTTP/2 http 0")
    same(run("curl", *prior, "--data-binary", f"@{upload}", plain.url), f"HTTP/2 http {LARGE}")
    same(run("curl", *ca, "--http2", plain.url), "HTTP/1.1 http 0")
    served = serve(answering(told), **certificates().settings)
    same(run("curl", *ca, "--http2", secure(served)), "HTTP/2 https 0")
    same(run("curl", *ca, "--http2", "-T", upload, secure(served)), f"HTTP/2 https {LARGE}")
    same(run("curl", *ca, "--http1.1", secure(served)), "HTTP/1.1 https 0")
    same(run("curl", *prior, "--head", "--output", os.devnull, plain.url), "")


def test_curl_asks_many_at_once_on_one_connection(serve: Serve) -> None:
    """Its parallel transfers share it. Over TLS: in clear curl 7.88 loses them by itself."""
    ports: set[str] = set()

    def noting(environ: Environ) -> str:
        ports.add(environ["REMOTE_PORT"])
        return told(environ)

    served = serve(answering(noting), **certificates().settings)
    ca = ("-sS", "--cacert", certificates().authority)
    text = run("curl", *ca, "--http2", "--parallel", secure(served, "/[1-60]"))
    same(text.count("HTTP/2 https 0"), 60)
    same(len(ports), 1)


def test_nghttp_is_answered(serve: Serve, upload: str) -> None:
    """Which says what it gets, frame by frame."""
    served = serve(answering(told))
    text = run("nghttp", "--no-verify-peer", "-v", f"{served.url}/a", f"{served.url}/b")
    same((text.count(":status: 200"), text.count("HTTP/2 http 0")), (2, 2))
    assert "error_code=NO_ERROR" in text
    same(run("nghttp", f"--data={upload}", served.url).strip(), f"HTTP/2 http {LARGE}")


@pytest.mark.parametrize("window", [[], ["-w", "10"], ["-w", "12", "-W", "14"]])
def test_h2load_gets_every_answer(serve: Serve, window: list[str], tmp_path: Path) -> None:
    """A hundred streams on each connection, and windows that are much smaller than a response."""
    small = tmp_path / "small"
    small.write_bytes(b"x" * 30_000)
    served = serve(answering(lambda environ: told(environ).encode() + b"x" * 20_000))
    arguments = ["-n", "600", "-c", "2", "-m", "100", *window, served.url]
    same(load(*arguments), (600, 0))
    same(load("-d", str(small), *arguments), (600, 0))


def during(program: Program, number: signal.Signals, line: str, url: str) -> str:
    """Return what h2load prints that was running when a program was sent a signal."""
    command = shutil.which("h2load", path=PATH)
    if command is None:
        pytest.skip("h2load is not installed")
    with subprocess.Popen(
        [command, "-n", "1000", "-c", "4", "-m", "25", url], stdout=subprocess.PIPE, text=True
    ) as loading:
        assert loading.stdout is not None
        for printed in loading.stdout:
            if printed.startswith("progress: 20%"):
                break
        program.signal(number)
        program.until(line)
        text = loading.communicate(timeout=DEADLINE)[0]
    return text


@pytest.mark.parametrize(
    ("number", "line"),
    [(signal.SIGHUP, "all workers are new"), (signal.SIGTERM, "stopped")],
    ids=["replaced", "stopped"],
)
def test_what_h2load_has_begun_is_answered(
    number: signal.Signals, line: str, start: Start, tmp_path: Path
) -> None:
    """h2load counts as failed what it could not send behind the GOAWAY: that never came here."""
    (tmp_path / "loaded.py").write_text(SOURCE)
    options = ("--bind", "127.0.0.1:0", "--workers", "2", "--access-log", "access.log")
    program = start("loaded:app", *options)
    text = during(program, number, line, f"http://{program.serving()}/slow")
    found = re.search(r"(\d+) succeeded", text)
    assert found is not None, text
    succeeded = int(found[1])
    assert succeeded >= 200, text
    log = tmp_path / "access.log"
    until(lambda: log.read_text().count('/slow HTTP/2" ') == succeeded, text)
    same(log.read_text().count('/slow HTTP/2" 200 '), succeeded)


def test_behind_haproxy_nothing_is_lost_when_the_workers_are_replaced(
    start: Start, tmp_path: Path
) -> None:
    """It connects again, and what it had begun is answered."""
    (tmp_path / "loaded.py").write_text(SOURCE)
    program = start("loaded:app", "--bind", "127.0.0.1:0", "--workers", "2")
    url = haproxy(program.serving(), "proto h2", start, tmp_path)
    text = during(program, signal.SIGHUP, "all workers are new", url + "slow")
    assert "1000 succeeded, 0 failed, 0 errored" in text, text
    assert "1000 2xx" in text, text


def test_httpx_is_answered(serve: Serve) -> None:
    """With many requests on one connection, and an upload."""
    served = serve(answering(told), **certificates().settings)
    context = certificates().context()
    with httpx.Client(http2=True, verify=context, trust_env=False, timeout=DEADLINE) as client:
        for _ in range(20):
            response = client.get(secure(served))
            same((response.http_version, response.text), ("HTTP/2", "HTTP/2 https 0"))
        same(client.post(secure(served), content=b"x" * LARGE).text, f"HTTP/2 https {LARGE}")


def haproxy(address: str, how: str, start: Start, directory: Path) -> str:
    """Start HAProxy in front of a server; return its URL."""
    port = free_port()
    (directory / "haproxy.cfg").write_text(
        "global\nmaxconn 100\n"
        "defaults\nmode http\ntimeout connect 20s\ntimeout client 20s\ntimeout server 20s\n"
        f"frontend front\nbind 127.0.0.1:{port}\ndefault_backend back\n"
        f"backend back\nserver one {address} {how}\n"
    )
    proxied("haproxy", start, "-db", "-f", str(directory / "haproxy.cfg"))

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    until(listens, "the proxy does not listen")
    return f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize("tls", [False, True])
def test_haproxy_speaks_it_with_the_server(
    tls: bool, serve: Serve, start: Start, tmp_path: Path
) -> None:
    """In clear and over TLS; clients of HTTP/1 and HTTP/2 before it."""
    served = serve(answering(told), **(certificates().settings if tls else {}))
    how = "ssl verify none alpn h2" if tls else "proto h2"
    url = haproxy(served.address, how, start, tmp_path)
    expected = f"HTTP/2 {'https' if tls else 'http'}"
    with httpx.Client(trust_env=False, timeout=DEADLINE) as client:
        same(client.get(url).text, f"{expected} 0")
        same(client.post(url, content=b"x" * LARGE).text, f"{expected} {LARGE}")
        same(client.head(url).status_code, 200)
        same(client.get(f"{url}a%b").status_code, 200)
    if shutil.which("h2load", path=PATH):
        same(load("-n", "500", "-c", "4", "-m", "50", url), (500, 0))


def test_a_browser_loads_a_page_over_one_connection(serve: Serve, tmp_path: Path) -> None:
    """Headless Chromium, with a page that has fifty resources."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    asked: list[tuple[str, Any, Any]] = []
    scripts = "".join(f'<script src="/{number}.js"></script>' for number in range(50))

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        asked.append((path, environ["SERVER_PROTOCOL"], environ["REMOTE_PORT"]))
        kind = "text/javascript" if path.endswith(".js") else "text/html"
        start_response("200 OK", [("Content-Type", kind)])
        if path.endswith(".js"):
            return [b"window.loaded = (window.loaded || 0) + 1; document.title = window.loaded"]
        return [f"<!DOCTYPE html><html><head>{scripts}</head><body></body></html>".encode()]

    served = serve(application, **certificates().settings)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"]
    options += ["--no-proxy-server", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/user"]
    text = run(browser, *options, "--dump-dom", secure(served))
    assert "<title>50</title>" in text, text[-300:]
    resources = [each for each in asked if each[0].endswith(".js")]
    same({protocol for _, protocol, _ in resources}, {"HTTP/2"})
    same((len(resources), len({port for _, _, port in resources})), (50, 1))
