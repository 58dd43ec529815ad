"""Pools of child processes that make calls: which of them has which call, and how each ends.

Each child has a socket and a thread of its own here, which sends it one call at a time and waits
for the answer. So what a child that is killed leaves half written is seen by nobody else, and an
answer is always that of the call that was sent last.

The pool's lock is held for microseconds, and no code of the application runs under it. It guards
which call a worker has. A child is killed under it, so that the kill meets the call that it is for.

This module must not know what a child does with a call: :mod:`bide.waiting.processes` and
:mod:`bide.waiting.residents` do.
"""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

from bide.capabilities import name_of
from bide.errors import Overloaded, ProcessesBusy
from bide.waiting.children import Child
from bide.waiting.locks import Lock, holds_lock
from bide.waiting.payloads import Part
from bide.waiting.process_bounds import ProcessCounts, bounds
from bide.waiting.served import is_served
from bide.waiting.thread_pool import Promise


class Outcome(Protocol):
    """Who waits for what a call brings."""

    def cancel(self) -> bool:
        """Drop the call, or end it; return false when it is over."""

    def settle(self, value: Any = None, /, error: BaseException | None = None) -> bool:
        """Set the outcome, once the call is over; return false if it was cancelled just now."""


class ProcessPromise(Promise):
    """The promise of a call in another process. It can be cancelled as long as it is not done."""

    def __init__(self, drop: Callable[[Outcome], bool]) -> None:
        super().__init__()
        self._drop = drop

    def cancel(self) -> bool:
        """Drop the call, or end the process that makes it; return false when it is done."""
        # It is never "running" to its base class, so it is pending until it is done.
        if not super().cancel():
            return False
        if self._drop(self):
            self.set_running_or_notify_cancel()  # who waits by concurrent.futures.wait
        return True

    def settle(self, value: Any = None, /, error: BaseException | None = None) -> bool:
        """Set the outcome, once the call is over; return false if it was cancelled just now."""
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            self.set_running_or_notify_cancel()  # `cancel` has found the call over
            return False
        return True


class Call:
    """One call.

    Attributes:
        name: what it calls, in words.
        parts: what is sent.
        outcome: who waits for it. Changed under the pool's lock.
        worker: that makes it; under the pool's lock.
        begun: whether its code may run; under the pool's lock.
        number: that of a call to a resident, in the messages of it.
        attempts: how many children have ended before one began it.
    """

    __slots__ = ("attempts", "begun", "name", "number", "outcome", "parts", "worker")

    def __init__(self, name: str, parts: list[Part], outcome: Outcome, number: int = 0) -> None:
        self.name = name
        self.parts = parts
        self.outcome = outcome
        self.number = number
        self.worker: Worker | None = None
        self.begun = False
        self.attempts = 0


class Pool:
    """Child processes that make calls, started at need; from any thread.

    Attributes:
        lock: guards the rest.
        pending: the calls that are not over.
        queued: those that wait for a worker.
        workers: all there are.
        ending: set when this ends, with the program or before; without the lock.
    """

    def __init__(self) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.lock = Lock()
        self.ending = threading.Event()
        self.pending: dict[Outcome, Call] = {}
        self.queued: deque[Call] = deque()
        self.workers: list[Worker] = []
        self._idle: list[Worker] = []
        self._registered = False

    # What each kind of pool decides --------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many processes there may be."""
        raise NotImplementedError

    @property
    def whose(self) -> str:
        """What a message calls it."""
        raise NotImplementedError

    def new_worker(self) -> Worker:
        """Return a worker without a child."""
        raise NotImplementedError

    def refusal(self) -> RuntimeError:
        """Return what a call raises that comes when this has ended."""
        return RuntimeError("the program is ending: no more calls start in other processes")

    def end_call(self, call: Call) -> None:
        """Called under the lock when a call that a worker has was cancelled."""
        assert call.worker is not None
        call.worker.kill()

    # ---------------------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Have a call made.

        Raises:
            Overloaded: as many calls wait as may, in a request that Bide serves.
            ProcessesBusy: likewise, elsewhere.
            RuntimeError: the program ends, or the system has no thread left.
        """
        try:
            worker = self._place(call)
        except ProcessesBusy as busy:
            if not is_served():
                raise
            raise Overloaded(str(busy)) from None
        if worker is None:
            return
        try:
            worker.begin()
        except RuntimeError as error:  # the system has no thread left
            for each in self._forget(worker, call):
                each.outcome.settle(error=error)
            raise

    def _place(self, call: Call) -> Worker | None:
        """Hand a call to an idle worker, a new one or the queue; return one that is to begin."""
        with self.lock:
            if self.ended:
                raise self.refusal()
            if not self._registered:
                self._registered = True
                # Private, as in thread_pool: before Python waits for threads.
                # Weakly: a resident that is closed may be dropped.
                end = weakref.WeakMethod(self.end)
                threading._register_atexit(_end_at_exit, end)  # type: ignore[attr-defined]
            worker: Worker | None = None
            if self._idle:
                worker = self._idle.pop()
            elif len(self.workers) < self.size:
                worker = self.new_worker()
                self.workers.append(worker)
            elif len(self.queued) < bounds.queue:
                self.queued.append(call)
            else:
                raise ProcessesBusy(
                    f"all {len(self.workers)} processes of {self.whose} are busy, and "
                    f"{bounds.queue} calls wait for them (--process-queue)"
                )
            self.pending[call.outcome] = call
            if worker is not None:
                worker.call = call
                call.worker = worker
            return worker

    def _forget(self, worker: Worker, call: Call) -> list[Call]:
        """Drop a worker that could not begin; return the calls that no other one will come for."""
        with self.lock:
            if worker in self.workers:
                self.workers.remove(worker)
            self.pending.pop(call.outcome, None)
            if self.workers:
                return []
            stranded = list(self.queued)
            self.queued.clear()
            return [each for each in stranded if self.pending.pop(each.outcome, None) is not None]

    def drop(self, outcome: Outcome) -> bool:
        """Called when an outcome was cancelled: end its call; return false if it was over."""
        with self.lock:
            call = self.pending.pop(outcome, None)
            if call is None:
                return False
            if call.worker is not None:
                self.end_call(call)
            elif call in self.queued:
                self.queued.remove(call)
            return True

    def claim(self, call: Call) -> bool:
        """Called before a call is sent, which has begun then; return false if it was dropped."""
        with self.lock:
            call.begun = True
            return call.outcome in self.pending

    def over(self, worker: Worker) -> bool:
        """Called when a worker's call has come to its end: from now on nothing is ended for it.

        Return whether somebody waits for its outcome.
        """
        with self.lock:
            call, worker.call = worker.call, None
            return call is not None and self.pending.pop(call.outcome, None) is not None

    def next(self, worker: Worker) -> bool:
        """Take a worker's next call; return false if there is none, and it is idle now."""
        with self.lock:
            if self.queued:
                call = worker.call = self.queued.popleft()
                call.worker = worker
                return True
            if not self.ended:
                self._idle.append(worker)
            return False

    @property
    def ended(self) -> bool:
        """Whether it ends."""
        return self.ending.is_set()

    def counts(self) -> ProcessCounts:
        """Return what the children do; from any thread."""
        workers = list(self.workers)
        return ProcessCounts(
            processes=sum(each.child is not None for each in workers),
            busy=sum(each.call is not None for each in workers),
            queued=len(self.queued),
        )

    def end(self) -> None:
        """End every call and child, once and for all; when Python ends, if not before."""
        for outcome in self._end():
            outcome.cancel()
        for worker in list(self.workers):  # whose calls may have gone on
            worker.kill()

    def _end(self) -> list[Outcome]:
        with self.lock:
            self.ending.set()
            idle, self._idle = self._idle, []
            for worker in idle:
                worker.inbox.put(None)
            return list(self.pending)

    def after_fork(self) -> None:
        """Called in a forked child: the children are its parent's."""
        for worker in self.workers:
            worker.after_fork()
        self._begin_anew()


