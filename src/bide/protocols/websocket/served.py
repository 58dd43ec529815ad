"""Whether WebSockets are served."""

from __future__ import annotations

import importlib.util
from functools import cache


@cache
def served() -> bool:
    """Whether WebSockets can be served: the package ``websockets`` is installed."""
    return importlib.util.find_spec("websockets") is not None
