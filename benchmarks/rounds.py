"""Measuring: every server of a scenario in turn, and that several times over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from . import processes
from .certificate import CERTIFICATE
from .errors import RoundFailedError
from .loads.kind import Conditions, Sample
from .scenarios import Contender, Scenario


@dataclass(slots=True)
class Result:
    """What one contender of a scenario gave.

    Attributes:
        contender: Which.
        command: The command line, with the port of its last start.
        missing: Why it could not be measured at all, or `None`.
        samples: Those that gave figures, by the number of the round.
        failures: The reason of each round that gave none.
    """

    contender: Contender
    command: list[str] = field(default_factory=list)
    missing: str | None = None
    samples: dict[int, Sample] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def measure(
    scenario: Scenario, conditions: Conditions, tell: Callable[[str], None]
) -> list[Result]:
    """Measure the contenders turn by turn (A B C A B C …); return a result for each, in order.

    `tell` gets one line for each round. A round that fails, or a server that is not installed, is
    in the results with its reason.
    """
    results = [Result(contender) for contender in scenario.contenders]
    for result in results:
        result.missing = result.contender.server.missing()
        if result.missing is not None:
            tell(f"{scenario.name}: {result.contender.server.name} not measured: {result.missing}")
    for number in range(1, conditions.rounds + 1):
        for result in results:
            if result.missing is not None:
                continue
            line = f"{scenario.name} {number}/{conditions.rounds} {result.contender.server.name}: "
            try:
                sample = _measure_once(scenario, result, conditions)
            except RoundFailedError as failure:
                result.failures.append(str(failure))
                tell(f"{line}failed: {failure}")
            else:
                result.samples[number] = sample
                tell(line + _summarise(sample))
    return results


def _measure_once(scenario: Scenario, result: Result, conditions: Conditions) -> Sample:
    port = processes.find_free_port()
    server, application = result.contender.server, result.contender.application
    result.command = server.argv(application, port)
    cores = conditions.server_cores
    certificate = CERTIFICATE if server.tls else None
    with processes.start(result.command, port, cores, server.packages, certificate) as process:
        return scenario.load.measure(process, conditions)


def _summarise(sample: Sample) -> str:
    figures = ", ".join(f"{figure.title} {value:.1f}" for figure, value in sample.figures.items())
    return figures + (f", errors {sample.errors}" if sample.errors else "")
