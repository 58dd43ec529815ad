"""``bide top`` beside a real server: what it shows is what the server says of itself."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from bide.seeing.client import ask
from tests.live.conftest import Start
from tests.live.processes import PROGRAM
from tests.served import DEADLINE, Client, request, until

SOURCE = """
import asyncio, bide

async def never():
    await asyncio.get_running_loop().create_future()

def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        bide.wait(never())
    with open("gate") as gate:
        gate.read()
    start_response("200 OK", [])
    return []
"""
WAITING = 20
BLOCKING = 2


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_top_shows_what_the_server_says(
    start: Start, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    """Each request in its state, on its thread, while every thread is blocked; of all workers."""
    (tmp_path / "mysite.py").write_text(SOURCE)
    os.mkfifo(tmp_path / "gate")
    path = tmp_path / "control"
    server = start(
        *("mysite:app", "--bind", "127.0.0.1:0", "--threads", "1", "--control", str(path)),
        *workers,
    )
    address = server.serving()
    clients = [Client(address) for _ in range(WAITING + BLOCKING)]
    for client in clients[:WAITING]:
        client.send(request("/wait?%1b[31m"))

    def states() -> list[str]:
        found = ask(str(path), "status")["workers"]
        return [each["state"] for worker in found for each in worker["requests"]]

    until(lambda: states().count("waiting") == WAITING)
    for client in clients[WAITING:]:
        client.send(request("/block"))
    until(lambda: len(states()) == len(clients))
    done = subprocess.run(
        [*PROGRAM, "top", str(path)], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^(\d+-\d+) .*", done.stdout, re.MULTILINE)
    assert len(set(rows)) == len(rows) == len(clients)
    assert (
        len(re.findall(r" waiting coroutine never +thread-\d+ +GET /wait", done.stdout)) == WAITING
    )
    assert len(re.findall(r"(?:running|blocked|queued) .*GET /block", done.stdout)) >= BLOCKING
    assert re.search(rf"\b{WAITING} waiting\b", done.stdout)
    for client in clients:
        client.close()
    with open(tmp_path / "gate", "w"):  # those that block go on, and those that begin now do
        (tmp_path / "open").touch()
        (tmp_path / "open").rename(tmp_path / "gate")
