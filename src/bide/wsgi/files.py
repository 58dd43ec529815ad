"""``wsgi.file_wrapper`` (PEP 3333, Optional Platform-Specific File Handling).

Here it is decided which files the kernel can send by itself. The stream sends them.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from typing import Any


class FileWrapper:
    """An iterator over a file-like object's blocks; the kernel may send the file instead.

    It begins at the file's position. ``close``, ``seekable``, ``seek`` and ``tell`` are the file's,
    so that code that sends a part can seek here, as Werkzeug does for range requests.

    Attributes:
        left: bytes that may still be read; None: to the file's end.
    """

    def __init__(self, file: Any, block_size: int = 64 * 1024) -> None:
        self.file = file
        self.block_size = block_size
        self.left: int | None = None
        if hasattr(file, "close"):
            self.close = file.close
        if hasattr(file, "seek"):
            self.seek = file.seek
        if hasattr(file, "tell"):
            self.tell = file.tell

    def seekable(self) -> bool:
        """Return what the file's ``seekable`` returns; without one, whether it has a ``seek``."""
        seekable = getattr(self.file, "seekable", None)
        return hasattr(self.file, "seek") if seekable is None else bool(seekable())

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        left = self.left
        size = self.block_size if left is None else min(self.block_size, left)
        block: bytes = self.file.read(size) if size else b""
        if not block:
            raise StopIteration
        if left is not None:
            self.left = left - len(block)
        return block


def kernel_part(file: Any) -> tuple[int, int, int] | None:
    """Return the part of a file that the kernel can send: descriptor, offset and bytes; or None.

    Only a plain binary file on a disk, from its position to its end. Exact types count: a gzip
    file, too, has the ``fileno`` of what it decompresses.
    """
    tempfile = sys.modules.get("tempfile")  # without it there is no file of its kind
    if tempfile is not None and isinstance(file, tempfile._TemporaryFileWrapper):
        file = file.file
    if type(file) is io.BufferedRandom:
        file.flush()
    elif type(file) not in (io.BufferedReader, io.FileIO):
        return None
    if type(getattr(file, "raw", file)) is not io.FileIO:
        return None
    descriptor = file.fileno()
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    offset = file.tell()
    count = status.st_size - offset
    if count <= 0:
        return None  # at its end, or under /proc, where files have no size until they are read
    # Under /sys a file says 4096 bytes, and occupies none. So does one with holes: its last byte
    # tells the two apart.
    occupied = status.st_blocks * 512
    if occupied < status.st_size and not os.pread(descriptor, 1, status.st_size - 1):
        return None
    return descriptor, offset, count
