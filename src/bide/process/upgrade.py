"""SIGUSR2: another version of the program is started, and takes over the sockets.

The new one is a child of the old one. It inherits the listening sockets, starts its workers, and
says when all of them are ready. Then the old one has its own workers finish, and ends. A new one
that fails changes nothing. As long as there are two, neither ends a socket or removes its file,
however it ends itself: the workers of both are told to ``keep`` the sockets.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bide.process.listeners import INHERITED, Listeners
from bide.process.processes import fork

log = logging.getLogger("bide")


class Successor:
    """The new version, as the old one sees it."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pipe = pipe
        os.set_blocking(pipe, False)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._pipe

    def ready(self) -> bool | None:
        """Return whether it is ready; None: there is nothing to read yet."""
        try:
            return bool(os.read(self._pipe, 16))
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._pipe)


class Predecessor:
    """The old version, as the new one sees it.

    Args:
        told: what it has said.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._pipe: int = told["pipe"]
        os.set_inheritable(self._pipe, False)

    def tell(self) -> None:
        """Tell it that all workers are ready: it ends."""
        try:
            os.write(self._pipe, b"ready")
        except BrokenPipeError:  # it has ended by itself
            pass
        self.close()

    @property
    def gone(self) -> bool:
        """Whether it has ended: nobody reads the pipe any more."""
        watched = select.poll()
        watched.register(self._pipe, 0)  # for what is always told
        return bool(watched.poll(0))

    def close(self) -> None:
        """Close the pipe; in a forked worker, too."""
        os.close(self._pipe)


def command() -> list[str]:
    """Return the command line by which this program was started."""
    return [sys.executable, *sys.orig_argv[1:]]


def start_successor(listeners: Listeners, control: str) -> Successor:
    """Start the new version.

    Args:
        listeners: the sockets that it inherits.
        control: the path of the control socket, which it takes over.

    Raises:
        OSError: it cannot be started.
    """
    descriptors, told = listeners.inheritable()
    told = {**told, "control": control}
    ours, theirs = os.pipe()

    def nothing() -> None:
        return

    try:
        pid = fork(nothing)
        if pid == 0:
            _become(descriptors, theirs, {**told, "pipe": theirs})
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return Successor(pid, ours)


def _become(descriptors: list[int], pipe: int, told: Mapping[str, Any]) -> None:
    """Run the new version in this process, which was forked for that."""
    try:
        for each in (*descriptors, pipe):
            os.set_inheritable(each, True)
        environ = {**os.environ, INHERITED: json.dumps(told)}
        environ.pop("WATCHDOG_PID", None)  # systemd watches the new process from now on
        os.execve(sys.executable, command(), environ)
    except OSError as error:
        os.write(2, f"bide: cannot start {sys.executable}: {error.strerror}\n".encode())
    finally:
        os._exit(1)


class Versions:
    """The other version of this server, if there is one: the one before, or the next.

    Args:
        before: what the version before has told this one; None: there is none.

    Attributes:
        successor: the next one, while it starts; to be polled.
        predecessor: the one before, until this one serves.
        control: the path of the control socket of the one before, to be taken over; or empty.
    """

    def __init__(self, before: Mapping[str, Any] | None) -> None:
        self.successor: Successor | None = None
        self.predecessor = None if before is None else Predecessor(before)
        self.control: str = "" if before is None else before.get("control", "")
        self._gone = False  # the next one serves

    @property
    def shared(self) -> bool:
        """Whether another version has the sockets, too, and may go on with them."""
        before = self.predecessor
        return self.successor is not None or (before is not None and not before.gone)

    @property
    def beside(self) -> bool:
        """Whether another version is the server for those outside."""
        return self._gone or self.predecessor is not None

    def start(self, listeners: Listeners, control: str, keep: Callable[[], None]) -> None:
        """Start the next one, if there can be one.

        Args:
            listeners: the sockets that it inherits.
            control: the path of the control socket.
            keep: called before, to have the sockets outlive this version.
        """
        if os.getpid() == 1:
            log.error("SIGUSR2 is ignored: this is process 1, and the container would end with it")
            return
        if self.successor is not None or self.predecessor is not None:
            log.error("another version takes over already")
            return
        keep()  # whatever ends this process: the other one has the sockets, too
        try:
            self.successor = start_successor(listeners, control)
        except OSError as error:
            log.error("the new version cannot be started: %s", error.strerror)
            return
        log.info("the new version is started (SIGUSR2), pid %d", self.successor.pid)

    def hear(self) -> int:
        """Return the next version's number when it has begun to serve, once; else 0."""
        successor = self.successor
        if successor is None or (ready := successor.ready()) is None:
            return 0
        successor.close()
        self.successor = None
        if not ready:
            log.error("the new version has ended: this one goes on")
            return 0
        log.info("the new version serves (pid %d): this one finishes", successor.pid)
        self._gone = True
        return successor.pid

    def serve(self) -> None:
        """Tell the version before that this one serves."""
        assert self.predecessor is not None
        self.predecessor.tell()
        self.predecessor = None

    def close(self) -> None:
        """Close what leads to the others, at the end or in a child."""
        for each in (self.successor, self.predecessor):
            if each is not None:
                each.close()
        self.successor = self.predecessor = None
