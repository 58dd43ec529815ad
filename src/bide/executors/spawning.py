"""``bide.spawn``: work beside requests, on their threads, which holds none while it waits.

Each dispatcher has a :class:`Spawner`, which begins the work of its application's requests. Where
there is none, as under another server, the work has a thread of its own.

What is in progress is added to by any thread, and taken from by the one that ends; single
operations only.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, TypeVar, TypeVarTuple

from greenlet import getcurrent

from bide.capabilities import name_of
from bide.errors import BideError, Cancelled, ServerStopping, ThreadEnded
from bide.executors.executor import Executor
from bide.executors.hub import Job, job_of
from bide.forks import EndingChildren, end_child
from bide.waiting.arguments import check_function
from bide.waiting.cleanups import cleanup_time
from bide.waiting.each import NOT_TOLD, to_each
from bide.waiting.futures import is_awaited
from bide.waiting.locks import begins
from bide.waiting.loops import on_loop
from bide.waiting.thread_pool import Promise
from bide.waiting.waiter import Waiter, current_waiter

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("bide")


def spawn(
    function: Callable[[*Ts], T], /, *args: *Ts, daemon: bool = False
) -> concurrent.futures.Future[T]:
    """Call a function beside this request, where it may wait; return a promise of its result.

    It runs where requests run, on a thread or on the event loop, in a copy of this context. It
    holds no thread while it waits. It goes on when this request ends. When the server stops, it has
    as much time as requests, ``graceful_timeout``. Then its wait raises ``ServerStopping``. An
    error is logged unless somebody waits for the promise when it is raised. If the promise is
    cancelled before the function begins, it never begins.

    Outside a request, it runs on the threads of the first server in the process. It has a thread of
    its own under another server, for an ASGI application, and for an application that runs one
    request at a time. May be called from any thread.

    Args:
        function: a plain function. For keyword arguments, use ``functools.partial``.
        args: its arguments.
        daemon: whether a server that stops ends it as soon as no request is in progress.

    Raises:
        BideError: too many functions are in progress: ``limit_spawned``.
        TypeError: ``function`` cannot be called, or is async.
        RuntimeError: the system cannot start a thread.
    """
    check_function(function, "spawn")
    spawner = _spawner_here()
    if spawner is not None:
        return spawner.begin(function, args, daemon)
    promise: Promise = Promise()
    name = name_of(function)
    threading.Thread(
        target=_run,
        args=(promise, copy_context(), function, args, name),
        name=f"bide-spawned-{name}",
        daemon=daemon,
    ).start()
    return promise


def _spawner_here() -> Spawner | None:
    """Return what begins work here: this request's, or the first of the process."""
    if current_waiter() is None:
        return next((each for each in list(_open) if each.alive), None)
    job = job_of(getcurrent())
    found: Spawner | None = None if job is None else getattr(job.begun_by, "spawner", None)
    return found if found in _open else None


_open: dict[Spawner, None] = {}
"""Those that begin work, the oldest first."""


def _run(
    promise: Promise, context: Context, function: Callable[..., Any], args: Any, name: str
) -> None:
    """Carry out work on a thread of its own."""
    if promise.set_running_or_notify_cancel():
        with EndingChildren():
            context.run(_carry_out, promise, lambda: function(*args), name)


def _carry_out(promise: Promise, function: Callable[[], Any], name: str) -> None:
    """Call a function for a promise; log its error if nobody waits for that."""
    try:
        result = function()
    except BaseException as error:
        if not isinstance(error, Cancelled) and not is_awaited(promise):
            log.error("background work failed: %s", name, exc_info=error)
        promise.set_exception(error)
    else:
        promise.set_result(result)
    finally:
        del promise  # it holds the error, whose traceback holds this frame: no cycle


