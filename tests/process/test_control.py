"""The desk of the control socket: no client holds it up, by a clock of its own."""

import errno
import json
import select
import socket
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from bide.process.control import (
    LONGEST,
    MOST_CLIENTS,
    READ_SECONDS,
    REST,
    SEND_SECONDS,
    Answers,
    Control,
    Desk,
    Reply,
)
from tests.failures import Failures, same
from tests.served import DEADLINE, Log

MUCH = "x" * 2_000_000


class Told(Answers):
    """Answers what it was asked; some of it later, much, or never."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.later: list[Reply] = []

    def answer(self, words: list[str], reply: Reply) -> None:
        """Do what the words say."""
        self.asked.append(words)
        if words == ["later"]:
            self.later.append(reply)
        elif words == ["fails"]:
            raise RuntimeError("this is wrong")
        else:
            reply({"words": MUCH if words == ["much"] else words})


class Office:
    """A desk whose time is told, and its clients."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.told = Told()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind("")  # a name of the system's choice, without a file
        self.listener.listen(200)
        self.address = self.listener.getsockname()
        self.desk = Desk(self.listener, self.told, lambda: self.now)
        self.clients: list[socket.socket] = []

    def visit(self, data: bytes = b"") -> socket.socket:
        """Connect, say something, and have the desk look."""
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.connect(self.address)
        client.settimeout(DEADLINE)
        if data:
            client.sendall(data)
        self.desk.look()
        return client

    def wait(self, seconds: float) -> None:
        """Have so many seconds pass."""
        self.now += seconds
        self.desk.look()

    def quiet(self) -> bool:
        """Whether nothing is there to do: a poll does not return at once."""
        watched = select.poll()
        self.desk.register(watched)
        return not watched.poll(0)

    def close(self) -> None:
        """Close all of it."""
        self.desk.close()
        for each in self.clients:
            each.close()


@pytest.fixture
def office() -> Iterator[Office]:
    """Return one."""
    office = Office()
    yield office
    office.close()


def answer(client: socket.socket) -> Any:
    """Return the answer, behind which the connection has ended; None if there was none."""
    with client.makefile("rb") as lines:
        data = lines.read()
    return json.loads(data) if data else None


class Lacking(socket.socket):
    """A listener for whose clients there is no descriptor, as long as the test says so."""

    lacks = True

    def accept(self) -> Any:
        """Fail, or accept."""
        if self.lacks:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_it_rests_when_there_are_no_descriptors(office: Office) -> None:
    """A poll would tell of the client that waits again and again; it is answered in the end."""
    lacking = Lacking(fileno=office.listener.detach())
    office.desk._listener = lacking
    client = office.visit(b"status\n")
    for _ in range(3):
        assert office.quiet()
        same(office.desk.next_due, office.now + REST)
        office.wait(REST / 2)
        assert office.quiet()
        office.wait(REST / 2)
    lacking.lacks = False
    office.wait(REST)
    office.wait(0)
    same(answer(client), {"words": ["status"]})
    assert office.quiet()
    same(office.desk.next_due, inf)


def test_a_line_of_words_is_answered_and_the_connection_ends(office: Office) -> None:
    """However it comes; what stands behind it is not looked at."""
    with Failures() as failures:
        for name, parts in {
            "whole": [b"status\n"],
            "in parts": [b"sta", b"tus", b"\n"],
            "with another line": [b"status\nstop\n"],
            "with spaces": [b"  status \r\n"],
        }.items():
            with failures.of(name):
                client = office.visit()
                for part in parts:
                    client.sendall(part)
                    office.desk.look()
                same(answer(client), {"words": ["status"]})
        client = office.visit(b"status\n")
        with failures.of("half closed"):
            client.shutdown(socket.SHUT_WR)
            same(answer(client), {"words": ["status"]})
    same(office.told.asked, [["status"]] * 5)


def test_rubbish_is_answered_by_an_error(office: Office, log: Log) -> None:
    """And an error of Bide's own, which is in the log."""
    with Failures() as failures:
        for data in (b"\n", b" \t\n", b"x" * (LONGEST + 1), b"watch\n", b"watch 1 2\n"):
            with failures.of(data[:20]):
                same(list(answer(office.visit(data))), ["error"])
        for data in (b"watch x\n", b"watch 0\n", b"watch nan\n", b"watch inf\n", b"watch -1\n"):
            with failures.of(data):
                same(list(answer(office.visit(data))), ["error"])
        with failures.of("no ASCII"):
            same(answer(office.visit(b"\xff\x1b[2J\n"))["words"][0].isascii(), False)
        with failures.of("internal"):
            same(answer(office.visit(b"fails\n")), {"error": "internal error: see the log"})
            log.take("the control socket's 'fails' failed")


