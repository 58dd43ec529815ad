"""Ending a connected socket so that its client learns it, whoever else has the descriptor.

A forked child has a copy of each open descriptor. While it lives, ``close`` alone sends nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from typing import Any, Final

_RESET: Final = struct.pack("ii", 1, 0)
_UNSPECIFIED: Final = bytes(16)  # a sockaddr of the family AF_UNSPEC


class _Forks:
    """Whether this process has forked, so that a child may have copies of its descriptors."""

    def __init__(self) -> None:
        self.any = False

    def note(self) -> None:
        self.any = True


forks = _Forks()
os.register_at_fork(after_in_parent=forks.note)


def end(sock: socket.socket) -> None:
    """Close a socket: the client reads all that was sent, and then the end."""
    with contextlib.suppress(OSError):  # the client has gone already
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def prepare_reset(sock: socket.socket) -> None:
    """Have the socket's closing reset the connection, whoever closes it."""
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
