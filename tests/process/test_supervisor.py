"""The supervisor's signals, and two versions that share the sockets; no process is started."""

import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bide import Settings
from bide.errors import BindError, StartError
from bide.process import supervisor as supervisors
from bide.process import upgrade
from bide.process.crew import Crew
from bide.process.links import Link
from bide.process.listeners import INHERITED, Listeners
from bide.process.processes import HANDLED, Process
from bide.process.slots import EMPTY, SERVING, START, Worker
from bide.process.supervisor import Supervisor, supervise
from bide.process.upgrade import Successor, Versions
from bide.transports.addresses import NOTHING
from tests.failures import Failures, same

NOBODY = 2**30
"""A process's number, which is greater than any process has."""


def nothing() -> None:
    """Prepare, load or settle nothing."""


class Idle(Crew):
    """Forks nothing, and keeps which slots it was to fork a worker for."""

    booted: list[int]

    def boot(self, slot: int) -> Worker:
        """Make a worker without a process."""
        self.booted.append(slot)
        return Worker(slot, 0.0)


class Version:
    """A supervisor that has started no process, and one worker that is none.

    Args:
        path: where it listens.
        before: what the version before has told.
    """

    def __init__(self, path: Path, before: dict[str, object] | None = None) -> None:
        settings = Settings(bind=(f"unix:{path}",), workers="1", drain_delay=1000.0, control="off")
        self.listeners = Listeners(settings)
        self.crew = Idle(settings, nothing, nothing, self.listeners)
        self.crew.booted = []
        self.supervisor = Supervisor(
            settings, "app", self.crew, self.listeners, Versions(before), nothing
        )
        link, sock = Link.pair()
        self.worker = Worker(0, 0.0)
        slot = self.supervisor._fleet.slots[0]
        slot.state, slot.worker = SERVING, self.worker
        self.crew.processes[self.worker] = Process(link, self.worker, NOBODY, ready=True)
        self.hears = Link(sock)

    def close(self) -> None:
        """Close what is open."""
        self.supervisor.close()
        for each in self.crew.links:
            each.close()
        self.hears.close()


Make = Callable[..., Version]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where all of them listen."""
    return tmp_path / "bide.sock"


@pytest.fixture
def make(path: Path) -> Iterator[Make]:
    """Return what makes versions, which are closed after the test."""
    made = []

    def making(before: dict[str, object] | None = None) -> Version:
        made.append(Version(path, before))
        return made[-1]

    yield making
    for each in made:
        each.close()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Have the handlers of signals again after the test."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def connects(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        return path.exists() and not client.connect_ex(str(path))


def told_of(version: Version) -> dict[str, object]:
    """Return what a version tells the next one, which has sockets of its own in this process."""
    _, told = version.listeners.inheritable()
    return {**told, "shared": [os.dup(each) for each in told["shared"]]}


def two_versions(make: Make) -> tuple[Version, Version, int]:
    """Return a version, the next one, which shares its sockets, and where the old one is told."""
    old = make()
    old.supervisor.listen(None, NOTHING)
    reader, writer = os.pipe()
    new = make({"pipe": writer})
    new.supervisor.listen(told_of(old), NOTHING)
    same(new.hears.receive(), [["keep"]])
    return old, new, reader


def test_an_old_version_that_ends_leaves_the_sockets_to_the_new_one(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it ends while the new one starts; its workers are told so. Else it removes all."""
    with Failures() as failures:
        for number in (signal.SIGQUIT, signal.SIGINT):
            for new_one_failed in (False, True):
                with failures.of((number.name, new_one_failed)):
                    reader, writer = os.pipe()
                    successor = Successor(NOBODY, reader)
                    monkeypatch.setattr(upgrade, "start_successor", lambda *_, new=successor: new)
                    old = make()
                    old.supervisor.listen(None, NOTHING)
                    old.supervisor._answer(signal.SIGUSR2)
                    same(old.hears.receive(), [["keep"]])
                    if new_one_failed:
                        os.close(writer)
                        old.supervisor._hear_successor()
                    old.supervisor._answer(number)
                    old.supervisor._finish()
                    same(path.exists(), not new_one_failed)
                    if not new_one_failed:
                        os.close(writer)
                        path.unlink()


