"""``wsgi.file_wrapper``: what goes to the client straight from the kernel, and what must not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from werkzeug.wsgi import _RangeWrapper

from bide.wsgi.files import FileWrapper, kernel_part

DATA = b"0123456789" * 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file of 1000 bytes."""
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


def part_of(file: Any) -> bytes:
    """Read what ``kernel_part`` names, as the kernel would."""
    part = kernel_part(file)
    assert part is not None
    descriptor, offset, count = part
    return os.pread(descriptor, count, offset)


PLAIN: dict[str, Callable[[Path], Any]] = {
    "buffered": lambda path: path.open("rb"),
    "unbuffered": lambda path: path.open("rb", buffering=0),
    "read and write": lambda path: path.open("r+b"),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_kernel_may_send_a_plain_file(path: Path, kind: str) -> None:
    """All of it."""
    with PLAIN[kind](path) as file:
        assert part_of(file) == DATA


@pytest.mark.parametrize("kind", PLAIN)
def test_kernel_sends_a_file_from_where_it_stands(path: Path, kind: str) -> None:
    """A partly read file, though Python's buffer has read further; and one that was moved."""
    with PLAIN[kind](path) as file:
        assert file.read(7) == DATA[:7]
        assert part_of(file) == DATA[7:]
        file.seek(990)
        assert part_of(file) == DATA[990:]


@pytest.mark.parametrize("position", [1000, 2000])
def test_kernel_sends_nothing_of_a_file_that_is_read_to_its_end(path: Path, position: int) -> None:
    """Nor of one that stands beyond it; the wrapper gives nothing either."""
    with path.open("rb") as file:
        file.seek(position)
        part = kernel_part(file)
        assert part is None or part[2] == 0
        assert b"".join(FileWrapper(file)) == b""


def test_kernel_sends_what_was_written_and_not_flushed(path: Path) -> None:
    """A file written by the application a moment ago."""
    with path.open("r+b") as file:
        file.read(10)
        file.seek(0)
        file.write(b"abc")
        file.seek(0)  # within what Python has read: it stays in Python's buffer
        assert part_of(file) == b"abc" + DATA[3:]
        file.seek(0, os.SEEK_END)
        file.write(b"end")
        file.seek(998)
        assert part_of(file) == b"89end"


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile])
def test_kernel_may_send_a_temporary_file(make: Callable[[], Any]) -> None:
    """Named or not."""
    with make() as file:
        file.write(DATA)
        file.seek(5)
        assert part_of(file) == DATA[5:]


def test_kernel_sends_a_file_in_memory_through_python(path: Path) -> None:
    """``BytesIO`` has no descriptor."""
    assert kernel_part(io.BytesIO(DATA)) is None


