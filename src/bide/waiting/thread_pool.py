"""The threads of ``in_thread``, and how many of them may run.

A call that waits for another one must not keep that one from being begun. So a thread that waits,
by ``wait`` or for the result of a call, leaves its place to another.

There is no lock, since a destructor may call in the middle of it. Whoever has a call puts it into
the backlog, and then looks for a thread or a place for one. A thread that has nothing to do, or
leaves its place, says so, and then looks into the backlog. So one of the two sees the other. This
rests on what CPython makes atomic: single operations of lists and deques.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Final

from bide.forks import ending_children

THREADS: Final = 32
"""Threads of a pool that may run at a time; those that wait do not count."""


class ThreadPool:
    """Calls functions in threads of its own, started at need; from any thread.

    Args:
        limit: threads that may run at a time.
    """

    def __init__(self, limit: int = THREADS) -> None:
        self._backlog: deque[Call] = deque()
        self._idle: list[SimpleQueue[None]] = []  # one for each thread, to wake it by
        self._places = [None] * limit  # one for each thread that may be started
        self._surplus: list[None] = []  # one for each thread that runs without a place
        self._unregistered = [None]
        self._ended = False

    def submit(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Call a function in a thread of the pool; return a promise of its result.

        Raises:
            RuntimeError: the program ends, or the system gives no thread.
        """
        if _take(self._unregistered):
            # Private, but what concurrent.futures uses: Python waits for threads before ``atexit``.
            threading._register_atexit(self._end)  # type: ignore[attr-defined]
        if self._ended:
            raise RuntimeError("the program ends: in_thread begins no more calls")
        call = Call(function, args, kwargs)
        self._backlog.append(call)
        try:
            self._serve()
        except RuntimeError:
            try:
                self._backlog.remove(call)
            except ValueError:  # a thread has taken it meanwhile
                return call.promise
            raise
        return call.promise

    @contextlib.contextmanager
    def placeless(self) -> Iterator[None]:
        """Leave this thread's place to another one meanwhile, because it waits."""
        if not _take(self._surplus):
            self._places.append(None)
        if self._backlog:
            with contextlib.suppress(RuntimeError):  # no thread: a call waits for one that ends
                self._serve()
        try:
            yield
        finally:
            if not _take(self._places):
                self._surplus.append(None)

    def _serve(self) -> None:
        """Wake or start a thread for the backlog, where one is free or may be started."""
        try:
            inbox = self._idle.pop()
        except IndexError:
            if _take(self._places):
                self._start()
        else:
            inbox.put(None)

    def _start(self) -> None:
        try:
            # Not as the thread that calls, which may be a daemon: Python waits for calls.
            threading.Thread(target=self._work, name="bide-in-thread", daemon=False).start()
        except BaseException:
            self._places.append(None)
            raise

    def _work(self) -> None:
        _here.pool = self
        inbox: SimpleQueue[None] = SimpleQueue()
        while True:
            try:
                call = self._backlog.popleft()
            except IndexError:
                if self._ended:
                    return
                self._idle.append(inbox)
                if self._backlog or self._ended:
                    try:
                        self._idle.remove(inbox)
                        continue
                    except ValueError:  # somebody is about to wake it
                        pass
                inbox.get()
                continue
            call.run()
            del call  # it refers to the result
            if _take(self._surplus):
                return

    def _end(self) -> None:
        """End the threads when they have done what there is; Python waits for them."""
        self._ended = True
        while self._idle:
            with contextlib.suppress(IndexError):  # it is woken by somebody else
                self._idle.pop().put(None)


class _Here(threading.local):
    """The pool whose thread this is."""

    pool: ThreadPool | None = None


_here = _Here()


def waiting_here() -> contextlib.AbstractContextManager[None]:
    """Count this thread as waiting for the time of a ``with`` block; from any thread."""
    pool = _here.pool
    return _NO_POOL if pool is None else pool.placeless()


_NO_POOL: Final = contextlib.nullcontext()


class _Promise(concurrent.futures.Future[Any]):
    """The result of a call; who asks for it in a thread of the pool waits for it there."""

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the error; as the class above says."""
        with waiting_here():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error; as the class above says."""
        with waiting_here():
            return super().exception(timeout)


class Call:
    """One call, and what is promised of it."""

    __slots__ = ("args", "function", "kwargs", "promise")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.promise = _Promise()

    def run(self) -> None:
        """Call, unless the promise was cancelled; on a thread of the pool."""
        if not self.promise.set_running_or_notify_cancel():
            return
        try:
            with ending_children():
                result = self.function(*self.args, **self.kwargs)
        except BaseException as error:  # noqa: BLE001 - it is the promise's
            self.promise.set_exception(error)
        else:
            self.promise.set_result(result)


def _take(tokens: list[None]) -> bool:
    """Take one; whether there was one."""
    try:
        tokens.pop()
    except IndexError:
        return False
    return True
