"""Other people's engines, whose results a request waits for: Dask, Ray, Celery, Django's tasks.

Nothing here imports them: an object of theirs has come, so they are there. Each conversion returns
a promise that ends the work when it is cancelled, as far as the engine can.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from bide.systems import at_fork
from bide.waiting.locks import Lock, holds_lock

log = logging.getLogger("bide")

FIRST: Final = 0.01
"""Seconds until a result is looked at again; half as long as it has taken so far, from then on."""
LONGEST: Final = 0.5
"""Seconds between two looks, at most."""

# Who waits for the same ---------------------------------------------------------------------------


class Share:
    """One request's part in a task, which others may wait for, too; from any thread."""

    def __init__(self, *task: Any) -> None:
        """Count one more; ``task`` tells which it is."""
        self._task = task
        self._counted = True
        with _counting:
            _waiting[task] += 1

    def leave(self) -> bool:
        """Count it no more; return whether it was the last, and had not left before."""
        with _counting:
            if not self._counted:
                return False
            self._counted = False
            _waiting[self._task] -= 1
            if _waiting[self._task]:
                return False
            del _waiting[self._task]
            return True


_counting = Lock()
_waiting: Counter[tuple[Any, ...]] = Counter()  # requests, by task; under the lock


class Shared:
    """A future of an engine's, as a promise: when the last that waits has left, its task is ended.

    The future's own ``cancel`` would end it for all.
    """

    def __init__(self, future: Any, *task: Any) -> None:
        """Count one more that waits for this task."""
        self._future = future
        self._share = Share(*task)

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        """Call back with this, on a thread of the engine's."""

        def done(_: object) -> None:
            self._share.leave()
            call(self)

        self._future.add_done_callback(done)

    def result(self) -> Any:
        """Return what the task returned, or raise its error."""
        return self._future.result()

    def done(self) -> bool:
        """Whether it has ended."""
        return bool(self._future.done())

    def cancel(self) -> None:
        """End the task if nobody else waits for it."""
        if self._share.leave():
            self._end()

    def _end(self) -> None:
        self._future.cancel()


# Dask ---------------------------------------------------------------------------------------------


class DaskResult(Shared):
    """The result of a future of Dask's, which calls back on Dask's thread for that.

    It may come over the network, so nobody asks for it on another thread.
    """

    def done(self) -> bool:
        """Return false: asked for where the wait has ended, and would have the result there."""
        return False


def of_dask(future: Any) -> DaskResult:
    """Return a promise of the result of a future of Dask's.

    When it is cancelled, a task that runs already runs to its end.
    """
    return DaskResult(future, id(future.client), future.key)


# Ray ----------------------------------------------------------------------------------------------


class RayResult(Shared):
    """What a reference of Ray refers to."""

    def __init__(self, reference: Any) -> None:
        """Ask for it."""
        super().__init__(reference.future(), reference)
        self._reference = reference

    def _end(self) -> None:
        """Ask Ray to end the task: one that runs may not hear it, an actor's only in an await."""
        ray: Any = sys.modules["ray"]
        # What was put, and not computed, cannot be cancelled, and a task may have ended meanwhile.
        with contextlib.suppress(TypeError, ValueError):
            ray.cancel(self._reference)
        super()._end()


def of_ray(reference: Any) -> RayResult:
    """Return a promise of what a reference of Ray refers to."""
    return RayResult(reference)


# Django's tasks -----------------------------------------------------------------------------------


async def of_django_task(result: Any) -> Any:
    """Return what a task of Django's returned; raise ValueError if it failed.

    It is looked at again and again, for backends tell nobody. None can cancel a task.
    """
    wait = FIRST
    while not result.is_finished:
        await asyncio.sleep(wait)
        wait = min(wait * 1.5, LONGEST)
        await result.arefresh()
    return result.return_value


# Celery -------------------------------------------------------------------------------------------