COMPRESSED: dict[str, Callable[..., Any]] = {
    "gzip": gzip.open,
    "bz2": bz2.open,
    "lzma": lzma.open,
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_kernel_does_not_send_what_a_file_decompresses(tmp_path: Path, kind: str) -> None:
    """It has the descriptor of the compressed bytes, and the application means the others."""
    path = tmp_path / "compressed"
    with COMPRESSED[kind](path, "wb") as file:
        file.write(DATA)
    with COMPRESSED[kind](path, "rb") as file:
        assert kernel_part(file) is None
        assert b"".join(FileWrapper(file)) == DATA
    with io.BufferedReader(COMPRESSED[kind](path, "rb")) as file:
        assert kernel_part(file) is None


def test_kernel_does_not_send_what_stands_in_an_archive(tmp_path: Path) -> None:
    """A member of a zip file."""
    path = tmp_path / "archive"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", DATA)
    with zipfile.ZipFile(path) as archive, archive.open("data") as file:
        assert kernel_part(file) is None


def test_kernel_does_not_send_a_text_file(path: Path) -> None:
    """It gives strings, and stands somewhere else than its descriptor."""
    with path.open() as file:
        assert kernel_part(file) is None
    with tempfile.NamedTemporaryFile("w+") as named:
        assert kernel_part(named) is None


def test_kernel_does_not_send_a_file_that_may_be_in_memory() -> None:
    """A spooled file, rolled over to the disk or not."""
    with tempfile.SpooledTemporaryFile(max_size=10) as file:
        assert kernel_part(file) is None
        file.write(DATA)
        file.seek(0)
        assert kernel_part(file) is None
        assert b"".join(FileWrapper(file)) == DATA


def test_kernel_does_not_send_a_pipe() -> None:
    """It has no length, and no place to begin."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file, os.fdopen(writer, "wb") as other:
        assert kernel_part(file) is None
        other.write(DATA)
        other.close()
        assert b"".join(FileWrapper(file)) == DATA


def test_kernel_does_not_send_a_device() -> None:
    """Nor anything else that is not a regular file."""
    with open("/dev/zero", "rb") as file:
        assert kernel_part(file) is None


def test_kernel_does_not_send_a_file_that_has_no_length_before_it_is_read() -> None:
    """Files under /proc say 0 bytes: taken at their word, the client would get nothing."""
    with open("/proc/self/status", "rb") as file:
        part = kernel_part(file)
        assert part is None
        assert b"".join(FileWrapper(file)).startswith(b"Name:")


def test_kernel_does_not_send_a_subclass_of_a_plain_file(path: Path) -> None:
    """What its ``read`` gives need not be what stands on the disk."""

    class Upper(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return b"other"

    with Upper(path) as file:
        assert kernel_part(file) is None
        with io.BufferedReader(file) as buffered:
            assert kernel_part(buffered) is None


@pytest.mark.parametrize("file", [object(), None, [b"a"], iter([b"a"])])
def test_kernel_does_not_send_what_is_no_file(file: Any) -> None:
    """Anything can be wrapped; what cannot be read fails when it is read."""
    assert kernel_part(file) is None


def test_wrapper_gives_blocks_of_its_size() -> None:
    """The last one may be shorter; PEP 3333 lets the application choose the size."""
    file = io.BytesIO(b"0123456789")
    assert list(FileWrapper(file, 4)) == [b"0123", b"4567", b"89"]
    assert b"".join(FileWrapper(io.BytesIO(DATA))) == DATA
    assert list(FileWrapper(io.BytesIO())) == []


def test_wrapper_closes_its_file_where_that_can_be_closed() -> None:
    """PEP 3333: ``close`` must be the file's, and there is none for a file without."""
    file = io.BytesIO(b"a")
    FileWrapper(file).close()
    assert file.closed

    class Unclosable:
        def read(self, size: int) -> bytes:
            return b""

    assert not hasattr(FileWrapper(Unclosable()), "close")


class Counting(io.FileIO):
    """A file that counts what is read of it."""

    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and count."""
        data = super().read(-1 if size is None else size) or b""
        self.asked += len(data)
        return data


def test_wrapper_is_moved_as_its_file_is(path: Path) -> None:
    """Werkzeug seeks on ``iter(wrapper)`` for a range: what is before it is not read."""
    with Counting(path) as file:
        parts = _RangeWrapper(FileWrapper(file, 10), 990, 5)
        assert b"".join(parts) == DATA[990:995]
        assert file.asked <= 10
        wrapper = FileWrapper(file)
        assert wrapper.seekable()
        wrapper.seek(7)
        assert wrapper.tell() == 7


def test_wrapper_of_what_cannot_be_moved_says_so() -> None:
    """Werkzeug reads then, and drops what is before the range."""

    class Readable:
        def __init__(self) -> None:
            self.read = io.BytesIO(DATA).read

    assert not FileWrapper(Readable()).seekable()
    assert not hasattr(FileWrapper(Readable()), "seek")
    assert b"".join(_RangeWrapper(FileWrapper(Readable(), 10), 990, 5)) == DATA[990:995]


SHORT = "/sys/kernel/mm/transparent_hugepage/enabled"


@pytest.mark.skipif(not os.path.exists(SHORT), reason=f"there is no {SHORT}")
def test_kernel_does_not_send_a_file_whose_length_is_not_true() -> None:
    """Under /sys every file says it has a page; the client would be promised more than comes."""
    with open(SHORT, "rb") as file:
        assert kernel_part(file) is None
        assert len(b"".join(FileWrapper(file))) < os.stat(SHORT).st_size


def test_kernel_sends_a_file_with_holes(tmp_path: Path) -> None:
    """It occupies less than it is long, and is as true."""
    path = tmp_path / "holes"
    with path.open("wb") as file:
        file.truncate(100_000)
    with path.open("rb") as file:
        assert part_of(file) == bytes(100_000)
