"""What the benchmarks make of figures: reading wrk, medians, ratios, aims and the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.certificate import CERTIFICATE, KEY
from benchmarks.errors import RoundFailedError
from benchmarks.figures import CPU_REQUEST, KB_REQUEST, P99, REQUESTS
from benchmarks.forms import Form
from benchmarks.judging import Spread, compare, count_errors, find_best, judge, judge_all, spread
from benchmarks.loads.kind import Sample
from benchmarks.loads.requests import Requests
from benchmarks.report import Run, write_json, write_markdown
from benchmarks.rounds import Result
from benchmarks.scenarios import SCENARIOS, Aim, Contender, Scenario
from benchmarks.servers import Server
from benchmarks.wrk import parse_wrk
from tests.failures import Failures

GOOD = """\
Running 4s test @ http://127.0.0.1:9101/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.40ms    0.89ms  10.23ms   77.46%
    Req/Sec    14.51k   645.57    15.30k    70.00%
  Latency Distribution
     50%  445.00us
     75%    4.72ms
     90%    5.32ms
     99%    1.25s
  28998 requests in 4.01s, 2.18MB read
Requests/sec:  7231.42
Transfer/sec:      1.09MB
"""
BAD = GOOD.replace(
    "2.18MB read\n",
    "2.18MB read\n"
    "  Socket errors: connect 0, read 12, write 0, timeout 7\n"
    "  Non-2xx or 3xx responses: 998\n",
)
CPU = CPU_REQUEST
FORMS = [Form(name, Path(f"/forms/{name}"), f"made for {name}") for name in ("compiled", "pure")]


def make_server(name: str) -> Server:
    return Server(name, "4 threads", (f"no-such-distribution-{name}",), "serve {application}")


def make_result(name: str, *figures: float, errors: dict[str, int] | None = None) -> Result:
    samples = {
        number: Sample({CPU: figure}, errors or {}, 0.0) for number, figure in enumerate(figures, 1)
    }
    return Result(Contender(make_server(name), "hello:app"), samples=samples)


def make_run(*results: Result) -> Run:
    scenario = Scenario(
        name="hello",
        title="Hello",
        headline=CPU,
        load=Requests("/", 64),
        contenders=tuple(result.contender for result in results),
        aims=(Aim(CPU, 1.0, "at most", "granian"),),
    )
    return Run(
        machine={"cpu": "a processor"},
        versions={"wrk": "4"},
        how={"date": "today"},
        forms=[],
        missing=None,
        tables=[(scenario, list(results))],
    )


def test_parsing_wrk_reads_counts_seconds_and_latencies_of_every_unit() -> None:
    """Its units are scaled; the report has milliseconds and seconds only."""
    report = parse_wrk(GOOD)
    assert (report.requests, report.seconds) == (28998, 4.01)
    assert report.p50_ms == pytest.approx(0.445)
    assert report.p99_ms == pytest.approx(1250.0)
    assert report.errors == {}
    assert report.succeeded == 28998


def test_parsing_wrk_keeps_every_error_and_counts_refused_requests_as_failed() -> None:
    """Responses of 400 and above are in wrk's total, and must not be in ours."""
    report = parse_wrk(BAD)
    assert report.errors == {"read": 12, "timeout": 7, "status": 998}
    assert report.succeeded == 28000


def test_parsing_wrk_reads_minutes() -> None:
    """A long run is given in minutes."""
    assert parse_wrk(GOOD.replace("4.01s", "1.50m")).seconds == pytest.approx(90.0)


@pytest.mark.parametrize("lost", ["requests in", "50%", "99%"])
def test_parsing_wrk_fails_when_a_figure_is_not_there(lost: str) -> None:
    """A figure that is missing is an error of the round, and no zero."""
    with pytest.raises(RoundFailedError, match="wrk printed no"):
        parse_wrk(GOOD.replace(lost, "?"))


def test_a_median_is_over_the_rounds_that_gave_the_figure() -> None:
    """One slow round moves nothing."""
    assert spread(make_result("bide", 10.0, 90.0, 11.0), CPU) == Spread(11.0, 10.0, 90.0, 3)
    assert spread(make_result("bide", 10.0), P99) is None
    assert spread(make_result("bide"), CPU) is None


def test_a_ratio_is_of_two_medians_and_none_when_one_is_missing() -> None:
    """Bide's is the numerator; its spread is over the rounds that both have."""
    bide = make_result("bide", 10.0, 12.0, 50.0)
    assert compare(bide, make_result("granian", 5.0, 6.0), CPU) == Spread(12 / 5.5, 2.0, 2.0, 2)
    assert compare(bide, make_result("granian"), CPU) is None
    assert compare(make_result("bide"), make_result("granian", 6.0), CPU) is None


