"""Ending a connected socket so that its client learns it, even if a child has the descriptor.

A forked child has a copy of each open descriptor. While it lives, ``close`` alone sends nothing.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Any, Final

from bide.systems import at_fork

_RESET: Final = struct.pack("ii", 1, 0)
_UNSPECIFIED: Final = bytes(16)  # a sockaddr of the family AF_UNSPEC


class _Forks:
    """Whether this process has forked, so that a child may have copies of its descriptors."""

    def __init__(self) -> None:
        self.any = False

    def note(self) -> None:
        self.any = True


forks = _Forks()
at_fork(after_in_parent=forks.note)


def end(sock: socket.socket) -> None:
    """Close a socket: the client reads all that was sent, and then the end."""
    with contextlib.suppress(OSError):  # the client has gone already
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def unconfirmed(sock: socket.socket) -> int:
    """Return how many bytes of what was sent may be lost yet: the client's system has not got them.

    The end counts for one. It is 0 for a Unix socket, which loses nothing, and where the system
    does not say it: Linux does.
    """
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return 0
    import fcntl  # native Windows has neither
    import termios

    found = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))  # of a socket it is SIOCOUTQ
    return int.from_bytes(found, sys.byteorder)


def prepare_reset(sock: socket.socket) -> None:
    """Set the socket so that closing it resets the connection, in whatever process."""
    with contextlib.suppress(OSError):  # a Unix socket knows no reset, and is closed
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def reset(sock: socket.socket) -> None:
    """Close a socket, after ``prepare_reset``: the client learns that what it has is incomplete."""
    if sock.family == socket.AF_UNIX:
        end(sock)
        return
    # After a shutdown it would seem complete. Linux resets a TCP connection when its socket is
    # connected to no address, for which Python has no call.
    if forks.any and sys.platform == "linux":
        _disconnect(sock.fileno())
    sock.close()


def _disconnect(descriptor: int) -> None:
    import ctypes  # rarely needed, and loading it takes milliseconds

    library: Any = ctypes.CDLL(None)
    library.connect(descriptor, _UNSPECIFIED, len(_UNSPECIFIED))