class Spawned(Job):
    """One function that was spawned: a call without a client.

    Attributes:
        daemon: whether it ends with the last request.
        promise: its result.
        name: its function's name.
    """

    __slots__ = ("_args", "_context", "_function", "_spawner", "daemon", "name", "promise")

    def __init__(
        self, spawner: Spawner, function: Callable[..., Any], args: tuple[Any, ...], daemon: bool
    ) -> None:
        waiter = spawner.executor.waiter()
        assert isinstance(waiter, Waiter)
        self.waiter = waiter
        self.times = waiter
        self.started = monotonic()
        self.expired = True  # no time-out of requests is for it
        self.over = False
        self.daemon = daemon
        self.promise = Promise()
        self.name = name_of(function)
        self._context = copy_context()
        self._function = function
        self._args = args
        self._spawner: Spawner | None = spawner

    @property
    def begun_by(self) -> Any:
        """The dispatcher whose application has spawned it."""
        return None if self._spawner is None else self._spawner.dispatcher

    @property
    def thread_name(self) -> str:
        """The name of the thread that it runs on; empty before it begins."""
        parking = self.waiter.parking
        return parking.name if parking is not None and self.times.begun else ""

    def describe(self) -> str:
        """Return a text that names it; from any thread."""
        return f"{self.name}, by bide.spawn"

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait in progress, or the next one, by raising; from any thread."""
        self.waiter.cancel(cancellation, firm)

    def run(self) -> None:
        """Call the function; never raises."""
        getcurrent().gr_context = self._context  # the hub takes it away at the end
        try:
            if self.promise.set_running_or_notify_cancel():
                _carry_out(self.promise, self._call, self.describe())
        finally:
            self._finish()

    def _call(self) -> Any:
        try:
            return self._function(*self._args)
        except BaseException as error:
            if self._spawner is None:
                end_child(error)
            raise
        finally:
            for end in self.waiter.ends:
                self._end(end)
            if self._spawner is None:
                end_child()

    def _end(self, end: Callable[[], None]) -> None:
        try:
            end()
        except BaseException:
            log.exception("cleaning up after background work failed: %s", self.describe())

    def lost(self) -> None:
        """Called when its code cannot go on."""
        if not self.over:
            self.drop(ThreadEnded("its thread was ended from outside"))

    def drop(self, cancellation: Cancelled) -> None:
        """End it before it begins, or where its code cannot go on."""
        promise = self.promise
        if promise.running() or (not promise.done() and promise.set_running_or_notify_cancel()):
            promise.set_exception(cancellation)
        self._finish()

    def _finish(self) -> None:
        self.over = True
        if self._spawner is not None:
            self._spawner.done(self)

    def after_fork(self) -> None:
        """Called in a child that the function has forked: the child ends with the function."""
        self._spawner = None
        self.waiter.ends = ()


begins(Spawned.run)


def _stops() -> ServerStopping:
    return ServerStopping("the server stops")


class Spawner:
    """Begins the background work of one application, and ends it.

    Args:
        dispatcher: the application's.
        executor: where the work runs.
        loop: the server's.
        limit: how much of it may be in progress; 0: any.
        ended: called when some work has ended that is not a daemon; from any thread.

    Attributes:
        lasting: what is in progress, but for daemons.
        daemons: those.
    """

    def __init__(
        self,
        dispatcher: object,
        executor: Executor,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        ended: Callable[[], None],
    ) -> None:
        self.dispatcher = dispatcher
        self.executor = executor
        self._loop = loop
        self._limit = limit
        self._ended = ended
        self._end_by = 0.0  # monotonic seconds, once it has been cancelled
        self._all_ended = asyncio.Event()
        self.lasting: dict[Spawned, None] = {}
        self.daemons: dict[Spawned, None] = {}

    def open(self) -> None:
        """Begin work from now on."""
        _open[self] = None

    def close(self) -> None:
        """Begin no more work; from any thread."""
        _open.pop(self, None)

    def after_fork(self) -> None:
        """Called in a forked child: all of it is the parent's."""
        self.close()
        self.lasting.clear()
        self.daemons.clear()

    @property
    def alive(self) -> bool:
        """Whether its loop runs; from any thread."""
        return self._loop.is_running()

    @property
    def jobs(self) -> list[Spawned]:
        """All that is in progress; from any thread."""
        return [*self.lasting, *self.daemons]

    @property
    def in_progress(self) -> int:
        """How much is in progress; from any thread."""
        return len(self.lasting) + len(self.daemons)

    def begin(
        self, function: Callable[..., Any], args: tuple[Any, ...], daemon: bool
    ) -> concurrent.futures.Future[Any]:
        """Begin a function soon; return the promise of its result. From any thread."""
        if 0 < self._limit <= self.in_progress:
            raise BideError(
                f"too much background work: {self._limit} functions of bide.spawn are in progress "
                "(--limit-spawned)"
            )
        job = Spawned(self, function, args, daemon)
        jobs = self.daemons if daemon else self.lasting
        jobs[job] = None
        try:
            if asyncio._get_running_loop() is self._loop:
                self._loop.call_soon(self._start, job)  # not in the step of a task
            else:
                on_loop(self._loop, self._start, job)
        except RuntimeError:  # the loop is closed
            jobs.pop(job, None)
            raise
        return job.promise

    def _start(self, job: Spawned) -> None:
        if self not in _open:
            job.drop(_stops())
            return
        if self._end_by:
            job.cancel(_stops(), firm=True)
        self.executor.add(job)
        self.executor.flush()

    def done(self, job: Spawned) -> None:
        """Called when some work has ended; on its thread."""
        if job.daemon:
            self.daemons.pop(job, None)
        else:
            self.lasting.pop(job, None)
            self._ended()
        if self._end_by and not self.in_progress and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._all_ended.set)

    # The end, on the loop -------------------------------------------------------------------------

    def cancel(self) -> None:
        """End what waits, and what has not begun."""
        self._end_by = self._end_by or monotonic() + cleanup_time.seconds
        jobs = dict.fromkeys(self.jobs)
        expired = [job for job in self.executor.expire(0.0, jobs) if isinstance(job, Spawned)]
        to_each(expired, lambda job: job.drop(_stops()), NOT_TOLD)
        to_each(self.jobs, lambda job: job.cancel(_stops(), firm=True), NOT_TOLD)

    async def end(self) -> None:
        """Cancel what is left, once no request is in progress; name what does not end in time."""
        if not self._end_by:
            self.cancel()
        self._all_ended.clear()
        if self.in_progress:  # what ends from now on sets the mark
            try:
                left = max(0.0, self._end_by - monotonic())
                await asyncio.wait_for(self._all_ended.wait(), left)
            except TimeoutError:
                for job in self.jobs:
                    log.error("left running: %s", job.describe())
