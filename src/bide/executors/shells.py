"""Classes that inherit from types written in C, each as thin as can be.

What is compiled cannot inherit from such a type. So what these do stands in plain classes
elsewhere, and these stay interpreted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenlet import greenlet

if TYPE_CHECKING:
    from bide.executors.hub import Job, Worker
    from bide.waiting.waiter import Waiter


class WorkerGreenlet(greenlet):
    """The greenlet of a worker, where a wait and a fork find what it runs.

    Attributes:
        worker: what it runs.
        waiter: that of the worker's job. Each wait looks for it here, so it is a plain attribute.
    """

    __slots__ = ("waiter", "worker")

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.work)
        self.worker = worker
        self.waiter: Waiter | None = None

    @property
    def job(self) -> Job | None:
        """The job that it runs; None while it is idle."""
        return self.worker.job

    def after_fork(self) -> None:
        """Called in a child that this greenlet has forked."""
        self.waiter = None
        self.worker.after_fork(self)


class LaneName(str):
    """The name of a lane's thread; quoted, it says what to write.

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
