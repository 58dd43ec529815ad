"""Running a server's event loop, which goes on whatever the application raises into it.

asyncio lets ``SystemExit`` and ``KeyboardInterrupt`` of any task or callback end the loop, and with
it all requests. So does an error of the application's signal handler that comes while the loop's
own code runs, and a call of ``loop.stop()``. Here the loop goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import selectors
import signal
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from bide.forks import end_child

log = logging.getLogger("bide")

_LOOPS_OWN: Final = (str(Path(asyncio.__file__).parent), selectors.__file__)


def run_through(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    """Run a loop until ``main`` has ended; raise what it raises.

    An error of the loop itself is raised too. So is the ``KeyboardInterrupt`` of Control-C, while
    Python's own handler is set.
    """
    task = loop.create_task(main)
    process = os.getpid()
    error: BaseException | None = None
    while True:
        try:
            # Inside the ``try``: a signal's handler may raise another error while this one is
            # looked at and logged.
            if error is not None:
                if os.getpid() != process:  # a forked child has raised, and is not the server
                    end_child(error)
                # No callback is lost: asyncio takes them out one at a time.
                if task.done() or not _from_application(error, loop):
                    break
                told, error = error, None
                log.error(
                    "the application has raised an error in the event loop, which goes on",
                    exc_info=told,
                )
            loop.run_until_complete(task)
            return
        except BaseException as raised:  # noqa: BLE001 - it is looked at above
            error = raised
    raise error


def _from_application(error: BaseException, loop: asyncio.AbstractEventLoop) -> bool:
    if loop.is_closed():
        return False
    if isinstance(error, KeyboardInterrupt):
        return signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    if isinstance(error, SystemExit):
        return True
    if isinstance(error, RuntimeError) and "stopped before Future" in str(error):  # loop.stop()
        return True
    # An error of the loop's own code would be raised again and again. The last frame tells: that of
    # a signal handler's error is the handler's.
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and not frames[-1].filename.startswith(_LOOPS_OWN)


async def end_tasks(seconds: float) -> None:
    """Cancel all other tasks of the running loop, and close its async generators.

    Args:
        seconds: how long they may take to end; those that go on are named in the log.
    """
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in tasks:
        task.cancel()
    pending = (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else set()
    for task in pending:
        log.warning("a task goes on though it was cancelled: %r", task)
    for task in tasks - pending:
        if not task.cancelled() and task.exception() is not None:
            log.error("a task failed when it was cancelled: %r", task, exc_info=task.exception())
    try:
        async with asyncio.timeout(seconds):
            await loop.shutdown_asyncgens()
    except TimeoutError:
        log.warning("async generators have not closed within %g s", seconds)
