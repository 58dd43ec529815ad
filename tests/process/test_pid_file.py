"""The PID file is its server's: not another's before, nor behind it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bide.errors import StartError
from bide.process.pid_file import PidFile
from tests.failures import Failures, same


def test_a_pid_file_has_the_number_until_the_end(tmp_path: Path) -> None:
    """And no file is left beside it."""
    path = tmp_path / "pid"
    file = PidFile(str(path))
    file.check()
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    PidFile(str(path)).check()  # of this process itself, after an exec
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_pid_file_that_another_has_taken_is_left_alone(tmp_path: Path) -> None:
    """The newer server's number stays; so does a file that this has never written."""
    path = tmp_path / "pid"
    file = PidFile(str(path))
    path.write_text(f"{os.getpid()}\n")
    file.remove()
    assert path.exists()
    file.write()
    path.write_text("1234567\n")
    file.remove()
    assert path.read_text() == "1234567\n"


def test_only_the_file_of_a_process_that_runs_is_refused(tmp_path: Path) -> None:
    """A number may be another process's by now: that began when the file was there already."""
    path = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        path.write_text(f"{process.pid}\n")
        with pytest.raises(
            StartError, match=f"is of process {process.pid}, which is running: stop that"
        ):
            PidFile(str(path)).check()
        if Path("/proc/self/stat").exists():
            os.utime(path, (0, 0))
            PidFile(str(path)).check()
        process.kill()
    with Failures() as failures:
        for text in (f"{process.pid}\n", "", "no number", "0", "9" * 30, "\xff"):
            with failures.of(repr(text)):
                path.write_text(text, encoding="latin-1")
                file = PidFile(str(path))
                file.check()
                file.write()
                same(path.read_text(), f"{os.getpid()}\n")


def test_a_pid_file_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    """The start ends with it."""
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "missing" / "pid", tmp_path / "directory"):
        with pytest.raises(StartError, match=r"the PID file .* cannot be written: "):
            PidFile(str(path)).write()
    assert list((tmp_path / "directory").parent.iterdir()) == [tmp_path / "directory"]


def test_without_a_path_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is the default."""
    monkeypatch.chdir(tmp_path)
    file = PidFile("")
    file.check()
    file.write()
    file.remove()
    assert list(tmp_path.iterdir()) == []
