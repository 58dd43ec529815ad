"""Telling systemd, or what speaks as it does, what becomes of this process: sd_notify(3).

Without ``NOTIFY_SOCKET`` in the environment nothing is told. Whoever has a server's process calls
this: the one that serves, or one that has workers. From any thread; nothing here blocks for long.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from time import monotonic_ns
from typing import Final

from bide.transports.handed_over import OWN

log = logging.getLogger("bide")

PATIENCE: Final = 1.0
"""Seconds that a message may wait until systemd takes it."""
LONGEST: Final = 10.0**9
"""Seconds that an extension of a time-out has at most: systemd takes no infinite one."""


class Notifier:
    """Sends messages to a service manager.

    Args:
        address: the path of its socket, or ``@`` and an abstract one's name; empty: none is sent.
        storing: how many descriptors it keeps for this service; 0: it keeps none.
    """

    def __init__(self, address: str = "", storing: int = 0) -> None:
        self._address = address
        self._storing = storing

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Notifier:
        """Return the one that systemd asks for: by NOTIFY_SOCKET, and FDSTORE for descriptors."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        stored = environ.get("FDSTORE", "")
        return cls(address, int(stored) if stored.isdecimal() else 0)

    def ready(self, status: str = "", main: int = 0) -> None:
        """Say that it serves: after the start, or after :meth:`reloading`.

        Args:
            status: what the server does, for who looks.
            main: the number of the process that is the service's from now on; 0: the same.
        """
        more = [f"MAINPID={main}"] if main else []
        self._send("READY=1", *more, *_status(status))

    def reloading(self) -> None:
        """Say that it reloads. :meth:`ready` must follow, also when that has failed."""
        # systemd tells by the time, in the same datagram, that this answers its latest request.
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self, seconds: float, status: str = "") -> None:
        """Say that it stops, and how many seconds from now that may take."""
        self._send("STOPPING=1", _extension(seconds), *_status(status))

    def extend(self, seconds: float, status: str = "") -> None:
        """Say that the start or the stop may take so many seconds from now."""
        self._send(_extension(seconds), *_status(status))

    def status(self, text: str) -> None:
        """Say what the server does, for who looks."""
        self._send(*_status(text))

    def alive(self) -> None:
        """Say that it lives."""
        self._send("WATCHDOG=1")

    def store(self, listeners: Iterable[socket.socket]) -> bool:
        """Have listening sockets kept for the service's next process, in place of those before.

        That process is handed them over, as :func:`bide.transports.handed_over.take_over` says.

        Returns:
            Whether they are kept: then they outlive this process.
        """
        if not self._storing:
            return False
        self._send("FDSTOREREMOVE=1", f"FDNAME={OWN}")
        numbers = [each.fileno() for each in listeners]
        if len(numbers) > self._storing:
            log.warning(
                "systemd keeps %d of %d listening sockets: raise FileDescriptorStoreMax",
                self._storing,
                len(numbers),
            )
            return False
        return self._send("FDSTORE=1", f"FDNAME={OWN}", descriptors=numbers)

    def _send(self, *lines: str, descriptors: Iterable[int] = ()) -> bool:
        if not self._address:
            return False
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(name)
                text = "\n".join(lines).encode()
                numbers = list(descriptors)
                if numbers:
                    socket.send_fds(sock, [text], numbers)
                else:
                    sock.send(text)
        except OSError as error:  # the service goes on: systemd may be about to end it
            log.warning("systemd cannot be told %s: %s", lines[0], error)
            return False
        return True


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(min(seconds, LONGEST) * 1e6)}"


class Watchdog:
    """Says twice in each interval that the process lives, while it does.

    Args:
        notifier: tells systemd.
        interval: seconds after which systemd counts as dead who has said nothing; 0: it never does.
        fresh: whether it lives; asked before each time.
    """

    def __init__(
        self, notifier: Notifier, interval: float, fresh: Callable[[], bool] = lambda: True
    ) -> None:
        self._notifier = notifier
        self.interval = interval / 2
        self._fresh = fresh
        self._due = 0.0

    @classmethod
    def of(
        cls,
        notifier: Notifier,
        environ: Mapping[str, str],
        fresh: Callable[[], bool] = lambda: True,
    ) -> Watchdog:
        """Return the one that systemd asks this process for, by WATCHDOG_USEC and WATCHDOG_PID."""
        interval = environ.get("WATCHDOG_USEC", "")
        if not interval.isdecimal() or environ.get("WATCHDOG_PID", "") not in (
            "",
            str(os.getpid()),
        ):
            return cls(notifier, 0.0, fresh)
        return cls(notifier, int(interval) / 1e6, fresh)

    def look(self, now: float) -> float:
        """Say that it lives, if it is time to and it does; return the seconds to the next look.

        Args:
            now: monotonic seconds.
        """
        if now >= self._due and self._fresh():
            self._notifier.alive()
            self._due = now + self.interval
        # What does not live now is asked again soon: it may live again before the interval is over.
        return max(self._due - now, self.interval / 4)
