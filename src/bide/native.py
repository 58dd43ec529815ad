"""The hot functions on bytes: compiled if that can be imported, else in Python; chosen here, once.

``BIDE_PURE=1`` in the environment chooses Python. So does a build of Python without the
interpreter's lock, which guards the compiled module's table of names.

``parse``, ``fill`` and ``check`` are None where nothing is compiled: Python is fastest without a
first look at what is plain. What each does is said in :mod:`bide.twins`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from typing import Any, Final

from bide.compiling import built
from bide.twins import Checked, HeadLimits, Plain
from bide.twins import encode as encode_head

_module: Final = None if "t" in sys.abiflags else built("bide._native")


def _form() -> str:
    # By one of the modules that mypyc compiles; found, not imported.
    spec = importlib.util.find_spec("bide.waiting.waiter")
    if spec is not None and isinstance(spec.loader, ExtensionFileLoader):
        return "compiled"
    return "pure Python" if _module is None else "Python, with compiled work on bytes"


FORM: Final = _form()
"""Which of the forms runs; a text for the status."""

parse: Final[Callable[[bytes, int, HeadLimits], Plain | None] | None] = (
    None if _module is None else _module.parse
)
fill: Final[
    Callable[[dict[str, Any], str, bytes, bytes, bytes, bytes, str, tuple[str, ...]], bool] | None
] = None if _module is None else _module.fill
check: Final[Callable[[Any, dict[str, str]], Checked | None] | None] = (
    None if _module is None else _module.check
)
encode: Final[Callable[[int, str, list[tuple[str, str]], bytes, bytes, bytes], bytes]] = (
    encode_head if _module is None else _module.encode
)