def test_a_new_version_that_ends_leaves_the_sockets_to_the_old_one(make: Make, path: Path) -> None:
    """Whatever its workers do; unless the old one has gone, too."""
    with Failures() as failures:
        for old_one_gone in (False, True):
            with failures.of(old_one_gone):
                old, new, reader = two_versions(make)
                new.crew._welcome(new.worker)  # one that is started later
                same(new.hears.receive()[0], ["keep"])
                if old_one_gone:
                    os.close(reader)
                    old.listeners.close_here()
                new.supervisor._answer(signal.SIGINT)
                new.supervisor._finish()
                same(connects(path), not old_one_gone)
                same(path.exists(), not old_one_gone)
                if not old_one_gone:
                    os.close(reader)
                    old.listeners.close()


def test_a_new_version_that_cannot_start_leaves_the_sockets_to_the_old_one(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    """Its certificate may be missing, for example."""
    monkeypatch.setattr(supervisors, "start_no_threads", nothing)
    monkeypatch.setattr(supervisors, "configure", lambda _: nothing)
    old = make()
    old.supervisor.listen(None, NOTHING)
    reader, writer = os.pipe()
    monkeypatch.setenv(INHERITED, json.dumps({**told_of(old), "pipe": writer}))

    def fail() -> None:
        raise StartError("there is no certificate")

    with pytest.raises(StartError, match="no certificate"):
        supervise(Settings(workers="1"), "app", nothing, prepare=fail)
    assert connects(path)
    os.close(reader)


def test_a_version_that_has_taken_over_tells_so_and_opens_its_logs_anew(make: Make) -> None:
    """Who rotated the logs meanwhile has told the old one."""
    _, new, reader = two_versions(make)
    new.supervisor._fleet.completed = lambda: START  # type: ignore[method-assign]
    new.supervisor._tell_completed()
    same(os.read(reader, 16), b"ready")
    same(new.hears.receive(), [["reopen"]])
    os.close(reader)


def test_an_old_version_that_finishes_is_not_stopped_at_once_by_a_first_signal(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be for all processes of a service. A second one is meant."""
    reader, writer = os.pipe()
    monkeypatch.setattr(upgrade, "start_successor", lambda *_: Successor(NOBODY, reader))
    old = make()
    old.supervisor.listen(None, NOTHING)
    old.supervisor._answer(signal.SIGUSR2)
    os.write(writer, b"ready")
    os.close(writer)
    old.supervisor._hear_successor()
    codes = []
    for _ in range(2):
        old.supervisor._answer(signal.SIGTERM)
        codes.append(old.supervisor._code)
    same(codes, [0, 128 + signal.SIGTERM])


def test_nothing_is_replaced_while_the_drain_is_delayed(make: Make) -> None:
    """SIGTERM may be for all processes of a service, each of which asks to be replaced then."""
    version = make()
    version.supervisor._answer(signal.SIGTERM)
    version.supervisor._answer(signal.SIGHUP)
    version.supervisor._answer(signal.SIGUSR2)
    same(version.hears.receive(), [["warn"]])
    version.hears.send("signalled")
    version.crew._hear(version.crew.processes[version.worker])
    version.worker.leaves_at = 0.0
    version.supervisor._fleet.tick()
    same(version.crew.booted, [])


def test_a_server_that_does_not_serve_yet_stops_without_the_delay(make: Make) -> None:
    """A worker that boots may have had the signal, too: its end would count as a failure."""
    version = make()
    slot = version.supervisor._fleet.slots[0]
    slot.state, slot.worker = EMPTY, None
    version.supervisor._answer(signal.SIGTERM)
    assert version.supervisor._fleet.stopping


def test_a_server_with_too_few_descriptors_for_its_workers_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    """In one line; nothing is started."""
    version = make()
    version.supervisor.listen(None, NOTHING)

    def fail(_: int) -> list[socket.socket]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(version.listeners, "of", fail)
    with pytest.raises(BindError, match="cannot listen for all workers: Too many open files"):
        version.supervisor.run()
