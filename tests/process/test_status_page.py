"""The process of the status page as the server sees it, with processes that are made by hand."""

import dataclasses
import json
import select
import socket
from pathlib import Path
from typing import Any

import pytest

from bide.errors import BindError, SettingError
from bide.process.control import Answers, Reply
from bide.process.status_page import LATE, SOON, StatusPage
from bide.process.status_place import Place
from bide.settings import Settings
from tests.failures import Failures
from tests.served import Log

TOKEN = "correct-horse-battery"


class Waiting(Answers):
    """A server that answers when it is told to."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def answer(self, words: list[str], reply: Reply) -> None:
        """Keep the reply."""
        assert words == ["status"]
        self.replies.append(reply)


class Process:
    """A process of the page."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair()
        self.ended = 0

    def end(self) -> str:
        """End it; return how it has ended."""
        self.ended += 1
        self.theirs.close()
        return "was killed by SIGKILL"

    def after_fork(self) -> None:
        """Close its socket."""
        self.theirs.close()


class Clock:
    """A clock that is set by hand, and what was started by it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.started: list[Process] = []
        self.fails = False

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def start(self, place: Place, settings: Settings) -> Any:
        """Start a process."""
        assert place.sockets
        if self.fails:
            raise OSError(12, "Cannot allocate memory")
        self.started.append(Process())
        return self.started[-1]


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


def chosen(**settings: Any) -> Settings:
    return Settings(**settings)


def opened(clock: Clock, answers: Answers) -> StatusPage:
    page = StatusPage(chosen(status="127.0.0.1:0"), answers, clock.start, clock)
    page.open()
    page.look()
    return page


def test_it_is_asked_and_answers_as_soon_as_the_server_does(clock: Clock) -> None:
    """A supervisor's workers take their time; meanwhile nothing waits here."""
    answers = Waiting()
    page = opened(clock, answers)
    theirs = clock.started[0].theirs
    theirs.sendall(b"status\nsta")
    page.look()
    theirs.sendall(b"tus\n")
    page.look()
    assert len(answers.replies) == 2
    large = {"requests": ["x" * 1000] * 1000}
    answers.replies[0](large)
    answers.replies[1]({})
    watched = select.poll()
    page.register(watched)
    assert watched.poll(0) == []  # the rest waits until it is taken
    theirs.settimeout(0)
    got = b""
    while got.count(b"\n") < 2:
        try:
            got += theirs.recv(1 << 20)
        except BlockingIOError:
            page.look()
    assert [json.loads(each) for each in got.splitlines()] == [large, {}]
    page.close()


def test_it_may_ask_for_nothing_else(clock: Clock, log: Log) -> None:
    """It talks to browsers: no bug of it may stop the server."""
    page = opened(clock, Waiting())
    theirs = clock.started[0].theirs
    theirs.sendall(b"stop\n")
    page.look()
    assert json.loads(theirs.recv(1000)) == {"error": "only the status"}
    log.take("has asked for stop")
    page.close()


def test_it_is_started_again_ever_later_unless_it_has_lived(clock: Clock, log: Log) -> None:
    """At the address that it had: the server has kept that. An answer that is late is dropped."""
    answers = Waiting()
    page = opened(clock, answers)
    delays = [SOON, 2, 4, 8, 16, LATE, LATE]
    for delay in delays:
        process = clock.started[-1]
        process.theirs.sendall(b"status\n")
        page.look()
        process.theirs.close()
        page.look()
        assert process.ended == 1
        assert page.next_due == clock.now + delay
        log.take(f"was killed by SIGKILL: it is started again in {delay:g} s")
        answers.replies.pop()({})
        clock.now += delay - 0.5
        page.look()
        assert clock.started[-1] is process
        clock.now += 0.5
        page.look()
    assert len(clock.started) == 1 + len(delays)
    clock.now += LATE
    clock.started[-1].theirs.close()
    page.look()
    assert page.next_due == clock.now + SOON
    log.take("again in 1 s")
    clock.now += SOON
    clock.fails = True
    page.look()
    log.take("cannot be started (Cannot allocate memory): it is started again in 2 s")
    page.close()
    assert page.next_due > 1e9


def test_a_fork_of_the_server_keeps_nothing_of_it(clock: Clock) -> None:
    """Else it would outlive the server, for which the end of the socket stands."""
    page = opened(clock, Waiting())
    sockets = list(page._place.sockets)
    process = clock.started[0]
    page.after_fork()
    page.look()
    assert [each.fileno() for each in (*sockets, process.socket)] == [-1, -1]
    assert len(clock.started) == 1
    assert not process.ended


def test_where_it_may_listen(tmp_path: Path) -> None:
    """On the loopback or a socket of its owner's; elsewhere with a token. One line says why not."""
    allowed = [
        {"status": "127.0.0.1:0"},
        {"status": "localhost:0"},
        {"status": f"unix:{tmp_path}/page"},
        {"status": "0.0.0.0:0", "status_token": TOKEN},
    ]
    refused = [
        {"status": "0.0.0.0:0"},
        {"status": ":0"},
    ]
    with Failures() as failures:
        for settings in (*allowed, *refused):
            with failures.of(str(settings)):
                place = Place(chosen(**settings))
                if settings in refused:
                    with pytest.raises(SettingError, match="other machines can reach") as caught:
                        place.open()
                    assert "\n" not in str(caught.value)
                    assert not place.sockets
                    continue
                place.open()
                path = tmp_path / "page"
                if "unix" in settings["status"]:
                    assert path.stat().st_mode & 0o777 == 0o600
                place.remove()
                place.close_here()
                assert not path.exists()
    for wrong in (
        {"status_token": TOKEN},
        {"status": "127.0.0.1:0", "status_token": "short"},
        {"status": "127.0.0.1:0", "status_token": "with spaces in the token"},
    ):
        with pytest.raises(SettingError, match=r"^status_token") as caught:
            chosen(**wrong)
        assert wrong["status_token"] not in str(caught.value)


def test_an_address_in_use_is_an_error_unless_another_version_has_it(clock: Clock) -> None:
    """That one ends, and then it is free."""
    first = opened(clock, Waiting())
    host, port = first._place.sockets[0].getsockname()
    settings = Settings(status=f"{host}:{port}")
    with pytest.raises(BindError, match=r"^the status page: cannot listen on"):
        Place(settings).open(0.0)
    second = StatusPage(settings, Waiting(), clock.start, clock)
    second.open(patient=True)
    second.look()
    assert len(clock.started) == 1
    first.close()
    clock.now += SOON
    second.look()
    second.look()
    assert len(clock.started) == 2
    second.close()


def test_a_token_is_shown_nowhere() -> None:
    """Not where settings are shown."""
    settings = Settings(status="127.0.0.1:0", status_token=TOKEN)
    assert TOKEN not in repr(settings)
    assert dataclasses.asdict(settings)["status_token"] == TOKEN
