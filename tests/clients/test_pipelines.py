"""Requests that are sent before the answers have come, by the clients that do so: wrk and h11."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest

from tests.clients.site import MANY, Site
from tests.conftest import Serve
from tests.served import DEADLINE

WRK = shutil.which("wrk")
CONNECTIONS = 8
PIPELINE = 6
SCRIPT = r"""
local expected = {
    ["200 hello\n"] = true,
    ["200 POST /echo/length hello"] = true,
    ["200 POST /echo/chunks hello"] = true,
    ["200 data: 0\n\ndata: 1\n\ndata: 2\n\n"] = true,
    ["204 "] = true,
}
local threads = {}
wrong = 0

function setup(thread)
    table.insert(threads, thread)
end

function init(arguments)
    -- Each turn sends all of these, of every framing there is.
    asked = table.concat({
        wrk.format("GET", "/"),
        wrk.format("POST", "/echo/length", nil, "hello"),
        "POST /echo/chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            .. "5\r\nhello\r\n0\r\n\r\n",
        wrk.format("GET", "/events"),
        wrk.format("GET", "/204"),
        wrk.format("POST", "/hello/unread", nil, string.rep("x", 5000)),
    })
end

function request()
    return asked
end

function response(status, headers, body)
    if not expected[status .. " " .. body] then
        wrong = wrong + 1
        print("unexpected: " .. status .. " " .. body)
    end
end

function done(summary, latency, requests)
    print("answered: " .. summary.requests)
    print("wrong: " .. threads[1]:get("wrong"))
    for name, number in pairs(summary.errors) do
        print(name .. ": " .. number)
    end
end
"""


def test_wrk_gets_right_answers_and_no_errors(serve: Serve, tmp_path: Path) -> None:
    """Six requests at a time on eight connections for a second: each answer is one of these.

    wrk and the application count alike, but for what was on its way at the end.
    """
    if WRK is None:
        pytest.skip("wrk is not installed (on Debian: apt install wrk)")
    site = Site()
    for gate in site.gates:
        gate.open()
    served = serve(site)
    script = tmp_path / "pipeline.lua"
    script.write_text(SCRIPT)
    arguments = [WRK, "-t1", f"-c{CONNECTIONS}", "-d1s", "-s", str(script), served.url]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=DEADLINE)
    assert not run.returncode, run.stderr
    lines = [line.partition(": ") for line in run.stdout.splitlines()]
    counted = {name: value for name, _, value in lines}
    answered = int(counted.pop("answered"))
    errors = ("connect", "read", "write", "status", "timeout", "wrong")
    assert {name: counted.get(name) for name in errors} == dict.fromkeys(errors, "0"), run.stdout
    served.until_idle()
    assert answered > PIPELINE * CONNECTIONS
    assert answered <= len(site.visits) <= answered + PIPELINE * CONNECTIONS


def answers(sock: socket.socket, number: int) -> Iterator[bytes]:
    """Read so many responses from a connection, by a state of h11's for each."""
    rest = b""
    for _ in range(number):
        state = h11.Connection(h11.CLIENT)
        state.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
        state.send(h11.EndOfMessage())
        if rest:
            state.receive_data(rest)
        body = b""
        while not isinstance(event := state.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                state.receive_data(sock.recv(65536))
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        rest = state.trailing_data[0]
        yield body
    assert not rest


def test_h11_gets_the_answers_of_a_pipeline_in_order(serve: Serve) -> None:
    """Twenty requests in one piece, each body with its length or in chunks."""
    asked = b""
    for number, path in enumerate(MANY):
        state = h11.Connection(h11.CLIENT)
        length = ("Transfer-Encoding", "chunked") if number % 2 else ("Content-Length", "4")
        head = h11.Request(method="POST", target=path, headers=[("Host", "x"), length])
        for event in (head, h11.Data(data=b"%04d" % number), h11.EndOfMessage()):
            asked += state.send(event) or b""
    served = serve(Site())
    host, _, port = served.address.rpartition(":")
    with socket.create_connection((host, int(port)), DEADLINE) as sock:
        sock.sendall(asked)
        assert list(answers(sock, len(MANY))) == [
            f"POST {path} {number:04}".encode() for number, path in enumerate(MANY)
        ]
