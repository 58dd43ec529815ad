"""The process that children are forked from: it does nothing else, and has one thread.

A process with threads must not be forked: the child would have the locks that they hold. So this
one is forked from the server before the server listens, accepts and starts its threads, and forks
the children from then on. It has the application's memory, which they share.

To it: a number, and the socket that the child is to have; or a number to be killed. From it: how a
child has ended. It ends when the server does, and sees to it that its children do.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import socket
import stat
import struct
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final, NoReturn

from greenlet import greenlet

from bide.forks import flush_output, reaped
from bide.systems import listens
from bide.waiting.child import leave_signals
from bide.waiting.cleanups import cleanup_time

ASKED: Final = struct.Struct("!cI")
"""``F`` and a number: fork a child. ``K`` and a number: kill it."""
TOLD: Final = struct.Struct("!Iiii")
"""A child's number, its process number, its exit status, or -1 and the error of the fork."""


class Nursery:
    """The nursery as the server sees it; on the loop.

    Args:
        work: called in each child with its socket; does not return.

    Attributes:
        socket: leads to the nursery; it does not block.
        pid: its process number.

    Raises:
        OSError: the system has no room for another process.
    """

    def __init__(self, work: Callable[[socket.socket], NoReturn]) -> None:
        flush_output()
        self.socket, its = socket.socketpair()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with warnings.catch_warnings():
                # Python 3.12 warns of the server's thread for signals, which holds no lock here.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.pid = os.fork()
            if self.pid == 0:
                self.socket.close()
                _live(its, before, work)
        except OSError:
            self.socket.close()
            raise
        finally:
            its.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.socket.setblocking(False)
        self._reaped = False

    def fork(self, number: int, sock: socket.socket) -> None:
        """Ask for a child; raises OSError when the nursery has ended."""
        socket.send_fds(self.socket, [ASKED.pack(b"F", number)], [sock.fileno()])

    def kill(self, number: int) -> None:
        """Ask for a child's end, at once; raises OSError when the nursery has ended."""
        self.socket.send(ASKED.pack(b"K", number))

    def let_end(self) -> None:
        """Ask for the end of all, once the sockets of the children are closed."""
        self.socket.close()

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        if not self._reaped:
            try:
                self._reaped = os.waitpid(self.pid, os.WNOHANG)[0] != 0
            except ChildProcessError:  # the program takes its children's ends itself
                self._reaped = True
        return not self._reaped

    def after_fork(self) -> None:
        """Drop it, in a fork of the server."""
        self.socket.close()
        self._reaped = True


def _live(
    control: socket.socket,
    mask: set[int | signal.Signals],
    work: Callable[[socket.socket], NoReturn],
) -> NoReturn:
    """Be the nursery. Called in the fork; all signals are blocked."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        leave_signals()
        signal.signal(signal.SIGCHLD, _ignore)
        asyncio._set_running_loop(None)
        _drop_listeners(control.fileno())
        gc.freeze()
        keeper = _Keeper(control, mask, work)
        # In a greenlet of its own: nothing below it belongs to the server's frames.
        greenlet(keeper.run).switch()
        code = 0
    except BaseException:  # noqa: BLE001 - nobody above is to handle it
        traceback.print_exc()
    finally:
        flush_output()
        os._exit(code)


def _ignore(*_: object) -> None:
    pass


def _drop_listeners(own: int) -> None:
    """Have no part in the sockets that the server listens on: a closed port must be free."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for each in os.listdir("/dev/fd"):
        number = int(each)
        with suppress(OSError):
            if number in (own, null) or not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as listener:
                told = listens(listener)
            if told:
                # In its place, so that the object that has the number closes nothing else.
                os.dup2(null, number, inheritable=False)
    os.close(null)


class _Keeper:
    """What the nursery does; on its only thread."""

    def __init__(
        self,
        control: socket.socket,
        mask: set[int | signal.Signals],
        work: Callable[[socket.socket], NoReturn],
    ) -> None:
        self._control = control
        self._mask = mask
        self._work = work
        self._children: dict[int, int] = {}  # process numbers → numbers
        self._ends, self._writes = os.pipe()
        os.set_blocking(self._ends, False)
        os.set_blocking(self._writes, False)

    def run(self) -> None:
        """Serve until the server's end, and the end of each child."""
        signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask | {signal.SIGINT})
        poll = select.poll()
        poll.register(self._ends, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        deadline = 0.0
        while not deadline or self._children:
            left = max(0.0, deadline - monotonic()) * 1000 if deadline else None
            for descriptor, _ in poll.poll(left):
                if descriptor == self._ends:
                    with suppress(BlockingIOError):
                        os.read(self._ends, 4096)
                elif not self._answer():
                    poll.unregister(self._control)
                    deadline = monotonic() + cleanup_time.seconds + 2.0
            self._reap()
            if deadline and monotonic() >= deadline:
                for pid in self._children:
                    os.kill(pid, signal.SIGKILL)  # not reaped, so the number is still its own

    def _answer(self) -> bool:
        """Do what the server asks for; return false when it asks for nothing more."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, ASKED.size, 1)
        except OSError:
            return False
        if len(data) < ASKED.size:
            return False
        what, number = ASKED.unpack(data)
        if what == b"F":
            with socket.socket(fileno=descriptors[0]) as sock:
                self._fork(number, sock)
        else:
            for pid, of in self._children.items():
                if of == number:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, number: int, sock: socket.socket) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(self._ends)
                os.close(self._writes)
                self._control.close()
                signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
                self._work(sock)
            self._children[pid] = number
        except OSError as error:
            self._tell(number, -1, error.errno or 0, -1)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _reap(self) -> None:
        for pid, status in reaped():
            number = self._children.pop(pid, None)
            if number is not None:
                self._tell(number, pid, status, 0)

    def _tell(self, number: int, pid: int, status: int, failed: int) -> None:
        with suppress(OSError):  # the server has ended
            self._control.sendall(TOLD.pack(number, pid, status, failed))