class Worker:
    """A child process, and the thread that speaks to it.

    Attributes:
        call: what it has to do; None while it is idle. Under the pool's lock.
        inbox: wakes the thread for a call, or for the end.
        child: the process; None when there is none. Changed on the thread.
        killed: whether the child was ended for a call that was cancelled.
        pool: whose it is.
    """

    def __init__(self, pool: Pool) -> None:
        self.call: Call | None = None
        self.inbox: SimpleQueue[None] = SimpleQueue()
        self.child: Child | None = None
        self.killed = False
        self.pool = pool
        self._started = False

    def begin(self) -> None:
        """Have the thread look at its call; raises RuntimeError if it cannot be started."""
        if self._started:
            self.inbox.put(None)
            return
        threading.Thread(target=self._run, name="bide-in-process", daemon=False).start()
        self._started = True

    def kill(self) -> None:
        """End the child, if there is one; under the pool's lock, or when the pool ends."""
        self.killed = True
        child = self.child
        if child is not None:
            child.kill()

    def after_fork(self) -> None:
        """Forget the child, in a fork of this process."""
        if self.child is not None:
            self.child.after_fork()

    # On the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        """Make calls until the pool ends; then end the child."""
        pool = self.pool
        while not pool.ended:
            self.turn()
        self.end_child()

    def turn(self) -> None:
        """Make the call that there is, and wait for the next one."""
        self.make_call()
        self.await_call()

    def make_call(self) -> None:
        """Make the call that there is, if there is one; whatever fails ends that alone."""
        call = self.call
        if call is not None:
            try:
                self.serve(call)
            except BaseException as error:  # noqa: BLE001 - memory's end, or a mistake of ours
                self.end_child()  # it may be in the midst of its answer
                self.finish(call, error=error)

    def await_call(self) -> None:
        """Wait for the next call, unless it is there, or the pool ends."""
        if not (self.pool.next(self) or self.pool.ended):
            self.inbox.get()

    def serve(self, call: Call) -> None:
        """Make one call, and settle its promise."""
        raise NotImplementedError

    def finish(self, call: Call, value: Any = None, error: BaseException | None = None) -> None:
        """Settle a call that has come to its end, if somebody waits for its outcome."""
        if self.pool.over(self):
            call.outcome.settle(value, error)

    def end_child(self) -> str:
        """End the child; return in words how it has ended."""
        child, self.child = self.child, None
        return "" if child is None else child.end()


def _end_at_exit(end: weakref.WeakMethod[Callable[[], None]]) -> None:
    there = end()
    if there is not None:
        there()


def check_importable(function: Callable[..., Any]) -> None:
    """Raise ValueError for a function that another process cannot import."""
    if getattr(function, "__module__", "") == "__main__":
        raise ValueError(
            f"{name_of(function)} is in the main program, which another process cannot import: "
            "move it into a module"
        )


holds_lock(
    Pool._place,
    Pool._forget,
    Pool.drop,
    Pool.claim,
    Pool.over,
    Pool.next,
    Pool._end,
)