def test_who_says_nothing_is_given_up(office: Office) -> None:
    """As is who leaves before, and who says half of it; others are answered meanwhile."""
    silent, half, gone = office.visit(), office.visit(b"stat"), office.visit()
    gone.close()
    office.desk.look()
    assert office.quiet()
    same(office.desk.next_due, office.now + READ_SECONDS)
    same(answer(office.visit(b"status\n")), {"words": ["status"]})
    office.wait(READ_SECONDS)
    same([answer(silent), answer(half)], [None, None])
    same(office.desk.next_due, float("inf"))


def test_who_does_not_read_is_given_up(office: Office) -> None:
    """Who reads, however slowly, gets all of it."""
    slow, stuck = office.visit(b"much\n"), office.visit(b"much\n")
    got = b""
    while not got.endswith(b"\n"):
        office.wait(SEND_SECONDS / 2)
        got += slow.recv(100_000)
    same(json.loads(got), {"words": MUCH})
    with pytest.raises(ValueError, match="Unterminated"):
        answer(stuck)
    assert office.quiet()


def test_who_has_left_is_not_polled_for_again_and_again(office: Office) -> None:
    """The system tells of an end without an end."""
    waiting, watching = office.visit(b"later\n"), office.visit(b"watch 1\n")
    for each in (waiting, watching):
        each.close()
        office.desk.look()
    assert office.quiet()
    for reply in office.told.later:
        reply({})
    office.wait(1.0)  # one answer is lost: now it is known
    office.wait(1.0)
    same(office.desk.next_due, float("inf"))


def test_an_answer_may_come_later(office: Office) -> None:
    """For as long as it takes."""
    client = office.visit(b"later\n")
    office.wait(1000.0)
    (reply,) = office.told.later
    reply({"here": 1})
    same(answer(client), {"here": 1})


def test_who_watches_gets_an_answer_each_time_and_none_while_behind(office: Office) -> None:
    """So a slow one costs no memory. Then it goes on."""
    client = office.visit(b"watch 2\n")
    with client.makefile("rb") as lines:
        for _ in range(3):
            same(json.loads(lines.readline()), {"words": ["status"]})
            office.wait(1.0)
            same(len(office.told.asked), office.now // 2 - 499)
            office.wait(1.0)
        asked = len(office.told.asked)
        office.told.answer = lambda words, reply: reply({"words": MUCH})  # type: ignore[method-assign]
        office.wait(2.0)
        office.told.answer = Told.answer.__get__(office.told)  # type: ignore[method-assign]
        for _ in range(5):
            office.wait(2.0)
        same(len(office.told.asked), asked)
        client.setblocking(False)
        taken = 0
        while taken < len(MUCH):
            taken += len(client.recv(1 << 20))
            office.desk.look()
        office.wait(2.0)
        same(len(office.told.asked), asked + 1)


def test_more_clients_than_are_answered_wait(office: Office) -> None:
    """They are accepted once others have left; nothing is polled for meanwhile."""
    first = [office.visit() for _ in range(MOST_CLIENTS)]
    late = office.visit(b"status\n")
    same(office.told.asked, [])
    assert office.quiet()
    first[0].close()
    office.desk.look()
    office.desk.look()
    same(answer(late), {"words": ["status"]})


def test_a_thread_answers_those_who_connect_and_those_who_are_added(office: Office) -> None:
    """Until it is stopped; then they see the end."""
    control = Control(office.listener, office.told)
    control.start()
    ours, theirs = socket.socketpair()
    control.add(theirs)
    ours.settimeout(DEADLINE)
    with ours, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(office.address)
        client.sendall(b"status\n")
        same(answer(client), {"words": ["status"]})
        ours.sendall(b"watch 0.1\n")
        with ours.makefile("rb") as lines:
            for _ in range(2):
                same(json.loads(lines.readline()), {"words": ["status"]})
            control.stop()
            while lines.readline():
                pass
