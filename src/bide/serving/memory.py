"""How much memory this process has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

STATM: Final = Path("/proc/self/statm")
"""Where Linux says it."""


def resident() -> int:
    """Return the bytes of memory that this process has (its resident set).

    Raises:
        OSError: the system does not say it.
    """
    return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
