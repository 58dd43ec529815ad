"""What is told of a server's process to those outside: to systemd, and by the PID file.

A server has one of these, in the process that it is started as: the one that serves, or the one
that has workers. Nothing here knows which. All methods are for one thread.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping

from bide.process.notify import Notifier, Watchdog
from bide.process.pid_file import PidFile
from bide.serving.lines import MOST_SECONDS
from bide.settings import Settings
from bide.waiting.cleanups import cleanup_time


class Service:
    """One server, as those outside see it.

    Args:
        settings: ``pid_file``, and those that bound how long the end takes.
        environ: where systemd says how it is told.
        fresh: whether all that serves is alive; for systemd's watchdog.

    Attributes:
        watchdog: to be looked at by whoever calls this, if its ``interval`` is not 0.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str] = os.environ,
        fresh: Callable[[], bool] = lambda: True,
    ) -> None:
        self._finish = settings.graceful_timeout + 2 * cleanup_time.seconds + MOST_SECONDS
        self._pid_file = PidFile(settings.pid_file)
        self._notifier = Notifier.of(environ)
        self._status = ""
        self.watchdog = Watchdog.of(self._notifier, environ, fresh)

    def starting(self) -> None:
        """Called before it listens.

        Raises:
            StartError: another server that runs has written the PID file.
        """
        self._pid_file.check()

    def store(self, listeners: Iterable[socket.socket]) -> bool:
        """Have systemd keep listening sockets; return whether it does: then they outlive this."""
        return self._notifier.store(listeners)

    def serving(self, status: str) -> None:
        """Called when it serves.

        Args:
            status: what it serves, and where.

        Raises:
            StartError: the PID file cannot be written.
        """
        self._status = status
        self._pid_file.write()
        self._notifier.ready(status)

    def reloading(self) -> None:
        """Called when it begins to reload; :meth:`reloaded` must follow in any case."""
        self._notifier.reloading()

    def reloaded(self, main: int = 0) -> None:
        """Called when it has reloaded, or failed to.

        Args:
            main: the number of the process that is the server's from now on; 0: the same.
        """
        self._notifier.ready(self._status, main)

    def stopping(self, delay: float) -> None:
        """Called when it begins to stop, and again when the delay has ended.

        Args:
            delay: seconds for which it accepts as before.
        """
        what = f"accepting for {delay:g} s" if delay else "requests in progress are finished"
        self._notifier.stopping(delay + self._finish, f"stopping: {what}")

    def stopped(self, seconds: float) -> None:
        """Called when it has stopped: threads and ``atexit`` functions are left.

        Args:
            seconds: how long threads may still take.
        """
        self._notifier.extend(max(seconds, cleanup_time.seconds) + MOST_SECONDS, "stopped")
        self._pid_file.remove()
