"""When a worker is replaced for its age, and when it shows no signs of life."""

from pathlib import Path

from bide import Settings
from bide.process.counting import number_of_workers
from bide.process.heartbeat import BEAT, Cells, Pulse
from bide.process.wear import SAMPLES, Wear
from bide.serving.memory import resident
from tests.failures import Failures, same


def test_a_worker_is_worn_out_after_its_number_of_requests() -> None:
    """Each worker's own, so that they are not replaced together."""
    table = [
        # most, jitter, chance: after how many
        (0, -1, 0.5, 0),
        (1000, -1, 0.5, 1000),
        (1000, -1, 0.0, 900),
        (1000, -1, 1.0, 1100),
        (1000, 50, 1.0, 1050),
        (1000, 0, 1.0, 1000),
        (10, 50, 0.0, 1),
    ]
    with Failures() as failures:
        for most, jitter, chance, after in table:
            with failures.of((most, jitter, chance)):
                settings = Settings(max_requests=most, max_requests_jitter=jitter)
                wear = Wear(settings, iter([chance]).__next__)
                same(wear.requests, after)
                assert not after or wear.reason(after) == f"it has served {after} requests"
                assert not wear.reason(max(0, after - 1))


def test_a_worker_has_too_much_memory_three_times_in_a_row() -> None:
    """A single large request is not a reason."""
    samples = [11, 11, 10, 11, 11, 11]
    wear = Wear(Settings(max_rss=10), memory=lambda: samples.pop(0))
    same([bool(wear.reason(0)) for _ in range(6)], [False] * 5 + [True])
    assert SAMPLES == 3
    assert resident() > 1_000_000


def test_silence_is_counted_by_the_time_in_which_the_supervisor_looked() -> None:
    """One that was stopped with all the others blames none of them."""
    cells = Cells()
    cell, other = cells.take(), cells.take()
    pulse = Pulse(cells.count(cell))
    cells.beat(other)
    same(pulse.look(cells.count(cell), BEAT), BEAT)
    same(pulse.look(cells.count(cell), 1000.0), 3 * BEAT)
    cells.beat(cell)
    same(pulse.look(cells.count(cell), BEAT), 0.0)
    cells.give_back(cell)
    assert cells.take() == cell


def test_auto_is_the_number_of_processors_that_may_be_used(tmp_path: Path) -> None:
    """A container's limit counts, too."""
    quota = tmp_path / "cpu.max"
    most = number_of_workers("auto", quota)
    assert most >= 1
    with Failures() as failures:
        for text, expected in (("max 100000", most), ("150000 100000", min(2, most)), ("1 9", 1)):
            with failures.of(text):
                quota.write_text(text + "\n")
                same(number_of_workers("auto", quota), expected)
        with failures.of("a number"):
            same(number_of_workers("7", quota), 7)
