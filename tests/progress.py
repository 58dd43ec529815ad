"""A quiet run of the tests: one line of progress, the failures, a line of counts.

A plugin of pytest's. With ``-v`` it is silent, and pytest reports each test as it always does.
"""

from __future__ import annotations

import pytest

STEPS = 20
"""How many marks of progress are printed at the most."""


class Progress:
    """Prints how many per cent of the tests have ended, in steps, on one line."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal
        self._total = 0
        self._ended = 0
        self._printed = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Called with the tests of a run in this process."""
        self._total = len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Called with the tests of a run in several processes, once for each process."""
        self._total = len(ids)

    def pytest_runtest_logfinish(self) -> None:
        """Called when a test has ended."""
        self._ended += 1
        step = self._ended * STEPS // self._total if self._total else 0
        if step > self._printed:
            self._printed = step
            self._terminal.write(f"{step * 100 // STEPS}% ", flush=True)


def pytest_report_teststatus(
    report: pytest.TestReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """Count what went as expected, without a letter for each."""
    if config.get_verbosity() >= 0:
        return None
    if hasattr(report, "wasxfail"):
        return ("xfailed", "", "") if report.skipped else None
    if report.passed:
        return ("passed" if report.when == "call" else "", "", "")
    return ("skipped", "", "") if report.skipped else None


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Report progress from the process that has the terminal."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None and config.get_verbosity() < 0:
        config.pluginmanager.register(Progress(terminal), "bide-progress")