class CeleryResult(concurrent.futures.Future[Any]):
    """A result of Celery's as a future; the thread that watches sets it."""

    def __init__(self, result: Any, watcher: Watcher) -> None:
        """Begin with a result that is not ready."""
        super().__init__()
        self.celery = result
        self.begun = time.monotonic()
        self.share = Share(_id_of(result))
        self._watcher = watcher

    def cancel(self) -> bool:
        """Revoke the task: a worker will not begin it. One that runs goes on to its end."""
        cancelled = super().cancel()
        if cancelled:
            self._watcher.leave(self)
        return cancelled


class Watcher:
    """One thread that looks at all results of Celery's that somebody waits for.

    A connection of Celery's backends belongs to one thread, so each look is made there, and so is
    what is told to the broker.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._given: queue.SimpleQueue[tuple[bool, CeleryResult]] = queue.SimpleQueue()
        self._waiting: dict[CeleryResult, float] = {}  # and when it is looked at next
        threading.Thread(target=self._run, name="bide-celery", daemon=True).start()

    def watch(self, result: Any) -> CeleryResult:
        """Return a future of a result; from any thread."""
        future = CeleryResult(result, self)
        self._given.put((True, future))
        return future

    def leave(self, future: CeleryResult) -> None:
        """Look no more, and revoke the task if nobody else waits for it; from any thread."""
        self._given.put((False, future))

    def _run(self) -> None:
        while True:
            self._take()
            self._look_at_all()

    def _take(self) -> None:
        """Take all that was given, waiting for it until the next look is due."""
        timeout: float | None = None
        if self._waiting:
            timeout = max(0.0, min(self._waiting.values()) - time.monotonic())
        with contextlib.suppress(queue.Empty):
            self._note(*self._given.get(timeout=timeout))
            while True:
                self._note(*self._given.get_nowait())

    def _note(self, watched: bool, future: CeleryResult) -> None:
        if watched:
            self._waiting[future] = 0.0
            return
        self._waiting.pop(future, None)
        if not future.share.leave():
            return
        try:
            _revoke(future.celery)
        except Exception:
            log.exception("a task of Celery's could not be revoked: %r", future.celery)

    def _look_at_all(self) -> None:
        now = time.monotonic()
        for future, due in list(self._waiting.items()):
            if due <= now:
                self._look(future, now)

    def _look(self, future: CeleryResult, now: float) -> None:
        try:
            if not future.celery.ready():
                taken = now - future.begun
                self._waiting[future] = now + min(max(FIRST, taken / 2), LONGEST)
                return
            value, error = future.celery.get(), None
        except BaseException as failure:  # noqa: BLE001 - the task's, or the backend's; the request gets it
            value, error = None, failure
        del self._waiting[future]
        future.share.leave()
        if not future.set_running_or_notify_cancel():
            return  # it was cancelled meanwhile
        try:
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
        finally:
            del error  # its traceback holds this frame: no cycle


def _revoke(result: Any) -> None:
    """Revoke a task, and those of its chain that come before it and that nobody else waits for."""
    result.revoke()
    parent = getattr(result, "parent", None)
    while parent is not None and not parent.ready():
        with _counting:
            waited_for = (_id_of(parent),) in _waiting
        if waited_for:
            return
        parent.revoke()
        parent = parent.parent


def _id_of(result: Any) -> Any:
    """Return what tells which task, or tasks, a result is of."""
    try:
        return result.id
    except AttributeError:  # a plain set of results has none
        return frozenset(_id_of(each) for each in result.results)


_watchers: list[Watcher] = []
_making = Lock()


def of_celery(result: Any) -> concurrent.futures.Future[Any]:
    """Return a promise of an ``AsyncResult``, a group's, or an eager one."""
    with _making:
        if not _watchers:
            _watchers.append(Watcher())
        watcher = _watchers[-1]
    return watcher.watch(result)


def _after_fork() -> None:
    """Called in a forked child: who waits, and the threads that held a lock, are its parent's."""
    global _counting, _making
    _counting, _making = Lock(), Lock()
    _waiting.clear()
    _watchers.clear()


at_fork(after_in_child=_after_fork)
holds_lock(Share.__init__, Share.leave, _revoke, of_celery)
