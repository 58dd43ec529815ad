"""What is measured of imports, and the page about it."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from benchmarks.importing import HELPS, IMPORTS, commands, cpu_of, measure, written
from tests.failures import same


def test_commands_take_turns_and_the_first_round_does_not_count() -> None:
    """It brings the files into the cache; and what disturbs the machine meets all."""
    ran: list[str] = []

    def cpu(command: Sequence[str]) -> float:
        ran.append(command[0])
        return float(len(ran))

    found = measure({"a": ["first"], "b": ["second"]}, 2, cpu)
    same(ran, ["first", "second"] * 3)
    same(found, {"a": [3.0, 5.0], "b": [4.0, 6.0]})


def test_the_page_has_the_quickest_first() -> None:
    """A table for imports and one for help; median, least and most."""
    found = {name: [30.0, 10.0, 20.0 + n] for n, name in enumerate([*IMPORTS, *HELPS])}
    page = written(found, {"cpu": "a processor"}, 3)
    assert "- cpu: a processor\n- rounds: 3" in page
    rows = [line for line in page.splitlines() if line.startswith("| ") and "(" in line]
    same(rows[0], "| nothing: the interpreter alone | 20 (10–30) |")
    same(len(rows), len(IMPORTS) + len(HELPS))


def test_a_command_that_fails_is_no_figure() -> None:
    """A module that is not installed would be the quickest."""
    with pytest.raises(subprocess.CalledProcessError):
        cpu_of([sys.executable, "-c", "import no_such_module_at_all"])
    assert cpu_of([sys.executable, "-c", "sum(range(10**6))"]) > 0


def test_every_command_is_run_by_this_interpreter() -> None:
    """So all are measured on one."""
    same({command[0] for command in commands().values()}, {sys.executable})
