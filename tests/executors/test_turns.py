"""The interpreter's turns, short as long as there are lanes, and whose choice they are."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from bide.executors import turns
from bide.executors.threads import ThreadsExecutor
from bide.waiting.api import wait
from bide.waiting.outcome import Signal
from tests.fakes import ManualLoop, Run
from tests.served import DEADLINE, until

OWN = 0.002
"""What an application may choose."""


@pytest.fixture(autouse=True)
def interval() -> Iterator[None]:
    """Begin with CPython's own, and with no executor that has lanes; leave it as it was."""
    before = sys.getswitchinterval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "_users", 0)
        patch.setattr(turns, "_set", False)
        sys.setswitchinterval(turns.DEFAULT)
        yield
    sys.setswitchinterval(before)


def test_cpython_s_own_is_what_is_taken_for_nobody_s_choice() -> None:
    """A newer Python may have another."""
    program = [sys.executable, "-c", "import sys; print(sys.getswitchinterval())"]
    output = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    assert float(output) == turns.DEFAULT


def test_turns_are_short_while_any_executor_has_lanes() -> None:
    """Several servers of one process share them; the last puts them back."""
    turns.shorten()
    assert sys.getswitchinterval() == turns.INTERVAL
    turns.shorten()
    turns.restore()
    assert sys.getswitchinterval() == turns.INTERVAL
    turns.restore()
    assert sys.getswitchinterval() == turns.DEFAULT
    turns.shorten()
    assert sys.getswitchinterval() == turns.INTERVAL
    turns.restore()
    assert sys.getswitchinterval() == turns.DEFAULT


def test_an_application_s_own_choice_is_left_alone() -> None:
    """Made before the first server, it stays, and is there at the end."""
    sys.setswitchinterval(OWN)
    turns.shorten()
    assert sys.getswitchinterval() == OWN
    turns.restore()
    assert sys.getswitchinterval() == OWN


@pytest.mark.parametrize("servers", [1, 2])
def test_a_choice_that_is_made_meanwhile_is_not_overwritten(servers: int) -> None:
    """Neither by a server that starts after it, nor by the end of the last."""
    turns.shorten()
    sys.setswitchinterval(OWN)
    for _ in range(servers - 1):
        turns.shorten()
    for _ in range(servers):
        turns.restore()
        assert sys.getswitchinterval() == OWN


def test_the_executor_shortens_them_with_its_first_lane_and_puts_them_back_at_its_end() -> None:
    """One that never starts a lane changes nothing; a second stop takes back nothing more."""
    loop = ManualLoop()
    try:
        executor, idle = ThreadsExecutor(loop, 2, 10), ThreadsExecutor(loop, 2, 10)
        assert sys.getswitchinterval() == turns.DEFAULT
        signal = Signal()

        def settled() -> bool:
            loop.settle()
            return not executor.queued

        for _ in range(2):  # each on a lane of its own
            assert executor.submit(Run(lambda: wait(signal), executor.waiter()))
            executor.flush()
            until(settled)
        assert sys.getswitchinterval() == turns.INTERVAL
        idle.stop()
        assert sys.getswitchinterval() == turns.INTERVAL
        signal.fire()
        executor.stop()
        assert sys.getswitchinterval() == turns.DEFAULT
        executor.stop()
        turns.shorten()
        assert sys.getswitchinterval() == turns.INTERVAL
        turns.restore()
        executor.join(DEADLINE)
        assert not executor.alive
    finally:
        loop.close()


def test_they_are_counted_from_any_thread() -> None:
    """Loops of several servers run in several threads."""
    turns.shorten()

    def often() -> None:
        for _ in range(500):
            turns.shorten()
            turns.restore()

    threads = [threading.Thread(target=often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.getswitchinterval() == turns.INTERVAL
    turns.restore()
    assert sys.getswitchinterval() == turns.DEFAULT
