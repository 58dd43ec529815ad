"""Developing with --reload: real files, real processes."""

import os
import signal
from pathlib import Path

from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import Client, request, until

SOURCE = """
import os

def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{text} {{os.getpid()}}".encode()]
"""
OPTIONS = ("mysite:app", "--bind", "127.0.0.1:0", "--reload", "--drain-delay", "1000")


def test_the_server_follows_its_source_and_nobody_is_refused(start: Start, tmp_path: Path) -> None:
    """A syntax error is shown, and requests wait until it is mended. Control-C ends all."""
    source = tmp_path / "mysite.py"
    source.write_text(SOURCE.format(text="first"))
    program = start(*OPTIONS, PYTHONDONTWRITEBYTECODE="1")
    address = program.serving()
    text, _, child = get(address).text.partition(" ")
    assert (text, int(child) != program.pid) == ("first", True)
    os.kill(int(child), signal.SIGINT)  # Control-C reaches it too, and its parent answers
    source.write_text("def (")
    program.until("restarting the server: mysite.py has changed")
    program.until("cannot import mysite: SyntaxError")
    program.until("the server has ended with code 1: a change restarts it")
    waiting = Client(address)
    waiting.send(request())
    source.write_text(SOURCE.format(text="second"))
    assert waiting.response().text.startswith("second ")
    waiting.close()
    program.signal(signal.SIGINT)
    assert program.wait() == 0
    assert program.lines[-1].endswith("stopped")


def test_the_server_ends_when_its_parent_was_killed(start: Start, tmp_path: Path) -> None:
    """Else it would hold the address, and nobody would see it."""
    (tmp_path / "mysite.py").write_text(SOURCE.format(text="first"))
    program = start(*OPTIONS)
    address = program.serving()
    program.signal(signal.SIGKILL)

    def refused() -> bool:
        try:
            Client(address).close()
        except ConnectionRefusedError:
            return True
        return False

    until(refused)
