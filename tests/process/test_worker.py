"""Where a server may be run, and the signal that comes before it serves."""

import asyncio
import signal
import threading

import pytest

import bide
from bide.process.signals import Signals
from tests.served import DEADLINE, answering


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
    assert line.startswith("bide.run is for the main thread")


def test_bide_run_is_refused_inside_an_event_loop() -> None:
    """The server for that is bide.Server."""

    async def run() -> None:
        bide.run(answering(lambda environ: b""), bind="127.0.0.1:0")

    with pytest.raises(bide.StartError, match="one runs on this thread already: use 'async with"):
        asyncio.run(run())


def test_a_signal_that_comes_before_the_server_serves_stops_it_once() -> None:
    """It is kept until there is a server."""
    stopped: list[str] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def stop() -> None:
            stopped.append("stopped")
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
    assert stopped == ["stopped"]
    assert signal.getsignal(signal.SIGTERM) == before
