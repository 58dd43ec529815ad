"""What systemd is told, as a socket in its place hears it."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bide.process.notify import Notifier, Watchdog
from bide.process.service import Service
from bide.settings import Settings
from tests.failures import Failures, same
from tests.service_manager import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Return one."""
    abstract = request.param == "abstract"
    manager = Manager(f"@bide-test-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    yield manager
    manager.close()


def test_a_service_tells_its_life(manager: Manager, tmp_path: Path) -> None:
    """Each step is one message; what it may take is what the settings allow, and the clean-up."""
    settings = Settings(pid_file=str(tmp_path / "pid"), graceful_timeout=30.0)
    service = Service(settings, {"NOTIFY_SOCKET": manager.address})
    service.starting()
    service.serving("serving shop:app\non a socket")
    same(manager.hear(), {"READY": "1", "STATUS": "serving shop:app on a socket"})
    before = time.monotonic_ns() // 1000
    service.reloading()
    told = manager.hear()
    same(told.pop("RELOADING"), "1")
    assert before <= int(told.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    same(told, {})
    service.reloaded(main=17)
    told = manager.hear()
    same((told["READY"], told["MAINPID"]), ("1", "17"))
    service.stopping(10.0)
    told = manager.hear()
    same((told["STOPPING"], told["EXTEND_TIMEOUT_USEC"]), ("1", "65000000"))
    same(told["STATUS"], "stopping: accepting for 10 s")
    service.stopping(0.0)
    same(manager.hear()["EXTEND_TIMEOUT_USEC"], "55000000")
    service.stopped(20.0)
    same(manager.hear(), {"EXTEND_TIMEOUT_USEC": "25000000", "STATUS": "stopped"})


def test_listeners_are_kept_in_place_of_those_before(manager: Manager) -> None:
    """As many as systemd keeps; else none, and the server ends them with itself."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        notifier = Notifier(manager.address, 2)
        assert notifier.store([one, two])
        same(manager.hear(), {"FDSTOREREMOVE": "1", "FDNAME": "bide-listener"})
        same(manager.hear(), {"FDSTORE": "1", "FDNAME": "bide-listener"})
        same(
            [os.fstat(each) for each in manager.kept],
            [os.fstat(each.fileno()) for each in (one, two)],
        )
        assert not Notifier(manager.address, 1).store([one, two])
        assert not Notifier(manager.address).store([one])


def test_who_is_not_told_of_systemd_tells_nothing() -> None:
    """Nor does one whose systemd is gone: the server serves all the same, and the log says so."""
    environments = [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}]
    for environ in environments:
        notifier = Notifier.of(environ | {"FDSTORE": "5"})
        notifier.ready()
        assert not notifier.store([])
    Notifier.of({"NOTIFY_SOCKET": "/nowhere/notify"}).alive()


def test_no_time_is_too_long_for_systemd(manager: Manager) -> None:
    """--graceful-timeout inf is a number that it can read."""
    Notifier(manager.address).extend(float("inf"))
    assert int(manager.hear()["EXTEND_TIMEOUT_USEC"]) > 10**12


class Told(Notifier):
    """Counts."""

    times = 0

    def alive(self) -> None:
        """Count."""
        self.times += 1


def test_the_watchdog_is_told_at_half_its_interval_while_all_is_fresh() -> None:
    """What is not fresh is asked again soon, and told as soon as it is."""
    fresh: list[bool] = []
    told = Told()
    watchdog = Watchdog(told, 20.0, lambda: fresh[-1])
    with Failures() as failures:
        for now, lives, seconds, times in [
            (100.0, True, 10.0, 1),
            (104.0, True, 6.0, 1),
            (110.0, True, 10.0, 2),
            (120.0, False, 2.5, 2),
            (122.5, False, 2.5, 2),
            (125.0, True, 10.0, 3),
            (134.9, True, 2.5, 3),
            (137.4, True, 10.0, 4),
        ]:
            fresh.append(lives)
            with failures.of(f"at {now:g} s"):
                same(watchdog.look(now), seconds)
                same(told.times, times)


def test_the_watchdog_is_for_the_process_that_systemd_watches() -> None:
    """A number of another process, or none of seconds, is not for this one."""
    own, other = str(os.getpid()), str(os.getppid())
    for environ, interval in [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": own}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": other}, 0.0),
        ({"WATCHDOG_PID": own}, 0.0),
    ]:
        same(Watchdog.of(Notifier(), environ).interval, interval)
