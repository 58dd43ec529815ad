"""The server is replaced when its source changes, and only then."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bide.errors import StartError
from bide.process import reloading
from bide.process.reloading import Child, Look, replace, replace_on_change
from bide.settings import Settings
from bide.transports.handed_over import HandedOver
from tests.failures import Failures, same
from tests.served import until

NOTHING: Look = ()
CHANGE: Look = {("modified", os.path.abspath("shop.py"))}


class Scripted(Child):
    """Has no process: it ends with the codes of a script, of which each look takes one.

    Attributes:
        told: what it was told.
    """

    def __init__(self, codes: list[int | None]) -> None:
        super().__init__({}, [])
        self._codes = codes
        self.told: list[str] = []

    def start(self) -> None:
        """Note."""
        self.told.append("start")

    def replace(self) -> None:
        """Note."""
        self.told.append("replace")

    def ended(self) -> int | None:
        """Take the next code."""
        return self._codes.pop(0)

    def wait(self) -> int:
        """Note."""
        self.told.append("wait")
        return 7


def test_a_server_is_replaced_at_a_change_and_waited_for_when_it_has_failed() -> None:
    """One that has ended without a failure was meant to, and so does all."""
    with Failures() as failures:
        cases: list[tuple[str, list[Look], list[int | None], list[str], int]] = [
            ("a change", [NOTHING, CHANGE, NOTHING], [None] * 3, ["start", "replace", "wait"], 7),
            (
                "a failure",
                [NOTHING, NOTHING, CHANGE],
                [None, 1, None],
                ["start", "replace", "wait"],
                7,
            ),
            ("its own end", [NOTHING, NOTHING, CHANGE], [None, 0], ["start"], 0),
            ("a change before the start", [CHANGE, NOTHING], [None] * 2, ["start", "wait"], 7),
        ]
        for what, looks, codes, told, code in cases:
            child = Scripted(codes)
            with failures.of(what):
                same(replace(child, looks), code)
                same(child.told, told)


def test_no_server_is_started_once_it_is_asked_to_stop() -> None:
    """Also if a file has changed meanwhile."""
    child = Scripted([None])

    def looks() -> Iterator[Look]:
        yield NOTHING
        child.asked.set()
        yield CHANGE

    same(replace(child, looks()), 7)
    same(child.told, ["start", "wait"])


def test_a_signal_is_passed_on_also_where_it_comes_before_the_server() -> None:
    """Whatever the order, the child ends."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(1000)"]
    for signal_first in (True, False):
        child = Child({}, [], sleeper)
        with child.signals():
            if signal_first:
                signal.raise_signal(signal.SIGINT)
            child.start()
            if not signal_first:
                signal.raise_signal(signal.SIGINT)
            assert child.wait() == 128 + signal.SIGTERM


def test_a_server_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that hangs must not keep its developer waiting."""
    monkeypatch.setattr(reloading, "PATIENCE", 0.0)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); "
        "open('ready', 'w'); time.sleep(1000)"
    )
    child = Child({}, [], [sys.executable, "-c", stubborn])
    child.start()
    process = child._process
    assert process is not None
    child._command = [sys.executable, "-c", ""]
    child.replace()
    assert process.returncode in (-signal.SIGKILL, -signal.SIGTERM)
    assert child.wait() == 0


def test_source_and_templates_count_and_what_is_installed_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was changed last shows that those before it did not count."""
    monkeypatch.setattr(reloading, "POLL", 10)
    child = Child({}, [])
    for directory in ("app", "venv", ".git", "more"):
        (tmp_path / directory).mkdir()
    looks: Any = reloading._looks(
        [tmp_path / "app", tmp_path / "venv", tmp_path / ".git"],
        [*reloading.PATTERNS, "*.css"],
        child.asked,
    )
    with closing(looks):
        assert next(looks) == set()
        for name in ("venv/x.py", ".git/x.py", "app/x.txt", "app/x.pyc", "app/page.html"):
            (tmp_path / name).write_text("x")
        names: set[str] = set()

        def seen(name: str) -> bool:
            names.update(os.path.relpath(path, tmp_path) for _, path in next(looks))
            return name in names

        until(lambda: seen("app/page.html"))
        for name in ("app/x.py", "app/x.css"):
            (tmp_path / name).write_text("x")
            until(lambda name=name: seen(name))  # type: ignore[misc]
        assert names == {"app/page.html", "app/x.py", "app/x.css"}
        child.asked.set()
        assert list(looks) == []


def test_without_watchfiles_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is listened on any more."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = Settings(bind=(f"127.0.0.1:{port}",))
    with pytest.raises(StartError, match=r"pip install 'bide\[reload\]'"):
        replace_on_change(settings, HandedOver(), [])
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_terminal_that_has_gone_ends_nothing_where_sighup_is_ignored() -> None:
    """As under nohup; the child has inherited that, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Child({}, []).signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
