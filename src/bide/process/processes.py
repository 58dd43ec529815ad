"""The supervisor's processes: how they are forked, and what it keeps of each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Final

from bide.forks import flush_output
from bide.process.heartbeat import Pulse
from bide.process.links import Link
from bide.process.member import STACKS
from bide.process.signals import postpone
from bide.process.slots import Worker

HANDLED: Final = (
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""The supervisor's signals."""


@dataclass(eq=False, slots=True)
class Process:
    """A process of the supervisor's.

    Attributes:
        link: the supervisor's end of their pair.
        worker: what it is; None: a zygote.
        pid: its number; 0: it is not known yet.
        cell: where it shows signs of life.
        pulse: what the supervisor saw of these; None: it does not serve yet.
        kill_at: when it is killed, for it has shown no signs of life.
        ready: whether it has said so.
        doomed: whether it is to be killed, even where its number is not known yet.
    """

    link: Link
    worker: Worker | None = None
    pid: int = 0
    cell: int = -1
    pulse: Pulse | None = None
    kill_at: float = inf
    ready: bool = False
    doomed: bool = False

    @property
    def name(self) -> str:
        """What the log calls it."""
        what = "the process with the application" if self.worker is None else self.worker.name
        return f"{what} (pid {self.pid})"

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.doomed = True
        self.send_signal(signal.SIGKILL)

    def show_stacks(self) -> None:
        """Have it write to standard error what its threads do."""
        self.send_signal(STACKS)


def fork(in_child: Callable[[], None]) -> int:
    """Fork a process; return its number, and 0 in the child.

    No signal reaches the child before it has no handler of the supervisor's any more. One that is
    ignored, as SIGHUP is under nohup, stays ignored.

    Args:
        in_child: called in the child before any signal is delivered.

    Raises:
        OSError: the system has no room for another process.
    """
    flush_output()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in HANDLED:
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            postpone()
            in_child()
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
