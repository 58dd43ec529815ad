"""The processes of one resident, the calls that they make, and what becomes of those.

A child makes the object once, and then one call after the other. Every message of a call has the
call's number, and a worker reads a call to its end, also when nobody waits for it any more. So an
answer that comes late is read as that of its own call, and thrown away.

A child that ends is replaced: at once, if it has made a call to its end, and else after a delay,
which doubles each time. So is one whose factory fails. While no child of a resident can be made,
calls of it fail at once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bide.capabilities import name_of
from bide.errors import ProcessDied, ResidentFailed
from bide.waiting import process_pools
from bide.waiting.children import Child
from bide.waiting.item_streams import Items, ItemStream, ResidentPromise
from bide.waiting.locks import holds_lock
from bide.waiting.payloads import (
    CALL,
    ITEM,
    LEFT,
    LOAD,
    MORE,
    NUMBER,
    READY,
    RESULT,
    STREAM,
    dump,
    load,
    receive,
    send,
)
from bide.waiting.process_bounds import ATTEMPTS, ResidentStatus
from bide.waiting.process_pools import Call, Pool, ProcessPromise

FIRST_DELAY: Final = 1.0
"""Seconds before a child is replaced that has made no call to its end."""
LONGEST_DELAY: Final = 30.0
"""Seconds; the delay is twice as long each time, and no longer than this."""


class ResidentPool(Pool):
    """The processes of one resident; from any thread.

    Args:
        factory: makes the object.
        processes: how many there may be.
        kill: whether a running call that is cancelled ends its process.

    Attributes:
        name: the factory's.
        factory: what is sent of it.
        calls: how many have come to an end.
        restarts: how many children have ended, and were not ended here.
        closed: whether the program has closed it.
    """

    def __init__(self, factory: Callable[[], Any], processes: int, kill: bool) -> None:
        super().__init__()
        self.name = name_of(getattr(factory, "func", factory))  # of a functools.partial
        self.factory = dump(factory)
        self.calls = 0
        self.restarts = 0
        self.closed = False
        self._processes = processes
        self._kill = kill
        self._numbers = itertools.count(1)

    @property
    def size(self) -> int:
        """As it was made with."""
        return self._processes

    @property
    def whose(self) -> str:
        """The factory's name."""
        return self.name

    def new_worker(self) -> ResidentWorker:
        """Return a worker without a child."""
        return ResidentWorker(self)

    def refusal(self) -> RuntimeError:
        """Return what a call raises that comes too late."""
        if self.closed:
            return RuntimeError(f"{self.name}: its resident is closed, and takes no more calls")
        return super().refusal()

    def close(self) -> None:
        """End for good; without effect in a fork, whose parent has the children."""
        self.closed = True
        self.end()

    def end_call(self, call: Call) -> None:
        """End its process, or close what it streams, or let it go on."""
        if self._kill:
            if call.begun:
                super().end_call(call)
        elif isinstance(call.outcome, Items):
            _tell(LEFT, call)

    def submit(self, method: str, /, *args: Any, **kwargs: Any) -> ResidentPromise:
        """Have a method called in a child; return the promise.

        Raises what :meth:`Pool.start` does, and the errors of ``pickle``.
        """
        if self.closed:  # without the lock, which a fork may have left held
            raise self.refusal()
        name = f"{method} of {self.name}"
        promise = ResidentPromise(self.drop, name)
        call = Call(name, dump((method, args, kwargs)), promise, next(self._numbers))
        failure = self._failure()
        if failure is None:
            self.start(call)
        else:
            promise.settle(error=failure.error(self.name))
        return promise

    def _failure(self) -> Failure | None:
        """Return why no child can be made now, if none can."""
        with self.lock:
            failures = [each.failure for each in self.workers if isinstance(each, ResidentWorker)]
            return failures[-1] if failures and all(failures) else None

    def failed(self, worker: ResidentWorker, failure: Failure) -> None:
        """Called when a worker can make no child: its call fails, and all, if no worker can."""
        for call in self._fail(worker, failure):
            call.outcome.settle(error=failure.error(self.name))

    def _fail(self, worker: ResidentWorker, failure: Failure) -> list[Call]:
        with self.lock:
            worker.failure = failure
            calls = [] if worker.call is None else [worker.call]
            worker.call = None
            if self._failure() is not None:
                calls += self.queued
                self.queued.clear()
            return [each for each in calls if self.pending.pop(each.outcome, None) is not None]

    def stream(self, call: Call, items: Items) -> ProcessPromise | None:
        """Called when a call has begun to stream; return the promise, if somebody waits for it."""
        with self.lock:
            promise = call.outcome
            wanted = self.pending.pop(promise, None) is not None
            call.outcome = items
            if wanted:
                self.pending[items] = call
            else:
                _tell(LEFT, call)
        return promise if wanted and isinstance(promise, ProcessPromise) else None

    def more(self, call: Call) -> None:
        """Ask for another item, unless the call was cancelled."""
        with self.lock:
            if call.outcome in self.pending:
                _tell(MORE, call)

    def detach(self, worker: process_pools.Worker) -> Child | None:
        """Take the child from a worker: nothing is sent to it any more."""
        with self.lock:
            child, worker.child = worker.child, None
            return child

    def status(self) -> ResidentStatus:
        """Return what it does; from any thread."""
        counts = self.counts()
        failure = self._failure()
        return ResidentStatus(
            name=self.name,
            processes=counts.processes,
            busy=counts.busy,
            queued=counts.queued,
            calls=self.calls,
            restarts=self.restarts,
            memory=sum(_memory(each.child) for each in list(self.workers)),
            failure="" if failure is None else failure.reason,
        )


