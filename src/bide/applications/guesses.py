"""What may have been meant by the name of an application that cannot be imported.

Each function returns what to write instead, or nothing. It looks at names of files only: no code of
the application is run.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_USUAL: Final = "myapp"


def for_path(path: str, name: str) -> str:
    """Return what to write for the path of a file: ``shop/web.py`` is ``shop.web:app``.

    Args:
        path: what stands in the place of a module.
        name: what stands behind the colon; may be empty.
    """
    directory, file = os.path.split(os.path.normpath(path))
    module = file.removesuffix(".py")
    name = name or "app"
    packages = directory.split(os.sep) if directory else []
    if not module.isidentifier():
        return f"{_USUAL}:{name}"
    if all(each.isidentifier() for each in packages):
        return f"{'.'.join([*packages, module])}:{name}"
    return f"{module}:{name} --app-dir {directory}"


def for_missing(name: str, here: str) -> str:
    """Return what to do where a module that is not in a package is not found, as in a ``src/``.

    Args:
        name: the module's whole name.
        here: the directory in which it was looked for.
    """
    top = name.partition(".")[0]
    above, this = os.path.split(here)
    if this == top and _has(above, name):
        return f"this directory is {top} itself: give --app-dir {os.path.relpath(above)}"
    for each in sorted(os.scandir(here), key=lambda each: (each.name != "src", each.name)):
        if each.is_dir() and each.name[:1] not in "._" and _has(each.path, name):
            return f"it is in {each.name}: give --app-dir {os.path.relpath(each.path)}"
    return ""


def for_attribute(name: str) -> str:
    """Return what to write where the last part of a module's name is a name in the module."""
    module, _, last = name.rpartition(".")
    return f"write {module}:{last}" if hasattr(sys.modules.get(module), last) else ""


def for_relative(error: ImportError, name: str, here: str) -> str:
    """Return what to write where a relative import fails, with a colon before it."""
    if "relative import beyond top-level package" in str(error):
        return ": its dots lead out of the package: import that from the directory above it"
    if "relative import with no known parent package" not in str(error):
        return ""
    above, this = os.path.split(here)
    if this.isidentifier() and _has(above, f"{this}.{name}"):
        return f": write {this}.{name}:NAME --app-dir {os.path.relpath(above)}"
    return ": write the import without its dots"


def _has(directory: str, name: str) -> bool:
    """Whether a module or a package is in a directory."""
    place = os.path.join(directory, *name.split("."))
    return os.path.isfile(f"{place}.py") or os.path.isfile(os.path.join(place, "__init__.py"))
