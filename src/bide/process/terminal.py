"""The terminal that a server may have been started on, and who sits there."""

from __future__ import annotations

import os
import signal


def has_terminal() -> bool:
    """Whether the process belongs to a terminal that is there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def how_at_once(number: int, interactive: bool = False) -> str:
    """Return how a server is stopped at once after a first signal, and in brackets its name.

    Args:
        number: the signal.
        interactive: whether it came from the keyboard.
    """
    again = "Ctrl-C again" if interactive or number == signal.SIGINT else "a second signal"
    return f"{again} to stop at once ({signal.Signals(number).name})"
