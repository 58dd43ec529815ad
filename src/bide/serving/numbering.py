"""The ids by which people speak of workers and requests: ``2-17`` is request 17 of worker 2.

A request is numbered when somebody looks at it for the first time. So an id costs nothing where
nobody looks, and stays short.
"""

from __future__ import annotations

import itertools
from time import monotonic
from typing import Final

from bide.exchange.call import Call

_worker: Final = [0]
_began: Final = [monotonic()]
_numbers: Final = itertools.count(1)
_claims: Final[dict[int, int]] = {}
"""Numbers that threads are about to set, by the call's ``id()``. Single operations only."""


def be_worker(number: int) -> None:
    """Called when this process begins as a worker: set the number that it has among them."""
    _worker[0] = number
    _began[0] = monotonic()


def worker_number() -> int:
    """Return the number of this process among the workers, from 1; 0 without a supervisor."""
    return _worker[0]


def up() -> float:
    """Return for how many seconds this process has been a server."""
    return monotonic() - _began[0]


def id_of(call: Call) -> str:
    """Return a call's id: always the same, from any thread."""
    return f"{_worker[0]}-{_number_of(call)}"


def _number_of(call: Call) -> int:
    try:
        return call.number
    except AttributeError:
        pass
    # Claim first, look again then: who claims after another has set the number finds it, and who
    # claims before that has the same claim.
    claimed = _claims.setdefault(id(call), next(_numbers))
    try:
        number = call.number
    except AttributeError:
        number = call.number = claimed
    _claims.pop(id(call), None)
    return number
