"""What lets a module be compiled and run uncompiled just the same.

Which modules mypyc compiles, ``hatch_build.py`` lists. A class in them inherits from such modules
alone: an interpreted one has its dictionary, and its place for weak references, where the fields of
this one are. Nor can a weak reference refer to it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_: Any) -> Any:
        """Return a decorator that does nothing: it speaks to the compiler."""
        return lambda kind: kind


def take_interruption() -> None:
    """Raise what another thread has raised in this one (``PyThreadState_SetAsyncExc``), if it has.

    CPython looks for that in the code that it interprets, as this function is, and so not in a
    compiled loop, which calls this at the points where it may be interrupted.
    """


def built(name: str) -> Any:
    """Return a module of Cython by its dotted name; None if it is not built, or not wanted.

    Imported by name, since type checkers do not know it and a checkout does not have it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
