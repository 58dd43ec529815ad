"""Database connections: each request of Bide's has its own, and each stays on its own thread.

Django keeps one connection for each thread, and the requests of a lane would share it: while one
waits in the middle of a transaction, others would use that transaction. Here a request takes a
connection from its thread's pool when it first uses the database, and gives it back at its end. So
``CONN_MAX_AGE`` counts across requests. The connections of a thread are limited, see
:mod:`.options`. A request that finds none free waits for one, parked.

A pool is used only on its own thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import defaultdict, deque
from typing import Any, Final

from django.db import connections
from django.db.utils import OperationalError

from bide.errors import WaitError
from bide.integrations.django import options
from bide.integrations.django.request_executor import (
    RequestExecutor,
    executor_here,
    served_here,
)
from bide.waiting.outcome import Signal
from bide.waiting.waiter import Waiter

log = logging.getLogger("bide")

_create: Final = connections.create_connection


class Held:
    """The connections of one request.

    Attributes:
        wrappers: Django's connection objects, by alias.
        taking: whether the request waits for a free connection now.
    """

    def __init__(self, pool: Pool, waiter: Waiter | None) -> None:
        self.pool = pool
        self.waiter = waiter  # None on a worker thread, which cannot park
        self.wrappers: dict[str, Any] = {}
        self.taking = False

    def end(self) -> None:
        """Put all of them back into the pool; on their thread."""
        self.wrappers.clear()
        for alias, lent in self.pool.lent.items():
            for wrapper, holder in list(lent.items()):
                if holder is self:
                    self.pool.take_back(alias, wrapper)
        del self.pool, self.waiter  # no cycle


class Pool:
    """One thread's connections, by alias: idle, or lent to requests; and the requests that wait."""

    def __init__(self) -> None:
        self.idle: dict[str, list[Any]] = defaultdict(list)
        self.lent: dict[str, dict[Any, Held]] = defaultdict(dict)
        self.queue: dict[str, deque[tuple[Signal, Held]]] = defaultdict(deque)

    def lend(self, alias: str, held: Held) -> Any:
        """Return a connection for a request; raise OperationalError when none is free in time."""
        lent = self.lent[alias]
        if self.idle[alias]:
            wrapper = self.idle[alias].pop()
            # As ``request_started`` does for an existing connection.
            wrapper.queries_log.clear()
            wrapper.close_if_unusable_or_obsolete()
        elif len(lent) < options.current.connections_per_thread:
            wrapper = _new(alias)
        else:
            wrapper = self._spared(alias) or self._await(alias, held)
            wrapper.queries_log.clear()
        lent[wrapper] = held
        return wrapper

    def _spared(self, alias: str) -> Any:
        """Take a connection from a request that waits and does not need it; else return None."""
        whole = options.current.keep_connection == "request"
        for wrapper, holder in self.lent[alias].items():
            if _is_needed(wrapper) or (whole and wrapper.connection is not None):
                continue
            if holder.wrappers.get(alias) is wrapper:
                del holder.wrappers[alias]
                return wrapper
        return None

    def _await(self, alias: str, held: Held) -> Any:
        limit = options.current.connections_per_thread
        message = (
            f"all {limit} connections that one thread may have to the database {alias!r} are "
            "held by requests that wait: let them close theirs (connections.close_all()) before "
            "they wait, or see KEEP_CONNECTION and CONNECTIONS_PER_THREAD of the setting BIDE"
        )
        if held.waiter is None:
            raise OperationalError(message)
        signal = Signal()
        self.queue[alias].append((signal, held))
        held.taking = True
        try:
            return held.waiter.wait(signal, options.current.connection_timeout)
        except BaseException as error:
            if signal.fired:
                self.take_back(alias, signal.value)
            else:
                self.queue[alias].remove((signal, held))
            if isinstance(error, TimeoutError):
                raise OperationalError(message) from None
            raise
        finally:
            held.taking = False

    def take_back(self, alias: str, wrapper: Any) -> None:
        """Called when a connection comes back: lend it to the first that waits, or keep it idle."""
        self.lent[alias].pop(wrapper, None)
        try:
            if wrapper.in_atomic_block:  # no code will leave that block any more
                wrapper.close()
                wrapper = _new(alias)
            wrapper.close_if_unusable_or_obsolete()
            for other in self.idle[alias]:
                other.close_if_unusable_or_obsolete()
        except Exception:  # whatever the driver raises; the others that wait get a new one
            log.exception("a connection to the database %r could not be closed", alias)
            wrapper = _new(alias)
        if self.queue[alias]:
            signal, held = self.queue[alias].popleft()
            self.lent[alias][wrapper] = held
            signal.fire(wrapper)
        else:
            self.idle[alias].append(wrapper)

    def close(self) -> None:
        """Close the idle connections; on the pool's thread."""
        for wrappers in self.idle.values():
            while wrappers:
                wrappers.pop().close()


