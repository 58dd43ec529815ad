"""The two forms of the hot functions: the twins in Python, and the compiled ones where built."""

from __future__ import annotations

import importlib
from typing import Any, Final

import pytest

from bide import twins
from bide.waiting import outcome


def _built() -> Any:
    try:
        return importlib.import_module("bide._native")
    except ImportError:
        return None


BUILT: Final = _built()
"""The compiled module, also where the server itself runs without it; None where there is none."""

FORMS: Final[dict[str, Any]] = {"twin": twins} | ({} if BUILT is None else {"compiled": BUILT})

MYPYC: Final = not outcome.__file__.endswith(".py")
"""Whether the modules of the package run as mypyc compiles them."""

needs_steps: Final = pytest.mark.skipif(
    MYPYC,
    reason="two steps here are one in the compiled form: nothing can come in between",
)
"""For a race that another thread can only win between two steps that the interpreter makes."""

needs_profile: Final = pytest.mark.skipif(
    MYPYC, reason="compiled code tells a profiler nothing of its calls, by which work is counted"
)

needs_built: Final = pytest.mark.skipif(BUILT is None, reason="bide._native is not built here")
