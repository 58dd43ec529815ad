"""``in_process``: promises of calls in a pool of child processes.

A promise that is cancelled while its call runs kills the child: nothing else ends code that
computes. The next call gets a new one. A child that ends before it has begun a call is replaced,
and the call is sent again; one that ends later is that call's error.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from bide.capabilities import name_of
from bide.errors import ProcessDied
from bide.systems import at_fork, refuse_windows
from bide.waiting import process_pools
from bide.waiting.arguments import check_function
from bide.waiting.children import Child
from bide.waiting.payloads import CALL, RESULT, dump, load, receive, send
from bide.waiting.process_bounds import ATTEMPTS, bounds
from bide.waiting.process_pools import Call, Pool, ProcessPromise, check_importable

T = TypeVar("T")
P = ParamSpec("P")


class ProcessPool(Pool):
    """The processes of ``in_process``; from any thread."""

    @property
    def size(self) -> int:
        """As the settings say."""
        return bounds.processes or _processors()

    @property
    def whose(self) -> str:
        """The name of the function."""
        return "in_process"

    def new_worker(self) -> Worker:
        """Return a worker without a child."""
        return Worker(self)

    def submit(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ProcessPromise:
        """Have a function called in a child; return the promise.

        Raises what :meth:`Pool.start` does, and the errors of ``pickle``.
        """
        promise = ProcessPromise(self.drop)
        self.start(Call(name_of(function), dump((function, args, kwargs)), promise))
        return promise


class Worker(process_pools.Worker):
    """Makes calls of functions in a child, which is started for the first of them."""

    def serve(self, call: Call) -> None:
        """Make one call, and settle its promise."""
        how = ""
        for _ in range(ATTEMPTS):
            if not self.pool.claim(call):
                break
            try:
                child = self._ready()
            except OSError as error:
                how = f"cannot be started: {error}"
                break
            if not self.pool.claim(call):  # before there was a child to be killed
                break
            try:
                send(child.socket, CALL, call.parts)
                receive(child.socket)
            except (OSError, EOFError):
                how = self.end_child()  # it had not begun: another one makes the call
                continue
            call.parts = []  # the arguments' memory
            self._take(call, child)
            return
        self.finish(call, error=ProcessDied(f"the process to call {call.name} {how}"))

    def _take(self, call: Call, child: Child) -> None:
        """Receive the outcome of a call that has begun."""
        try:
            kind, parts = receive(child.socket)
        except (OSError, EOFError):
            how = self.end_child()
            self.finish(call, error=ProcessDied(f"the process that called {call.name} {how}"))
            return
        try:
            value = load(parts)
        except BaseException as error:  # noqa: BLE001 - it is the promise's
            self.finish(call, error=error)
            return
        if kind == RESULT:
            self.finish(call, value)
        else:
            self.finish(call, error=value)

    def _ready(self) -> Child:
        """Return a child that lives; raises OSError where none can be started."""
        child = self.child
        if child is not None and (self.killed or not child.lives):
            self.end_child()
        if self.child is None:
            child = Child("bide.waiting.child")
            self.killed = False  # nobody has seen this child yet
            self.child = child
        return self.child


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


_pool: Final = ProcessPool()
bounds.counts = _pool.counts
at_fork(after_in_child=_pool.after_fork)


def in_process(
    function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> concurrent.futures.Future[T]:
    """Call a function in another process; return a promise of its result.

    May be called from any thread. The other process imports the function by its name, so it must be
    in a module. Function and arguments are pickled at once. Large buffers, such as those of arrays,
    are not copied: do not change them before the promise has its result. If the function raises an
    error, the promise fails with it.

    The promise is cancelled by a time-out of :func:`wait`, for example, or when the client leaves.
    Then a call in the queue is dropped, and a running call ends with its process.

    Raises:
        Overloaded: all processes are busy, and too many calls wait (``process_queue``). The
            request is answered 503, with ``Retry-After: 1``.
        ProcessesBusy: the same, outside a request that Bide serves.
        TypeError: ``function`` cannot be called, or is async.
        ValueError: the function is in the main program, which another process cannot import.
        RuntimeError: the program is ending, or the system cannot start a thread.
        Exception: an error of :mod:`pickle`: the function or an argument cannot be pickled.
    """
    refuse_windows("bide.in_process")
    check_function(function, "in_process")
    check_importable(function)
    return _pool.submit(function, args, kwargs)
