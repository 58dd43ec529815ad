"""Thin classes that inherit from types written in C.

A compiled class cannot inherit from such a type. So the work is done in plain classes elsewhere,
and the classes here stay interpreted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

from bide.forks import share_greenlets

if TYPE_CHECKING:
    from bide.executors.hub import Job, Worker
    from bide.waiting.waiter import Waiter


class WorkerGreenlet(greenlet):
    """The greenlet of a worker, where a wait and a fork find what it runs.

    Attributes:
        worker: what it runs.
        waiter: the waiter of the worker's job. Each wait reads it, so it is a plain attribute.
    """

    __slots__ = ("waiter", "worker")

    def __init__(self, worker: Worker) -> None:
        super().__init__(_work)  # no method of the worker's: it would be kept for each of them
        self.worker = worker
        self.waiter: Waiter | None = None

    @property
    def job(self) -> Job | None:
        """The worker's job; None while the worker is idle."""
        return self.worker.job

    def after_fork(self) -> None:
        """Called in a child that this greenlet has forked."""
        self.waiter = None
        self.worker.after_fork(self)


def _work() -> None:
    here = getcurrent()
    assert isinstance(here, WorkerGreenlet)
    here.worker.work(here)


share_greenlets(WorkerGreenlet, WorkerGreenlet.after_fork)


class LaneName(str):
    """The name of a lane's thread; its ``repr`` adds what to write instead of ``asyncio.gather``.

    asyncio's error of a thread without a loop quotes it ("There is no current event loop in thread
    …"), as ``asyncio.gather`` and ``ensure_future`` raise it here. Libraries catch that error, and
    make a loop of their own. So it must stay asyncio's.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return self  # Thread calls this, and would else keep a plain string

    def __repr__(self) -> str:
        return (
            f"{super().__repr__()} (beside the event loop: write wait_all(f(), g()) for "
            "asyncio.gather(f(), g()), and begin tasks in a coroutine)"
        )
