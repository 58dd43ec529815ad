"""Where the control socket is: its path, who has it, and when it is removed.

The file of a server that lives is never removed or replaced; that of one that is gone is. Whoever
looks which it is, and takes the path, holds a lock of the directory meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import stat
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Final

from bide.errors import StartError
from bide.monitoring import OFF
from bide.seeing.client import SUFFIX, directory, is_live, is_private
from bide.transports.addresses import inode_of, remove_path

log = logging.getLogger("bide")

PATIENCE: Final = 2.0
"""Seconds for which other servers may hold the lock of the directory."""
MOST: Final = 99
"""How many servers of one name have a socket."""
_RIGHTS: Final = 0o600


class ControlSocket:
    """A listening control socket and its file.

    Attributes:
        socket: listens.
        path: its file.
    """

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.socket = sock
        self.path = path
        self._inode = inode_of(path)
        self._process = os.getpid()

    @property
    def name(self) -> str:
        """What the server is called, by which it is found."""
        return os.path.basename(self.path).removesuffix(SUFFIX)

    def leave(self) -> None:
        """Have the file stay: another version of this server has the path now."""
        self._inode = None

    def remove(self) -> None:
        """Remove the file, if it is still this one's; only in the process that has made it."""
        if self._process == os.getpid():
            with contextlib.suppress(OSError):  # its directory is gone, or is read-only now
                remove_path(self.path, self._inode)


def open_socket(setting: str, application: str, taken: str = "") -> ControlSocket | None:
    """Listen at the control socket of a server; None: it has none.

    Args:
        setting: a path; ``off``; empty: at the usual place, under a name of its own. There it is
            no error if that is not possible, only a line in the log.
        application: what the application is called, ``shop:app``, from which the name is made.
        taken: the path that the version before has: it is taken over.

    Raises:
        StartError: another server has the path, or it cannot be listened on.
    """
    if setting == OFF:
        return None
    path = taken or setting
    try:
        return _open(path, bool(taken)) if path else _open_usual(name_from(application))
    except OSError as error:
        what = f"the control socket {path}" if path else "a control socket"
        reason = error.strerror or str(error)
        if setting:
            raise StartError(f"{what} cannot be made: {reason}") from error
        log.info("%s cannot be made: %s", what, reason)
        return None


def name_from(application: str) -> str:
    """Return the name of a server from that of its application: ``shop`` of ``shop:app``."""
    return re.sub(r"[^\w.-]+", "-", application.partition(":")[0]).strip("-.")[:40] or "server"


def _open_usual(name: str) -> ControlSocket:
    place = directory()
    with contextlib.suppress(FileExistsError):
        os.mkdir(place, 0o700)
    if not is_private(place):
        raise OSError(f"{place} can be used by other users")
    with _alone(place):
        for number in range(1, MOST + 1):
            path = os.path.join(place, f"{name}{f'-{number}' if number > 1 else ''}{SUFFIX}")
            if _is_free(path):
                return _listen(path)
    raise OSError(f"{MOST} servers have the name {name}")


def _open(path: str, taking_over: bool) -> ControlSocket:
    with _alone(os.path.dirname(path)):
        if taking_over:
            beside = f"{path}.{os.getpid()}"
            made = _listen(beside)
            os.replace(beside, path)
            return ControlSocket(made.socket, path)
        if not _is_free(path):
            raise StartError(
                f"the control socket {path} is used by another server: stop that, or choose "
                "another path with --control"
            )
        return _listen(path)


def _is_free(path: str) -> bool:
    """Whether nobody listens on a path; the file of a server that is gone is removed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(f"{path} is there, and is not a socket")
    if is_live(path):
        return False
    os.unlink(path)
    return True


def _listen(path: str) -> ControlSocket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(sock.fileno(), _RIGHTS)  # on Linux the file never has other rights
        sock.bind(path)
        os.chmod(path, _RIGHTS)
        sock.listen(16)
    except OSError:
        sock.close()
        raise
    return ControlSocket(sock, path)


@contextlib.contextmanager
def _alone(place: str) -> Iterator[None]:
    """Hold the lock of a directory, so that no other server looks at its sockets meanwhile."""
    import fcntl  # native Windows has none

    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() >= deadline:
                    raise OSError(f"{place} is locked by another process") from None
                sleep(0.02)
        yield
    finally:
        os.close(descriptor)
