"""``resident``: an object that lives in processes of its own, and promises of its methods' results.

What the processes do is in :mod:`bide.waiting.resident_pools`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Final, Literal

from bide.systems import at_fork, refuse_windows
from bide.waiting.item_streams import ResidentPromise
from bide.waiting.process_bounds import ResidentStatus, bounds
from bide.waiting.process_pools import check_importable
from bide.waiting.resident_pools import ResidentPool

_pools: Final[list[ResidentPool]] = []


def _after_fork() -> None:
    for pool in _pools:
        pool.after_fork()


def _statuses() -> tuple[ResidentStatus, ...]:
    return tuple(each.status() for each in list(_pools))


bounds.residents = _statuses
at_fork(after_in_child=_after_fork)


def _forget(pool: ResidentPool) -> None:
    with contextlib.suppress(ValueError):  # it was closed before
        _pools.remove(pool)


class Resident:
    """An object in other processes. Its methods return promises. See :func:`resident`."""

    def __init__(self, pool: ResidentPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Callable[..., ResidentPromise]:
        """Return what calls a method; names that begin with an underscore are not passed on."""
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no attribute {name!r}")
        return functools.partial(self._pool.submit, name)

    def __call__(self, *args: Any, **kwargs: Any) -> ResidentPromise:
        """Call the object itself."""
        return self._pool.submit("__call__", *args, **kwargs)

    def __enter__(self) -> Resident:
        """Return it; at the end of the block it is closed."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its processes; from any thread. Nothing happens if it is closed already.

        They are killed; this does not wait for that. Calls in the queue and running calls are
        cancelled, and streams end with CancelledError. A later call raises RuntimeError.
        The object's own ``close`` is not called. Give it another name, and call it before.
        """
        _forget(self._pool)
        self._pool.close()

    def __repr__(self) -> str:
        """Return what made the object."""
        return f"<bide.resident of {self._pool.name}>"


def resident(
    factory: Callable[[], Any],
    *,
    processes: int = 1,
    cancel: Literal["finish", "kill"] = "finish",
) -> Resident:
    """Make an object that lives in other processes, such as a model or a connection.

    Call this at import. The first call of a method starts a process, which calls ``factory`` once.
    From then on, the process makes one call after another. It ends with the program, by
    ``close()``, or at the end of a ``with`` block.

    A method returns a promise of its result at once. It may be called from any thread. Arguments
    and results are pickled as in :func:`in_process`. A coroutine function is awaited in the
    process. If the method returns a generator or async iterable, give the promise to
    :func:`iterate`.

    The promise is cancelled by a time-out of :func:`wait`, for example, or when the client leaves.
    Then a call in the queue is dropped. A running call goes on, but its result is dropped. A stream
    is closed.

    A method raises Overloaded or ProcessesBusy when too many calls wait (``process_queue``), as
    :func:`in_process` does. It raises RuntimeError when the program is ending, or the resident is
    closed. It raises errors of ``pickle``. The promise fails with the error that the method has
    raised, with ProcessDied if the process has ended, and with ResidentFailed if the factory fails.

    Args:
        factory: a function or class in a module, or a ``functools.partial`` of one. It may be a
            coroutine function.
        processes: how many processes there may be. Each has an object of its own.
        cancel: "kill": a running call that is cancelled ends with its process, and a new process
            starts.

    Raises:
        ValueError: the factory is in the main program, or another argument is not allowed.
        Exception: an error of :mod:`pickle`: the factory cannot be pickled.
    """
    refuse_windows("bide.resident")
    check_importable(getattr(factory, "func", factory))
    if processes < 1:
        raise ValueError(f"a resident has 1 or more processes, not {processes}")
    if cancel not in ("finish", "kill"):
        raise ValueError(f'cancel is "finish" or "kill", not {cancel!r}')
    pool = ResidentPool(factory, processes, cancel == "kill")
    _pools.append(pool)
    return Resident(pool)
