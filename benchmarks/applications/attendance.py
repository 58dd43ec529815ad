"""How many requests are inside a waiting view right now."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Attendance:
    """A count of those present; from any thread.

    The lock is never held across a wait, so that it also holds where one thread carries many
    requests.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present = 0

    @property
    def present(self) -> int:
        """How many attend now."""
        return self._present

    @contextmanager
    def attend(self) -> Iterator[None]:
        """Count one more for the length of the `with` block."""
        with self._lock:
            self._present += 1
        try:
            yield
        finally:
            with self._lock:
                self._present -= 1
