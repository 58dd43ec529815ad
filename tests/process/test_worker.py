"""Where a server may be run, and the signal that comes before it serves."""

import asyncio
import os
import signal
import threading

import pytest

import bide
from bide.process import signals as module
from bide.process.signals import Signals
from bide.process.worker import Stop
from tests.failures import Failures, same
from tests.served import DEADLINE, LONG, answering


def test_bide_run_is_refused_off_the_main_thread() -> None:
    """Python gives signals to that one alone."""
    refused: list[str] = []

    def run() -> None:
        try:
            bide.run(answering(lambda environ: b""), bind="127.0.0.1:0")
        except bide.StartError as error:
            refused.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE)
    (line,) = refused
    assert line.startswith("bide.run needs the main thread")


def test_bide_run_is_refused_inside_an_event_loop() -> None:
    """The server for that is bide.Server."""

    async def run() -> None:
        bide.run(answering(lambda environ: b""), bind="127.0.0.1:0")

    with pytest.raises(bide.StartError, match="this thread runs one already: use 'async with"):
        asyncio.run(run())


def test_a_signal_that_comes_before_the_server_serves_stops_it_once() -> None:
    """It is kept until there is a server."""
    stopped: list[str] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def stop(delay: float) -> None:
            stopped.append(f"stopped after {delay:g} s")
            ended.set()

        with signals.attach(loop, stop):
            await asyncio.wait_for(ended.wait(), DEADLINE)
            signals._begin_to_stop()  # as the thread does that has heard it, too
            await asyncio.sleep(0)

    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals._first() == signal.SIGTERM
        asyncio.run(serve())
    assert stopped == ["stopped after 0 s"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_within_the_delay_ends_it_and_one_behind_it_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the clock, since a blocked loop cannot say that the delay is over. SIGINT has none."""
    ended: list[int] = []
    clock = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "_exit", ended.append)
    term, interrupt = signal.SIGTERM, signal.SIGINT
    cases = [
        ("within the delay", [(0.0, term), (9.0, interrupt)], [10.0, 0.0], []),
        ("two within the delay", [(0.0, term), (9.0, term), (9.5, term)], [10.0, 0.0], [143]),
        ("after the delay", [(0.0, term), (10.0, term)], [10.0], [143]),
        ("SIGINT first", [(0.0, interrupt), (1.0, term)], [0.0], [143]),
    ]

    async def hear(signals: Signals, numbers: list[tuple[float, signal.Signals]]) -> list[float]:
        stopped: list[float] = []
        with signals.attach(asyncio.get_running_loop(), stopped.append, 10.0):
            for clock[0], number in numbers:
                signals._answer(number)
                await asyncio.sleep(0)
        return stopped

    with Failures() as failures:
        for what, numbers, delays, codes in cases:
            ended.clear()
            with failures.of(what), Signals() as signals:
                same(asyncio.run(hear(signals, numbers)), delays)
                same(ended, codes)


def test_a_delay_ends_by_itself_or_when_it_is_asked_again() -> None:
    """Whatever comes first; without a delay nothing is waited for."""

    async def delays() -> list[bool]:
        by_itself, at_once, hurried = Stop(), Stop(), Stop()
        by_itself.ask(0.001)
        at_once.ask()
        hurried.ask(LONG)
        asyncio.get_running_loop().call_soon(hurried.ask)
        return [await each.delay() for each in (by_itself, at_once, hurried)]

    assert asyncio.run(asyncio.wait_for(delays(), DEADLINE)) == [True, False, True]
