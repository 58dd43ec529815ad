"""What a server says of itself, again and again, for ``bide top``: heard by a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from bide.errors import ControlError

AGAIN: Final = 1.0
"""Seconds after which a server that has ended is looked for again."""


class News:
    """The newest instance of a server, and whether it is there. Other threads only read.

    Args:
        watch: called without arguments; returns an endless iterator of instances, which ends, or
            raises ``ControlError`` or ``ValueError``, when the server ends.
        told: called from the thread after each change.
        again: seconds until a server that has ended is looked for again.

    Attributes:
        gone: whether the server has ended, or does not answer as one.
        failed: an error that is none of the server's; the thread has ended then.
    """

    def __init__(
        self,
        watch: Callable[[], Iterator[dict[str, Any]]],
        told: Callable[[], None],
        again: float = AGAIN,
    ) -> None:
        self.gone = False
        self.failed: BaseException | None = None
        self._watch = watch
        self._told = told
        self._again = again
        self._over = threading.Event()
        self._newest: deque[dict[str, Any]] = deque(maxlen=1)

    def begin(self) -> None:
        """Begin to listen."""
        threading.Thread(target=self._run, name="bide-top", daemon=True).start()

    def end(self) -> None:
        """Have the thread end with its next news; it is a daemon, and nobody has to wait for it."""
        self._over.set()

    def take(self) -> dict[str, Any] | None:
        """Return what has come since; ``None`` if nothing has."""
        try:
            return self._newest.pop()
        except IndexError:
            return None

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._listen()
                self.gone = True
                self._told()
                self._over.wait(self._again)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.failed = error
            self._told()

    def _listen(self) -> None:
        try:
            for instance in self._watch():
                if self._over.is_set():
                    return
                self.gone = False  # first: whoever takes the instance finds the server there
                self._newest.append(instance)
                self._told()
        except (ControlError, ValueError):
            return
