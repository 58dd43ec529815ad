"""Asking a server what it does, and telling it what to do, on its control socket.

One request a connection: a line of words, such as ``status``. The answer is a line of JSON, and
then the end; of ``watch SECONDS`` it is a line each time, until the client closes. Who may use the
socket's file may do all of it.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bide.errors import ControlError

PATIENCE: Final = 10.0
"""Seconds for which a server that says nothing is waited for."""
NAMED: Final = (
    "NAME is the name of the server's control socket, without .sock; PATH is its path. If only one "
    "server runs, leave both out."
)
"""What the help of each command says of its first argument."""
SUFFIX: Final = ".sock"


def directory(environ: Mapping[str, str] = os.environ) -> str:
    """Return where the control sockets are of servers that were told no other place.

    That is ``bide`` in the user's runtime directory; else ``bide-UID`` in that for temporary files.
    """
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if os.path.isdir(runtime):
        return os.path.join(runtime, "bide")
    return os.path.join(environ.get("TMPDIR") or "/tmp", f"bide-{os.getuid()}")


def is_private(path: str) -> bool:
    """Whether a directory is this user's, and nobody else may write to it."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def is_live(path: str) -> bool:
    """Whether a server listens on a control socket.

    Raises:
        OSError: it cannot be told, as this user may not connect.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # so many ask that the next has to wait
            return True
    return True


def names() -> list[str]:
    """Return the names of the servers of this user that listen at the usual place."""
    place = directory()
    if not is_private(place):
        return []
    found = [each.removesuffix(SUFFIX) for each in os.listdir(place) if each.endswith(SUFFIX)]
    return [each for each in sorted(found) if is_live(os.path.join(place, each + SUFFIX))]


def find(name: str = "") -> str:
    """Return the path of a server's control socket.

    Args:
        name: the server's name; or a path, with a slash; empty: the only server that there is.

    Raises:
        ControlError: there is none, or there are several. The message is one line.
    """
    if "/" in name:
        return name
    found = names()
    if name in found or (not name and len(found) == 1):
        return os.path.join(directory(), (name or found[0]) + SUFFIX)
    if not found:
        raise ControlError(
            f"no server is found in {directory()}: give the path of its control socket"
        )
    if name:
        raise ControlError(f"there is no server {name!r}; there is: {', '.join(found)}")
    raise ControlError(f"there are several servers: name one of {', '.join(found)}")


def ask(path: str, *words: str) -> dict[str, Any]:
    """Ask a server, and return its answer; ``{"error": "…"}`` if it cannot do what it was told.

    Args:
        path: its control socket.
        words: what it is asked, such as ``"status"`` or ``"workers", "+1"``.

    Raises:
        ControlError: it does not answer.
    """
    answer: dict[str, Any] = next(_lines(path, words), {})
    if not answer:
        raise ControlError(f"the server at {path} has ended")
    return answer


def watch(path: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Return what a server does, again and again, until it ends or the iterator is closed.

    Args:
        path: its control socket.
        seconds: how far apart.

    Raises:
        ControlError: it does not answer.
    """
    return _lines(path, ("watch", f"{seconds:g}"), seconds)


def _lines(path: str, words: tuple[str, ...], seconds: float = 0.0) -> Iterator[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE + seconds)
        try:
            sock.connect(path)
            sock.sendall(f"{' '.join(words)}\n".encode())
            with sock.makefile("rb") as lines:
                for line in lines:
                    if line.endswith(b"\n"):  # else it has ended in the middle of it
                        yield json.loads(line)
        except TimeoutError:
            raise ControlError(f"the server at {path} does not answer") from None
        except OSError as error:
            raise ControlError(f"no server answers at {path}: {error.strerror or error}") from None
