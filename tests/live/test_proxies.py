"""Behind real proxies, as the pages configure them: who the client is, whatever it says."""

import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import snippets_of
from tests.live.conftest import Start
from tests.live.processes import Program, get
from tests.ports import free_port
from tests.served import Client, Response, request, until

APPLICATION = """
def app(environ, start_response):
    keys = ("wsgi.url_scheme", "REMOTE_ADDR", "HTTP_HOST", "SCRIPT_NAME", "bide.proxy")
    text = " ".join(repr(environ.get(key)) for key in keys)
    start_response("200 OK", [])
    return [text.encode()]
"""
PROXY = "127.0.0.3"
"""Where HAProxy connects from."""
FORGED = (
    "X-Forwarded-For: 192.0.2.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: forged.example",
    "X-Forwarded-Port: 81",
    "X-Forwarded-Prefix: /forged",
    "Forwarded: for=192.0.2.8;proto=https;host=forged.example",
)


def snippet(page: str, language: str, having: str) -> str:
    """Return a configuration from a page."""
    found = [each.text for each in snippets_of(page) if each.language == language]
    (text,) = [each for each in found if having in each]
    return text


def proxied(program: str, start: Start, *arguments: str) -> Program:
    """Start a proxy; skip the test where there is none."""
    command = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if command is None:
        pytest.skip(f"{program} is not installed")
    return start(*arguments, program=[command])


def answers(port: int) -> Response:
    """Ask through a proxy, which may still be starting, with all that a client may forge."""

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    until(listens, "the proxy does not listen")
    client = Client(f"127.0.0.1:{port}")
    try:
        client.send(request("/", headers=FORGED))
        return client.response()
    finally:
        client.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with the application."""
    (tmp_path / "shop.py").write_text(APPLICATION)
    return tmp_path


def test_behind_nginx_the_client_is_who_has_connected_to_it(start: Start, directory: Path) -> None:
    """With the configuration of the page on deployment, over a Unix socket."""
    port = free_port()
    path = directory / "bide.sock"
    text = snippet("docs/deployment.md", "nginx", "upstream")
    text = text.replace("/run/shop/bide.sock", str(path)).replace("listen 80", f"listen {port}")
    assert str(path) in text
    log = directory / "error.log"
    places = "".join(
        f"{each}_temp_path {directory}/{each};\n"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {directory}/nginx.pid;\nerror_log {log};\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{places}{text}}}\n"
    )
    bide = start("shop:app", "--bind", f"unix:{path}", "--trust", "unix:")
    bide.serving()
    conf = str(directory / "nginx.conf")
    nginx = proxied("nginx", start, "-p", str(directory), "-e", str(log), "-c", conf)
    assert answers(port).text == "'http' '127.0.0.1' 'test' '' ''"
    nginx.signal(signal.SIGQUIT)
    nginx.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.1 is the only loopback address")
@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_behind_haproxy_the_client_is_who_has_connected_to_it(
    mode: str, start: Start, directory: Path
) -> None:
    """With the configurations of the pages: by headers, and by the PROXY protocol."""
    port = free_port()
    options = ["--proxy-protocol"] if mode == "tcp" else ["--ready", "/ready"]
    bide = start("shop:app", "--bind", "127.0.0.1:0", "--trust", PROXY, *options)
    address = bide.serving()
    page = "docs/proxies.md" if mode == "tcp" else "docs/deployment.md"
    text = snippet(page, "haproxy", f"mode {mode}")
    text = re.sub("server two .*", "", text)
    text = re.sub(r"bind :\d+", f"bind 127.0.0.1:{port}", text)
    # The client is not the proxy, and is not trusted. Checks are quick, so that there are some;
    # with the PROXY protocol they come with LOCAL.
    text = re.sub(r"server one \S+", f"server one {address} source {PROXY} inter 50ms", text)
    times = "defaults\ntimeout connect 20s\ntimeout client 20s\ntimeout server 20s\n"
    (directory / "haproxy.cfg").write_text(f"global\nmaxconn 100\n{times}{text}")
    proxied("haproxy", start, "-db", "-f", str(directory / "haproxy.cfg"))
    assert answers(port).text == f"'http' '127.0.0.1' 'test' '' '{PROXY}'"
    assert get(address).text == "'http' '127.0.0.1' 'test' '' None"
    bide.signal(signal.SIGTERM)
    assert bide.wait() == 0
    assert not [line for line in bide.lines if "PROXY" in line]