@pytest.mark.parametrize(
    ("aim", "outcome"),
    [
        (Aim(CPU, 2.0, "at most", "granian"), "reached"),
        (Aim(CPU, 1.99, "at most", "granian"), "missed"),
        (Aim(CPU, 2.0, "at least", "granian"), "reached"),
        (Aim(CPU, 2.01, "at least", "granian"), "missed"),
        (Aim(CPU, 12.0, "at most"), "reached"),
        (Aim(CPU, 11.9, "at most"), "missed"),
        (Aim(CPU, 2.0, "at most", "waitress"), "not measured"),
        (Aim(KB_REQUEST, 16.0, "at most"), "not measured"),
    ],
)
def test_an_aim_is_judged_by_what_was_measured(aim: Aim, outcome: str) -> None:
    """The bound itself reaches it, on either side; without figures there is no verdict."""
    results = [make_result("bide", 12.0), make_result("granian", 6.0)]
    assert judge(aim, results).outcome == outcome


def test_a_verdict_says_that_there_were_errors_on_either_side() -> None:
    """A figure of a server that refused requests is not taken at its word."""
    aim = Aim(CPU, 1.0, "at most", "granian")
    clean = make_result("bide", 6.0)
    refusing = make_result("granian", 6.0, errors={"status": 3})
    assert judge(aim, [clean, refusing]).outcome == "reached, with errors"
    failing = make_result("granian", 6.0)
    failing.failures.append("ended with code 1")
    assert judge(aim, [clean, failing]).outcome == "reached, with errors"


def test_errors_are_summed_over_the_rounds_by_kind() -> None:
    """None is lost between two rounds."""
    result = make_result("bide", 1.0, 2.0, errors={"timeout": 2, "status": 1})
    assert count_errors(result) == {"timeout": 4, "status": 2}


def test_the_table_shows_medians_with_their_spread_the_ratio_and_the_errors() -> None:
    """One row for each server, Bide's without a ratio to itself."""
    text = write_markdown(
        make_run(
            make_result("bide", 10.0, 12.0, 50.0),
            make_result("granian", 6.0, errors={"timeout": 1500}),
        )
    )
    rows = [line for line in text.splitlines() if "4 threads" in line]
    assert rows == [
        "| bide, 4 threads | – | 12.0 (10.0–50.0) |  | – |  | – | – | – | – | none |",
        "| granian, 4 threads | – | 6.00 (one round) | 2.00 | – | – | – | – | – | – |"
        " timeout 1,500 |",
    ]
    assert (
        "| Hello | CPU µs/request ≤ 1 × granian | 2.00 (one round) | **missed, with errors** |"
        in text
    )


def test_the_table_keeps_a_server_that_was_not_measured_with_its_reason() -> None:
    """Missing and failing servers have their rows; a reason cannot break the row."""
    missing = make_result("granian")
    missing.missing = "granian is not installed"
    failing = make_result("waitress", 6.0)
    failing.failures += ["ended with code 1: a | b", "ended with code 1: a | b"]
    text = write_markdown(make_run(make_result("bide", 10.0), missing, failing))
    assert "| granian, 4 threads |" in text
    assert "| not measured: granian is not installed |" in text
    assert "| 2 of 3 rounds failed: ended with code 1: a \\| b |" in text


def test_a_disturbed_run_says_so() -> None:
    """Others on the server's core make its figures doubtful."""
    quiet, loud = make_result("bide", 10.0), make_result("bide", 10.0)
    loud.samples[1] = Sample({CPU: 10.0}, {}, foreign_share=0.4)
    assert "Disturbed" not in write_markdown(make_run(quiet))
    assert "40 % in the worst. **Disturbed" in write_markdown(make_run(loud))


def test_the_json_holds_every_round_with_its_errors() -> None:
    """Whoever doubts a median can look at what it is the median of."""
    run = make_run(
        make_result("bide", 10.0, 12.0, errors={"status": 1}), make_result("granian", 8.0)
    )
    written = json.loads(json.dumps(write_json(run)))
    bide, granian = written["scenarios"]["hello"]["servers"]
    assert [each[CPU.name] for each in bide["rounds"]] == [10.0, 12.0]
    assert [each["errors"] for each in bide["rounds"]] == [{"status": 1}, {"status": 1}]
    assert granian["bide_divided_by_it"] == {CPU.name: pytest.approx(11.0 / 8.0)}