class _Closing:
    """Closes a pool when its thread ends.

    The ending thread drops its locals, and so calls this object's destructor on itself. Nothing
    else may refer to this object. The pool would not do: tracebacks refer to it, and any thread may
    drop them.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __del__(self) -> None:
        self._pool.close()


def _is_needed(wrapper: Any) -> bool:
    """Whether a connection has state that another request must not see, such as a transaction."""
    return bool(
        wrapper.in_atomic_block
        or wrapper.execute_wrappers
        or wrapper.force_debug_cursor
        or (
            wrapper.connection is not None
            and wrapper.autocommit != wrapper.settings_dict["AUTOCOMMIT"]
        )
        or len(wrapper.bide_cursors)
    )


def _new(alias: str) -> Any:
    wrapper = _create(alias)
    whole = options.current.keep_connection == "request"
    wrapper.bide_cursors = () if whole else _watch_cursors(wrapper)
    return wrapper


def _watch_cursors(wrapper: Any) -> weakref.WeakSet[Any]:
    """Return the set of a connection's live cursors: each may be in the middle of its rows."""
    cursors: weakref.WeakSet[Any] = weakref.WeakSet()
    prepare = type(wrapper)._prepare_cursor
    itself = weakref.ref(wrapper)

    def prepared(cursor: Any) -> Any:
        made = prepare(itself(), cursor)
        cursors.add(made)
        return made

    wrapper._prepare_cursor = prepared
    return cursors


class _Here(threading.local):
    pool: Pool | None = None
    closing: _Closing | None = None


_here = _Here()


def _pool_here() -> Pool:
    if _here.pool is None:
        _here.pool = Pool()
        _here.closing = _Closing(_here.pool)
    return _here.pool


def _executor_here() -> RequestExecutor | None:
    """Return the executor of the request whose connections this code uses.

    None outside of a request, and in coroutines, to which Django refuses its database.
    """
    if asyncio._get_running_loop() is not None:
        return None
    return served_here() or executor_here()


def held_here() -> Held | None:
    """Return the connections of the request that this code runs in; None outside of one."""
    executor = _executor_here()
    if executor is None:
        return None
    held: Held | None = executor.held
    if held is None:
        here = served_here() is None
        held = executor.held = Held(_pool_here(), executor.waiter if here else None)
        if here:
            executor.ends.append(held.end)
    return held


class Local:
    """Replaces ``connections._connections``: an attribute for each alias."""

    def __init__(self, own: Any) -> None:
        object.__setattr__(self, "_own", own)

    def __getattr__(self, alias: str) -> Any:
        # Django reads this several times in each request, also in one without a connection.
        executor = _executor_here()
        if executor is None:
            return getattr(self._own, alias)
        held = executor.held
        if held is not None:
            wrapper = held.wrappers.get(alias)
            if wrapper is not None:
                return wrapper
        raise AttributeError(alias)

    def __setattr__(self, alias: str, wrapper: Any) -> None:
        held = held_here()
        if held is None:
            setattr(self._own, alias, wrapper)
        else:
            held.wrappers[alias] = wrapper

    def __delattr__(self, alias: str) -> None:
        held = held_here()
        if held is None:
            delattr(self._own, alias)
            return
        wrapper = held.wrappers.pop(alias, None)
        if wrapper is None:
            raise AttributeError(alias)
        held.pool.lent[alias].pop(wrapper, None)  # the code that takes it out closes it


def create_connection(alias: str) -> Any:
    """Replaces ``connections.create_connection``: in a request, take one from the pool."""
    held = held_here()
    return _create(alias) if held is None else held.pool.lend(alias, held)


def refuse_in_atomic() -> None:
    """Raise WaitError in a request inside ``atomic()``, where the setting refuses waits there."""
    if options.current.wait_in_atomic:
        return
    held = held_here()
    if held is None or held.taking:
        return
    for alias, wrapper in held.wrappers.items():
        if wrapper.in_atomic_block:
            raise WaitError(
                f"a wait inside atomic() of the database {alias!r} would keep its transaction "
                "open, and the setting BIDE refuses that (WAIT_IN_ATOMIC): wait before the block "
                "or after it; under ATOMIC_REQUESTS decorate the view with non_atomic_requests"
            )
