"""The threads of ``in_thread``, and how many of them may run.

A call that waits for another call must not keep that one from beginning. So a thread that waits, by
``wait`` or for the result of a call, leaves its place to another thread.

There is no lock, since a destructor may call ``submit`` at any point. ``submit`` puts its call into
the backlog, and then looks for an idle thread or a place for a new one. A thread that becomes idle,
or leaves its place, notes that, and then checks the backlog. So one of the two sees the other. This
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

from bide.forks import EndingChildren

THREADS: Final = 32
"""How many threads of a pool may run at a time; threads that wait do not count."""


class ThreadPool:
    """Calls functions in threads of its own, started at need; from any thread.

    Args:
        limit: how many threads may run at a time.
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
            RuntimeError: the program is ending, or the system cannot start a thread.
        """
        if _take(self._unregistered):
            # Private, but what concurrent.futures uses: Python waits for threads before ``atexit``.
            threading._register_atexit(self._end)  # type: ignore[attr-defined]
        if self._ended:
            raise RuntimeError("the program is ending: in_thread() starts no more calls")
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
        """Leave this thread's place to another thread in a ``with`` block, in which it waits."""
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
            # Not a daemon, even if the calling thread is: Python waits for the calls.
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
                    except ValueError:  # another thread is about to wake it
                        pass
                inbox.get()
                continue
            call.run()
            del call  # it refers to the result
            if _take(self._surplus):
                return

    def _end(self) -> None:
        """Called when Python ends: end each thread when there are no more calls for it."""
        self._ended = True
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread wakes it
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


class Promise(concurrent.futures.Future[Any]):
    """The promise of a call. A pool thread counts as waiting while it asks for the result."""

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the error; see the class."""
        with waiting_here():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error; see the class."""
        with waiting_here():
            return super().exception(timeout)


class Call:
    """One call, and the promise of its result."""

    __slots__ = ("args", "function", "kwargs", "promise")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.promise = Promise()

    def run(self) -> None:
        """Call the function, unless the promise was cancelled; on a thread of the pool."""
        if not self.promise.set_running_or_notify_cancel():
            return
        try:
            with EndingChildren():
                result = self.function(*self.args, **self.kwargs)
        except BaseException as error:  # noqa: BLE001 - it is the promise's
            self.promise.set_exception(error)
        else:
            self.promise.set_result(result)


def _take(tokens: list[None]) -> bool:
    """Take one token; return whether there was one."""
    try:
        tokens.pop()
    except IndexError:
        return False
    return True