def _tell(kind: int, call: Call) -> None:
    """Say something of a call that its worker makes; under the pool's lock."""
    child = None if call.worker is None else call.worker.child
    if child is not None:
        with contextlib.suppress(OSError):  # it has ended, which its thread sees
            send(child.socket, kind, [NUMBER.pack(call.number)])


def _memory(child: Child | None) -> int:
    if child is None:
        return 0
    try:
        pages = int(Path(f"/proc/{child.number}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):  # it has ended, or there is no such file on this system
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Failure:
    """Why a child cannot be made.

    Attributes:
        reason: in words.
    """

    def __init__(self, cause: BaseException, delay: float) -> None:
        text = str(cause)
        self.reason = f"{type(cause).__name__}: {text}" if text else type(cause).__name__
        self._cause = cause
        self._delay = delay

    def error(self, name: str) -> ResidentFailed:
        """Return the error of one call."""
        error = ResidentFailed(
            f"{name} has failed ({self.reason}); it is called again {self._delay:g} s later"
        )
        error.__cause__ = self._cause
        return error


class ResidentWorker(process_pools.Worker):
    """A child that has the object, and makes one call of it after the other.

    Attributes:
        failure: why there is no child; under the pool's lock.
    """

    pool: ResidentPool

    def __init__(self, pool: ResidentPool) -> None:
        super().__init__(pool)
        self.failure: Failure | None = None
        self._failures = 0  # in a row
        self._proven = False  # whether this child has made a call to its end
        self._delay = 0.0  # before a child is started

    def turn(self) -> None:
        """Have a child, make the call that there is, and wait for the next one."""
        if self.child is None and not self._make():
            return
        self.make_call()
        if self.killed:
            self.end_child()
        if self.child is not None:
            self.await_call()

    def _make(self) -> bool:
        """Start a child, and have it make the object; return whether it has."""
        pool = self.pool
        if pool.ending.wait(self._delay):
            return False
        self.failure = None
        self.killed = False
        try:
            child = self.child = Child("bide.waiting.resident_child")
            if pool.ended:
                return False
            send(child.socket, LOAD, pool.factory)
            kind, parts = receive(child.socket)
            if kind == READY:
                self._delay = 0.0
                return True
            error: BaseException = load(parts)
        except (OSError, EOFError) as gone:
            error = gone if self.child is None else ProcessDied(f"its process {self.end_child()}")
        except BaseException as unexpected:  # noqa: BLE001 - its error cannot be loaded here
            error = unexpected
        self.end_child()
        if not (pool.ended or self.killed):
            self._back_off()
            pool.failed(self, Failure(error, self._delay))
        return False

    def _back_off(self) -> None:
        self._delay = min(LONGEST_DELAY, FIRST_DELAY * 2**self._failures)
        self._failures = min(self._failures + 1, 30)

    def serve(self, call: Call) -> None:
        """Make one call, and settle its promise; it is still there if it has not begun."""
        child = self.child
        assert child is not None
        if not self.pool.claim(call):
            self.pool.over(self)
            return
        try:
            send(child.socket, CALL, [NUMBER.pack(call.number), *call.parts])
            _receive(child, call)
        except (OSError, EOFError):
            how = self._died()
            call.attempts += 1
            if call.attempts == ATTEMPTS:
                self.finish(call, error=ProcessDied(f"the process to call {call.name} {how}"))
            return  # it had not begun: the next child makes the call
        call.parts = []  # the arguments' memory
        try:
            self._take(call, child)
        except (OSError, EOFError):
            how = self._died()
            self.finish(call, error=ProcessDied(f"the process that called {call.name} {how}"))

    def _take(self, call: Call, child: Child) -> None:
        """Receive the outcome of a call that has begun, whether or not somebody waits for it."""
        kind, parts = _receive(child, call)
        if kind == STREAM:
            kind, parts = self._stream(call, child)
        self._proven = True
        self._failures = 0
        self.pool.calls += 1
        value, error = _loaded(parts)
        if error is None and kind != RESULT:
            value, error = None, value  # what it has raised; none at the end of a stream
        self.finish(call, value, error)

    def _stream(self, call: Call, child: Child) -> tuple[int, list[bytearray]]:
        """Receive the items of a call; return what comes behind them."""
        items = Items(self.pool.drop)
        promise = self.pool.stream(call, items)
        if promise is not None:
            promise.settle(ItemStream(items))
        del promise  # nobody may have the stream: then it is dropped now
        while True:
            kind, parts = _receive(child, call)
            if kind != ITEM:
                return kind, parts
            if items.left:
                continue
            item, error = _loaded(parts)
            if error is not None:
                items.settle(error=error)  # first, for who takes an item meanwhile
                items.cancel()
            elif items.add(item):
                self.pool.more(call)
            del item

    def _died(self) -> str:
        """Called when the child has ended; return in words how."""
        how = self.end_child()
        if not self.killed:
            self.pool.restarts += 1
            if not self._proven:
                self._back_off()
        self._proven = False
        return how

    def end_child(self) -> str:
        """End the child; return in words how it has ended."""
        child = self.pool.detach(self)
        return "" if child is None else child.end()


def _receive(child: Child, call: Call) -> tuple[int, list[bytearray]]:
    """Receive a message of a call."""
    kind, parts = receive(child.socket)
    (number,) = NUMBER.unpack(parts.pop(0))
    if number != call.number:
        raise RuntimeError(f"call {call.number} was answered as call {number}")
    return kind, parts


def _loaded(parts: list[bytearray]) -> tuple[Any, BaseException | None]:
    """Return the value of parts, none if there are none; or why it cannot be loaded."""
    try:
        return (load(parts) if parts else None), None
    except BaseException as error:  # noqa: BLE001 - it is the call's
        return None, error


holds_lock(
    ResidentPool._failure,
    ResidentPool._fail,
    ResidentPool.stream,
    ResidentPool.more,
    ResidentPool.detach,
)
