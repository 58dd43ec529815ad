"""``BIDE_PURE=1``: import the sources of this package where they are compiled, too.

What is compiled stands beside its source, and Python would choose it. What has no source, a module
of Cython, is then not found, as where no C compiler was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType


class SourceFinder(MetaPathFinder):
    """Finds the modules of this package by their sources."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module's source is; None for a module of another package.

        Raises:
            ModuleNotFoundError: it is there in its compiled form alone.
        """
        if not fullname.startswith("bide."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
            return spec
        source = Path(spec.loader.path).with_name(f"{fullname.rpartition('.')[2]}.py")
        if not source.exists():
            raise ModuleNotFoundError(f"{fullname} has no source, and BIDE_PURE=1", name=fullname)
        return spec_from_file_location(fullname, source)


def prefer_sources() -> None:
    """Have every module of this package that is imported from now on run from its source."""
    sys.meta_path.insert(0, SourceFinder())
