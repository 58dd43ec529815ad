"""The start of applications under a WSGI server: before the first request of a process."""

from __future__ import annotations

import atexit
import concurrent.futures

from bide.serving.lifetime import Lifetime


class Starting:
    """Calls the ``on_start`` functions once, for all applications of a host; from any thread.

    Attributes:
        state: what the functions make for the applications.
    """

    def __init__(self) -> None:
        self._lifetime = Lifetime()
        self.state = self._lifetime.state
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._unstarted = [None]  # the thread that takes it starts; the others wait

    def ensure(self) -> None:
        """Call the functions, unless that has been done; return when they have ended.

        Raises:
            ApplicationFailed: one of them has failed; the next call tries again.
        """
        started = self._started
        try:
            self._unstarted.pop()
        except IndexError:
            started.result()
            return
        try:
            self._lifetime.start_here()
        except BaseException as error:
            self._started = concurrent.futures.Future()
            self._unstarted.append(None)
            started.set_exception(error)
            raise
        atexit.register(self._lifetime.stop_here)
        started.set_result(None)
