"""What the benchmarks and the soak do alike: how they end, and what they write."""

from __future__ import annotations

import json
import os
import signal
import sys
import sysconfig
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks import __main__ as bench
from benchmarks.__main__ import choose_scenarios, split_names
from benchmarks.command import CANNOT_RUN, choose_cores, name_cores, running, write_results
from benchmarks.errors import CannotRunError, RoundFailedError
from benchmarks.machine import describe_build, find_optimisation
from benchmarks.markdown import list_facts, write_table
from benchmarks.scenarios import SCENARIOS
from soak import __main__ as soak
from tests.failures import Failures


@pytest.mark.parametrize("error", [CannotRunError, RoundFailedError])
def test_a_command_that_cannot_run_ends_with_one_line_and_its_exit_code(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback: nothing is wrong with the program."""
    with pytest.raises(SystemExit) as ended, running("soak"):
        raise error("no wrk")
    assert ended.value.code == CANNOT_RUN
    assert capsys.readouterr().err == "soak: no wrk\n"


def test_another_error_of_a_command_is_not_swallowed() -> None:
    """It is a mistake of the program."""
    with pytest.raises(KeyError), running("soak"):
        raise KeyError("figure")


def test_a_command_that_is_terminated_leaves_its_block() -> None:
    """So that the server under test is ended, too; and the signal is what it was before."""
    before = signal.getsignal(signal.SIGTERM)
    left = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            left.append("the block")

    with pytest.raises(SystemExit) as ended, running("soak"):
        work()
    assert left == ["the block"]
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_server_and_the_client_have_cores_of_their_own_when_there_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server's are the last ones, one for each worker; where none is left, both share all."""
    with Failures() as failures:
        for usable, workers, server, client in [
            ({0, 1}, 1, {1}, {0}),
            ({2, 3, 5}, 1, {5}, {2}),
            ({4}, 1, {4}, {4}),
            ({0, 1}, 2, {0, 1}, {0, 1}),
            ({0, 1, 2}, 2, {1, 2}, {0}),
            ({0, 1, 2, 3, 4}, 2, {3, 4}, {0, 1}),
        ]:
            with failures.of((usable, workers)):
                monkeypatch.setattr(os, "sched_getaffinity", lambda pid, usable=usable: usable)
                assert choose_cores(1, workers) == (frozenset(server), frozenset(client))
    assert name_cores(frozenset({3, 4}), frozenset({0})) == "3, 4 for the server, 0 for the client"
    shared = frozenset({0, 1})
    assert name_cores(shared, shared) == "0, 1, shared by the server and the client"


def test_a_command_that_needs_two_cores_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client on the server's core would be measured too."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4})
    with pytest.raises(CannotRunError, match="two cores"):
        choose_cores(2)


def test_results_are_a_report_a_picture_and_all_figures(tmp_path: Path) -> None:
    """The directory is made; what was there before is replaced."""
    output = tmp_path / "new" / "results"

    def draw(svg: Path) -> None:
        svg.write_text("<svg/>")

    for text in ("before", "after"):
        write_results(output, f"# {text}\n", {"µs": text}, draw)
    assert {path.name for path in output.iterdir()} == {"latest.md", "latest.svg", "latest.json"}
    assert (output / "latest.md").read_text() == "# after\n"
    assert json.loads((output / "latest.json").read_text()) == {"µs": "after"}
    assert "µs" in (output / "latest.json").read_text()


def test_the_parts_of_a_report_keep_their_form_whatever_is_in_a_cell() -> None:
    """A server's last words may hold a pipe or several lines."""
    assert list_facts({"cpu": "a processor"}, {"date": "today"}) == [
        "- cpu: a processor",
        "- date: today",
    ]
    assert write_table(["server", "errors"], [["bide", "a | b\n  c"]]) == [
        "| server | errors |",
        "| --- | --- |",
        "| bide | a \\| b c |",
    ]


@pytest.mark.parametrize(
    ("command", "directory"), [(bench.main, "benchmarks/results"), (soak.main, "soak/results")]
)
def test_a_command_says_where_its_results_go(command: click.Command, directory: str) -> None:
    """The same option for both, each with its own place."""
    shown = CliRunner().invoke(command, ["--help"]).output
    assert f"[default: {directory}]" in " ".join(shown.split())


def test_the_benchmarks_refuse_a_name_that_does_not_exist() -> None:
    """Before anything is measured, in one line that names those that do."""
    with Failures() as failures:
        for option, known in [
            ("--only", "no scenario 'nothing'; there are hello-threads"),
            ("--peers", "no peer 'nothing'; there are bjoern"),
            ("--forms", "no form 'nothing'; there are compiled, pure"),
        ]:
            with failures.of(option):
                ended = CliRunner().invoke(bench.main, [option, "nothing"])
                assert ended.exit_code == CANNOT_RUN
                assert known in ended.output
                assert ended.output.count("\n") == 1


def test_scenarios_are_chosen_by_name_or_by_a_word_of_it() -> None:
    """A name means one, a word all that have it; peers are left out of each, Bide never is."""
    with Failures() as failures:
        for text, names in [
            ("hello-loop", ["hello-loop"]),
            ("loop", ["hello-loop", "hello-loop-14", "events-loop"]),
            ("upload, start-up", ["upload-plain", "upload-chunked", "start-up"]),
        ]:
            with failures.of(text):
                chosen = choose_scenarios(split_names([text]), ("bjoern",))
                assert [scenario.name for scenario in chosen] == names
                for scenario in chosen:
                    servers = {contender.server.name for contender in scenario.contenders}
                    assert "bide" in servers <= {"bide", "bjoern"}
    assert [scenario.name for scenario in choose_scenarios((), ())] == [
        scenario.name for scenario in SCENARIOS
    ]


def test_an_interpreter_is_optimised_when_it_was_built_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be told is not optimised; Debian's configures without the option."""
    debian = Path("/etc/debian_version").exists()
    with Failures() as failures:
        for arguments, prefix, optimised in [
            ("'--enable-optimizations' '--with-lto'", "/opt/python", True),
            ("'--enable-shared'", "/opt/python", False),
            ("'--enable-shared'", "/usr", debian),
            (None, "/opt/python", False),
        ]:
            with failures.of((arguments, prefix)):
                monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": arguments}.get)
                monkeypatch.setattr(sys, "base_prefix", prefix)
                assert (find_optimisation() is not None) is optimised
                assert describe_build().startswith("optimised" if optimised else "**not known")
