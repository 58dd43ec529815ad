"""``wsgi.file_wrapper`` (PEP 3333, Optional Platform-Specific File Handling), and what it may send.

No sockets: which file can go to the client straight from the kernel is decided here, and sending it
is the stream's.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import Any


class FileWrapper:
    """An iterable over a file-like object's blocks, which the server may send in a better way.

    ``close`` closes the file.
    """

    def __init__(self, file: Any, block_size: int = 64 * 1024) -> None:
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        while block := self.file.read(self.block_size):
            yield block


def kernel_part(file: Any) -> tuple[int, int, int] | None:
    """Say what of a file the kernel can send: descriptor, offset and count, in bytes; else None.

    Only a plain binary file on a disk, read from where it stands to its end. Exact types: a gzip
    file, too, has the ``fileno`` of what it decompresses.
    """
    if isinstance(file, tempfile._TemporaryFileWrapper):
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
    return descriptor, offset, count
