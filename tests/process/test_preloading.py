"""The processes that workers are forked from: what the end of one, or a lack of them, leads to."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest

from bide.process import fleet as fleets
from bide.process.fleet import Fleet
from bide.process.links import Link
from bide.process.preloading import Zygotes
from bide.process.slots import START
from tests.failures import same
from tests.process.test_fleet import Recorder

NOBODY = 2**30
"""A process's number, which is greater than any process has."""


class Play:
    """Zygotes that are not processes, and a fleet of one worker that is none."""

    def __init__(self) -> None:
        self.hands = Recorder()
        self.fleet = Fleet(1, self.hands, lambda: 1000.0, 50.0)
        self.full = False  # there is no room for another process
        self.forked: list[Link] = []
        self.zygotes = Zygotes(self._fork, self._become, self.fleet.tick)

    def _fork(self) -> tuple[int, Link, socket.socket]:
        if self.full:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        link, theirs = Link.pair()
        self.forked.append(Link(theirs.dup()))
        return NOBODY + len(self.forked), link, theirs

    def _become(self, _: Link) -> NoReturn:
        raise AssertionError("this process is not a zygote")

    def ready(self) -> None:
        """The one that was forked last is ready."""
        self.forked[-1].send("ready")
        self.zygotes.hear(self.fleet)

    def end(self, number: int) -> None:
        """One of those that are there has ended."""
        self.zygotes.ended(self.zygotes.all[number], "was killed by SIGKILL", self.fleet)

    def serve(self) -> None:
        """The first one is ready, and the worker that is forked from it."""
        self.zygotes.start(self.fleet)
        self.ready()
        self.fleet.ready(self.hands.booted[0])
        assert self.fleet.completed() == START
        self.hands.did = []

    def close(self) -> None:
        """Close all links."""
        for each in [*self.forked, *(zygote.link for zygote in self.zygotes.all)]:
            each.close()


@pytest.fixture
def play(caplog: pytest.LogCaptureFixture) -> Iterator[Play]:
    """Return one, and keep the lines of the log."""
    caplog.set_level(logging.DEBUG, "bide")
    play = Play()
    yield play
    play.close()


def test_the_end_of_the_old_one_gives_up_no_reload(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """That of the new one does, whether the old one is there or not."""
    play.serve()
    play.zygotes.reload(play.fleet)
    play.end(0)
    assert "reload has failed" not in caplog.text
    play.ready()
    same(play.hands.did, ["boot 0", "accept #1 0"])
    play.fleet.ready(play.hands.booted[1])
    play.hands.booted[0].accepting = False
    assert play.fleet.completed() == fleets.RELOAD
    for old_one_ends in (False, True):
        play.zygotes.reload(play.fleet)
        if old_one_ends:
            play.end(0)
        play.end(-1)
        assert play.fleet.completed() == fleets.KEPT
    same(caplog.text.count("the reload has failed"), 2)


def test_a_reload_that_there_is_no_room_for_is_given_up(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """What is started later, in place of one that has ended, replaces no worker."""
    play.serve()
    play.full = True
    play.zygotes.reload(play.fleet)
    assert "the reload has failed" in caplog.text
    assert play.fleet.completed() == fleets.KEPT
    play.full = False
    play.end(0)
    play.zygotes.start(play.fleet)
    play.ready()
    same(play.hands.did, [])


def test_an_application_that_cannot_be_loaded_stops_a_server_that_has_none(play: Play) -> None:
    """Also if a reload was asked for meanwhile. But not one whose first worker still boots."""
    play.zygotes.start(play.fleet)
    play.zygotes.reload(play.fleet)
    play.end(0)
    assert play.fleet.failed
    other = Play()
    other.zygotes.start(other.fleet)
    other.ready()
    other.zygotes.reload(other.fleet)
    other.end(1)
    assert not other.fleet.failed
    other.close()
