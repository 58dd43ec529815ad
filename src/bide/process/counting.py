"""How many workers ``auto`` is: one for each processor that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def number_of_workers(text: str, quota: Path = _QUOTA) -> int:
    """Return the number that the setting ``workers`` stands for.

    Args:
        text: the setting.
        quota: where the system says how much time of processors a container has.
    """
    if text != "auto":
        return int(text)
    usable = getattr(os, "sched_getaffinity", None)
    processors = len(usable(0)) if usable is not None else os.cpu_count() or 1
    return max(1, min(processors, _allowed(quota)))


def _allowed(quota: Path) -> int:
    """Return how many processors a container's time amounts to, rounded up."""
    try:
        most, period = quota.read_text(encoding="ascii").split()
        return math.ceil(int(most) / int(period))
    except (OSError, ValueError):  # there is no limit, as "max" says too
        return os.cpu_count() or 1
