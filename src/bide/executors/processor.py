"""What a thread has used of the processors, and how long it has waited for one."""

from __future__ import annotations

import threading
import time

_clock_of = getattr(time, "pthread_getcpuclockid", None)  # macOS has none


class Usage:
    """One thread's, as the system counts it; made on that thread, and read from any.

    Attributes:
        known: whether the system tells what the thread has used.
    """

    def __init__(self) -> None:
        self._clock = None if _clock_of is None else _clock_of(threading.get_ident())
        self._files = f"/proc/self/task/{threading.get_native_id()}/"
        self.known = self._clock is not None

    def used(self) -> float:
        """Return the seconds that it has run on a processor; 0 where that is not known.

        Raises OSError when the thread has ended.
        """
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)

    def queued(self) -> float:
        """Return the seconds that it has waited for a processor; 0 where nobody counts them.

        A wait is counted when it is over.
        """
        try:
            with open(self._files + "schedstat", encoding="ascii") as file:
                return int(file.read().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def is_ready(self) -> bool:
        """Whether it runs, or could and waits for a processor; false where that is not known."""
        try:
            with open(self._files + "stat", "rb") as file:
                # After its name, which is in brackets and may hold any byte: R, S (asleep), …
                return file.read().rpartition(b") ")[2].startswith(b"R")
        except OSError:
            return False
