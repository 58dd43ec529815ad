"""Whether HTTP/2 is served."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache

from bide.settings import Settings


@cache
def _installed() -> bool:
    return importlib.util.find_spec("h2") is not None


def load() -> None:
    """Load what serves it: at its first client that would hold up all others."""
    importlib.import_module("bide.protocols.http2.connection")


def serves(settings: Settings) -> bool:
    """Whether HTTP/2 is served, by these settings: the package ``h2`` is installed."""
    return settings.http2 == "auto" and _installed()
