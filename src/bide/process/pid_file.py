"""The file with the number of the server's process; who sends it signals reads that."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from bide.errors import StartError

_PROC: Final = Path("/proc")


class PidFile:
    """The file of one server; main process only.

    Args:
        path: where; empty: there is none.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._written = 0

    def check(self) -> None:
        """Refuse the path of a server that runs; call it before the server listens.

        Raises:
            StartError: a process that runs has written the file.
        """
        if self._path is None:
            return
        number = _number_in(self._path)
        if number and number != os.getpid() and _wrote(number, self._path):
            raise StartError(
                f"the PID file {self._path} is of process {number}, which is running: stop that, "
                "or choose another file with --pid-file"
            )

    def write(self, number: int = 0) -> None:
        """Write the file; call it once the server listens.

        Args:
            number: of the process; 0: this one.

        Raises:
            StartError: it cannot be written.
        """
        if self._path is None:
            return
        self._written = number or os.getpid()
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            # No reader sees it half written.
            beside.write_text(f"{self._written}\n", encoding="ascii")
            beside.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise StartError(
                f"the PID file {self._path} cannot be written: {error.strerror}"
            ) from error

    def remove(self) -> None:
        """Remove the file, if it has still the number that this has written."""
        if self._path is not None and self._written and _number_in(self._path) == self._written:
            with contextlib.suppress(OSError):  # its directory is gone, or is read-only now
                self._path.unlink()


def _number_in(path: Path) -> int:
    """Return the number in a PID file; 0 if there is none."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() else 0


def _wrote(number: int, path: Path) -> bool:
    """Whether a process runs that may have written a file: it runs, and did so before."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):  # there is none, or can be none
        return False
    except PermissionError:  # it runs, and is somebody else's
        pass
    began = _began(number)
    # Else the number is another process's now. The clock of /proc has hundredths of seconds.
    return began is None or began <= path.stat().st_mtime + 1.0


def _began(number: int) -> float | None:
    """Return when a process began, in seconds since 1970; None where the system does not say."""
    try:
        # The second field is the program's name in brackets, in which anything may stand.
        fields = (_PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
        lines = (_PROC / "stat").read_text().splitlines()
        (boot,) = (int(each.split()[1]) for each in lines if each.startswith("btime "))
        return boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
