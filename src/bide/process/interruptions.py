"""Running an event loop that belongs to a server, whatever the application raises into it.

asyncio lets ``SystemExit`` and ``KeyboardInterrupt`` of any task or callback end the loop, and with
it everybody's requests. So does what a signal handler of the application raises while the loop's
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
    """Run a loop until ``main`` has ended; raise what that raises.

    An error of the loop itself is raised too, and so is Python's own answer to Control-C while no
    other handler is set.
    """
    task = loop.create_task(main)
    process = os.getpid()
    error: BaseException | None = None
    while True:
        try:
            # In here: while it is looked at and told, a signal's handler may raise another one.
            if error is not None:
                if os.getpid() != process:  # a forked child has raised, and is not the server
                    end_child(error)
                # What was ready is still queued: asyncio takes one callback out at a time.
                if task.done() or not _from_application(error, loop):
                    break
                told, error = error, None
                log.error(
                    "the application raised into the event loop, which goes on", exc_info=told
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
    # What the loop's own code raises would be raised again and again. A signal handler's error has
    # been raised by the handler.
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and not frames[-1].filename.startswith(_LOOPS_OWN)


async def end_tasks(seconds: float) -> None:
    """Cancel all other tasks of the running loop, and close its async generators.

    Args:
        seconds: how long they have for that; those that go on are named in the log.
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