def test_the_short_table_has_every_form_of_bide_and_the_best_peers() -> None:
    """One line for each work; a peer that leaves clients unserved is none of the best."""
    results = [
        make_result("bide-compiled", 5.0, 6.0, 7.0),
        make_result("bide-pure", 12.0, 13.0, 14.0),
        make_result("slow", 90.0),
        make_result("unfair", 1.0),
        make_result("granian", 6.0, 6.5, 7.0),
        make_result("waitress", 60.0),
    ]
    for result in results[:2]:
        result.contender = replace(
            result.contender, server=replace(result.contender.server, distributions=("bide",))
        )
    unfair = results[3].contender
    results[3].contender = replace(unfair, server=replace(unfair.server, aside=True))
    run = replace(make_run(*results), forms=FORMS)
    assert (
        "| Hello | CPU µs/request, less is better | 6.00 (5.00–7.00) | 13.0 (12.0–14.0) |"
        " granian 6.50 (6.00–7.00); waitress 60.0 (one round) |"
    ) in write_markdown(run).splitlines()


def test_the_best_peers_are_those_with_most_where_more_is_better() -> None:
    """Requests a second, for one."""
    scenario, _ = make_run(make_result("bide")).tables[0]
    few, many = make_result("few"), make_result("many")
    few.samples[1] = Sample({REQUESTS: 10.0}, {}, 0.0)
    many.samples[1] = Sample({REQUESTS: 20.0}, {}, 0.0)
    found = find_best(replace(scenario, headline=REQUESTS), [few, many], 2)
    assert [result.contender.server.name for result in found] == ["many", "few"]


def test_a_form_that_is_not_available_is_in_the_report_with_its_reason() -> None:
    """Who reads the table sees why there is no column of it."""
    run = replace(make_run(make_result("bide-pure", 10.0)), missing="the compiled form: no gcc")
    assert "- **the compiled form: no gcc**" in write_markdown(run).splitlines()


def test_an_aim_about_an_earlier_bide_is_judged_only_in_a_run_that_has_it() -> None:
    """Else every report without `--before` would say that it was not measured."""
    aim = Aim(CPU, 1.0, "at most", "bide-before", bide="bide-pure")
    results = [make_result(f"bide-{form}", 12.0) for form in ("compiled", "pure", "before")]
    scenario = replace(make_run(*results).tables[0][0], aims=(aim,))
    assert judge_all([(scenario, results[:2])]) == []
    ((_, verdict),) = judge_all([(scenario, results)])
    assert verdict.outcome == "reached"
    assert verdict.wanted == "bide-pure: CPU µs/request ≤ 1 × bide-before"


def test_every_scenario_has_bide_first_and_aims_at_its_own_peers() -> None:
    """The report takes the first contender for Bide and looks peers up by name."""
    with Failures() as failures:
        for scenario in SCENARIOS:
            with failures.of(scenario.name):
                names = [contender.server.name for contender in scenario.contenders]
                ours = [contender.is_bide for contender in scenario.contenders]
                assert names[0] == "bide"
                assert ours == sorted(ours, reverse=True)
                assert len(set(names)) == len(names)
                peers = names[sum(ours) :]
                assert {aim.peer for aim in scenario.aims} <= {None, "bide-before", *peers}
                assert scenario.headline in scenario.load.columns
                assert {aim.figure for aim in scenario.aims} <= set(scenario.load.columns)


def test_every_command_line_names_its_application_and_its_port() -> None:
    """A template that lost a field would measure something else, or nothing."""
    with Failures() as failures:
        for scenario in SCENARIOS:
            with failures.of(scenario.name):
                for contender in scenario.in_forms(FORMS).contenders:
                    line = " ".join(contender.server.argv(contender.application, 45678))
                    assert contender.application in line
                    assert "45678" in line
                    assert "{" not in line
                    assert (str(CERTIFICATE) in line) is contender.server.tls
                    assert (str(KEY) in line) is contender.server.tls
                    assert ("--workers 2" in line) is (scenario.workers == 2)


def test_a_scenario_in_forms_has_each_of_them_in_place_of_bide() -> None:
    """Each imports its own package; the peers stay."""
    scenario = SCENARIOS[0].in_forms(FORMS)
    servers = [contender.server for contender in scenario.contenders]
    assert [server.name for server in servers[:2]] == ["bide-compiled", "bide-pure"]
    assert [server.packages for server in servers[:2]] == [form.packages for form in FORMS]
    assert scenario.contenders[2:] == SCENARIOS[0].contenders[1:]


def test_a_scenario_with_two_set_ups_of_bide_has_each_of_them_in_each_form() -> None:
    """Under names of their own, so that the short table finds the plain one."""
    scenario = next(each for each in SCENARIOS if each.name == "workers-hello")
    servers = [contender.server for contender in scenario.in_forms(FORMS).contenders]
    assert [(server.name, server.packages, "--preload" in server.command) for server in servers][
        :4
    ] == [
        ("bide-compiled", FORMS[0].packages, False),
        ("bide-pure", FORMS[1].packages, False),
        ("bide-compiled-preload", FORMS[0].packages, True),
        ("bide-pure-preload", FORMS[1].packages, True),
    ]
    assert [server.packages for server in servers[4:]] == [None] * 3
