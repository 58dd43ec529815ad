"""Listening sockets that another process has opened: systemd, or the parent of this one.

systemd's way is that of sd_listen_fds(3): descriptors from 3 on, for the process LISTEN_PID alone.
A parent of Bide's own names the descriptors, and itself: the child's number is not known to it yet.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, Final

from bide.errors import StartError
from bide.systems import listens

FIRST: Final = 3
OWN: Final = "bide-listener"
"""The name of those that Bide has opened itself, and another process of it has kept."""

_SYSTEMD: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_PARENT: Final = "_BIDE_HANDED_OVER"  # PARENT:DESCRIPTOR,DESCRIPTOR


class HandedOver:
    """The sockets that were handed over, until each is taken.

    Args:
        sockets: each with its name; those named ``OWN`` were opened by Bide.

    Attributes:
        enough: whether others have opened any: they are listened on without any address.
        parent: the number of the process that has handed them over, if it is Bide's own; else 0.
        warning: why there are none though systemd has some; else empty.
    """

    def __init__(
        self,
        sockets: Iterable[tuple[socket.socket, str]] = (),
        warning: str = "",
        parent: int = 0,
    ) -> None:
        self._sockets = dict(sockets)
        self.enough = any(name != OWN for name in self._sockets.values())
        self._all = frozenset(self._sockets)
        self._own = frozenset(each for each, name in self._sockets.items() if name == OWN)
        self.warning = warning
        self.parent = parent

    def __contains__(self, sock: object) -> bool:
        """Whether a socket was handed over, also if it has been taken."""
        return sock in self._all

    def is_own(self, sock: socket.socket) -> bool:
        """Whether a socket was opened by Bide, and kept for it since; also if it has been taken."""
        return sock in self._own

    def take(self, family: int, where: Any) -> socket.socket | None:
        """Take the socket that listens on an address; None if there is none, or it was taken.

        Args:
            family: of the address.
            where: as for ``bind``: of a Unix socket its path; else host and port. Port 0 is any.
        """
        for sock in self._sockets:
            if sock.family == family and _is_at(sock, where):
                del self._sockets[sock]
                return sock
        return None

    def take_rest(self) -> Iterator[socket.socket]:
        """Take those of others that are left, on which clients wait; close those of Bide's own."""
        while self._sockets:
            sock, name = self._sockets.popitem()
            if name == OWN:  # of an earlier configuration
                sock.close()
            else:
                yield sock


def _is_at(sock: socket.socket, where: Any) -> bool:
    name: Any = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        if isinstance(name, bytes):  # an abstract one's
            return bool(os.fsdecode(name) == where)
        # Where its path is gone, as with the directory of a service that was stopped, nobody comes.
        return os.path.abspath(name) == os.path.abspath(where) and os.path.exists(where)
    return bool(name[0] == where[0] and where[1] in (0, name[1]))


def take_over(environ: MutableMapping[str, str]) -> HandedOver:
    """Return what was handed over to this process; what says so is removed from the environment.

    Then no child of this process takes it for its own. Call it once, before anything else opens
    files.

    Raises:
        StartError: a descriptor is not a listening stream socket.
    """
    told = {name: environ.pop(name, "") for name in _SYSTEMD}
    parent, _, numbers = environ.pop(_PARENT, "").partition(":")
    if parent == str(os.getppid()):
        return HandedOver(
            ((_adopted(int(each), "parent"), "parent") for each in numbers.split(",")),
            parent=int(parent),
        )
    count = int(told["LISTEN_FDS"]) if told["LISTEN_FDS"].isdecimal() else 0
    if not count:
        return HandedOver()
    if told["LISTEN_PID"] != str(os.getpid()):
        return HandedOver(
            warning=f"sockets were handed over to process {told['LISTEN_PID']}, and this is "
            f"{os.getpid()}: they are not used; start it directly, or by exec"
        )
    names = told["LISTEN_FDNAMES"].split(":")
    names += ["unknown"] * (count - len(names))
    return HandedOver(
        (_adopted(number, name), name)
        for number, name in zip(range(FIRST, FIRST + count), names, strict=False)
    )


def _adopted(number: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(number, False)
        sock = socket.socket(fileno=number)
        if sock.type == socket.SOCK_STREAM and listens(sock):
            return sock
        sock.close()
    except OSError as error:
        raise StartError(
            f"descriptor {number} ({name}) was handed over: {error.strerror}"
        ) from error
    raise StartError(
        f"descriptor {number} ({name}) was handed over, and is not a listening stream socket: the "
        "socket unit needs ListenStream= and Accept=no"
    )


def for_child(listeners: Iterable[socket.socket]) -> dict[str, str]:
    """Return what a child's environment needs to take over sockets of this process.

    The child must be this process's own, and have the descriptors under the same numbers, as
    ``subprocess`` gives them by ``pass_fds``.
    """
    return {_PARENT: f"{os.getpid()}:{','.join(str(each.fileno()) for each in listeners)}"}
