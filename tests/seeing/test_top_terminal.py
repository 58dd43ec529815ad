"""``bide top`` in a pseudo-terminal, and without one: what it does to the terminal, and when."""

import os
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bide.seeing import top_terminal
from bide.seeing.top import GONE, NEEDED
from bide.seeing.top_keys import KEYS
from bide.seeing.top_terminal import Terminal
from tests.failures import Failures, same
from tests.seeing.pseudo_terminal import Screen, Told
from tests.seeing.viewed import instance, parked_and_blocked, request, snapshot, thread
from tests.served import DEADLINE

TOP = ("-m", "bide", "top", "--interval", "3600")
"""Nothing is drawn because of the time; a server that says nothing has not ended."""


def asking(target: str) -> dict[str, Any]:
    """Return what a server says that has one request."""
    return instance(snapshot([request(1, target=target)], [thread("thread-1")]))


def test_top_draws_what_fits_and_follows_the_terminals_size(tmp_path: Path) -> None:
    """A new size wakes it, whatever the server says meanwhile."""
    path = tmp_path / "control"
    with Told(path, parked_and_blocked()), Screen(*TOP, str(path)) as screen:
        screen.until("… 991 more")
        screen.resize(120, 40)
        screen.until("… 975 more")
        screen.resize(40, 10)
        screen.until("… 1,002 more")
        screen.press("q")
        same(screen.end(), 0)
        assert screen.is_put_back()


def test_top_stands_still_while_it_is_paused_and_filters_what_is_typed(tmp_path: Path) -> None:
    """Keys work on a picture that stands still; the next picture is the newest."""
    path = tmp_path / "control"
    with Told(path, asking("/first")) as server, Screen(*TOP, str(path)) as screen:
        screen.until("/first")
        screen.press("p")
        screen.until("PAUSED")
        server.say(asking("/second"))
        screen.press("/nowhere")
        screen.until("have “nowhere” in them")
        screen.press("\x1b")
        screen.until("/first")
        assert "/second" not in screen.written
        screen.press("p")
        screen.until("/second")
        screen.press("q")
        same(screen.end(), 0)
        assert screen.is_put_back()


def test_top_puts_the_terminal_back_whatever_ends_it(tmp_path: Path) -> None:
    """A key, a key's signal, a signal from elsewhere, an error of its own."""
    path = tmp_path / "control"
    # What ends it, what it prints then, and its exit code.
    breaking = "import sys, bide.seeing.top_picture as it; from bide.cli import main\n"
    breaking += "it.picture = None; main(['top', sys.argv[1]])"
    with Told(path, asking("/here")), Failures() as failures:
        for keys in ("q", "\x03", "\x1c"):
            with failures.of(repr(keys)), Screen(*TOP, str(path)) as screen:
                screen.until("/here")
                screen.press(keys)
                same((screen.end(), screen.is_put_back()), (0, True))
        for number in (signal.SIGTERM, signal.SIGHUP):
            with failures.of(number.name), Screen(*TOP, str(path)) as screen:
                screen.until("/here")
                screen.signal(number)
                same((screen.end(), screen.is_put_back()), (0, True))
        with failures.of("an error"), Screen("-c", breaking, str(path)) as screen:
            same((screen.end(), screen.is_put_back()), (1, True))
            assert "TypeError" in screen.written.rpartition("\x1b[?1049l")[2]


def test_top_gives_the_terminal_back_while_it_is_suspended(tmp_path: Path) -> None:
    """The shell has it then; a program that goes on takes it again."""
    path = tmp_path / "control"
    with Told(path, asking("/here")), Screen(*TOP, str(path)) as screen:
        screen.until("/here")
        screen.press("\x1a")
        screen.until("\x1b[?1049l")
        os.waitid(os.P_PID, screen.process.pid, os.WSTOPPED)
        assert screen.is_put_back()
        screen.signal(signal.SIGCONT)
        screen.until("/here")
        assert not screen.is_put_back()
        screen.press("q")
        same((screen.end(), screen.is_put_back()), (0, True))


@pytest.mark.parametrize("late", [False, True])
def test_nothing_is_drawn_between_the_suspension_and_its_end(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Of several threads the one that stops them all may go on for a moment: the late order."""
    master, end = os.openpty()
    before = termios.tcgetattr(end)
    resumed: list[bool] = []

    def resume() -> None:
        resumed.append(True)
        signal.raise_signal(signal.SIGCONT)

    def select_and_resume(*arguments: Any) -> Any:
        if len(stopped) > len(resumed):
            resume()
        return select.select(*arguments)

    stopped: list[int] = []

    def stop(_: int, number: int) -> None:
        stopped.append(number)
        if not late:
            resume()

    with (
        open(end, closefd=False) as keyboard,
        open(end, "w", closefd=False) as screen,
        Terminal(keyboard, screen) as terminal,
    ):
        monkeypatch.setattr(top_terminal, "select", SimpleNamespace(select=select_and_resume))
        monkeypatch.setattr(top_terminal, "os", SimpleNamespace(**{**vars(os), "kill": stop}))
        signal.raise_signal(signal.SIGTSTP)
        same(list(terminal.wait()), [])
        same((stopped, resumed), ([signal.SIGSTOP], [True]))
        assert termios.tcgetattr(end) != before
        monkeypatch.undo()
    same(termios.tcgetattr(end), before)
    os.close(master)
    os.close(end)


def test_top_says_that_the_server_has_ended_and_waits_for_it(tmp_path: Path) -> None:
    """It looks again for the same path; keys work meanwhile."""
    path = tmp_path / "control"
    with Screen(*TOP, str(path)) as screen:
        same(screen.end(), 1)
        assert "bide: no server answers at" in screen.written
    with Told(path, asking("/first")) as server, Screen(*TOP, str(path)) as screen:
        screen.until("/first")
        server.end()
        screen.until(GONE)
        with Told(path, asking("/second")) as server:
            screen.until("/second")
            screen.press("?")
            screen.until(KEYS[0].does)
            assert GONE not in screen.written.rpartition("/second")[2]
            server.end()
            screen.until(GONE)
            screen.press("q")
            same((screen.end(), screen.is_put_back()), (0, True))


def printed(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python without a terminal."""
    return subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )


def test_top_prints_all_once_where_there_is_no_terminal(tmp_path: Path) -> None:
    """As in a pipe; no escape sequence is there."""
    path = tmp_path / "control"
    evil = "/\x1b]0;mine\x07\x9b31m\u202e\r\n"
    with Told(path, parked_and_blocked()) as server:
        done = printed(*TOP, str(path))
        same((done.returncode, done.stderr), (0, ""))
        same(done.stdout.count("GET /wait?seconds="), 1000)
        server.say(asking(evil))
        done = printed(*TOP, str(path))
    same((done.returncode, done.stderr), (0, ""))
    assert "GET /\\x1b]0;mine\\x07\\x9b31m\\u202e\\x0d\\x0a" in done.stdout
    assert all(each.isprintable() for each in done.stdout.split("\n"))


def test_top_says_what_to_install_when_rich_is_missing(tmp_path: Path) -> None:
    """In one line; every other command works without it."""
    script = "import sys; sys.modules['rich'] = None; from bide.cli import main; main(sys.argv[1:])"
    done = printed("-c", script, "top", str(tmp_path / "control"))
    same((done.returncode, done.stdout, done.stderr), (1, "", f"bide: {NEEDED}\n"))
    same(printed("-c", script, "--version").returncode, 0)
