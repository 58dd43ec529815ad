"""What systems lack, and what is done there.

Native Windows has no fork, few signals, and so no server. Waiting works there: ``bide.wait`` and
its company, in a script or under another server. macOS has no epoll and no ``/proc``.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bide.errors import StartError

if TYPE_CHECKING:
    import socket


def has_servers() -> bool:
    """Whether a server can run on this system."""
    return sys.platform != "win32"


def refuse_windows(what: str = "Bide's server") -> None:
    """Raise StartError on native Windows, where no server can run.

    Args:
        what: what was asked for, as the message says it.
    """
    if not has_servers():
        raise StartError(
            f"{what} does not run on native Windows, which has no fork and few signals: "
            "use WSL or a Linux container"
        )


def at_fork(**functions: Callable[[], Any]) -> None:
    """Register functions as :func:`os.register_at_fork` does, where processes can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**functions)


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return those of the named signals that this system has."""
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)


def listens(sock: socket.socket) -> bool:
    """Whether a stream socket listens, also where the system cannot be asked that.

    There it is taken to listen if it has no peer.

    Raises:
        OSError: it is closed.
    """
    import socket  # not for the command line's help, which is to be quick

    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
    try:
        sock.getpeername()
    except OSError:
        return True
    return False
