"""The extension ``http.response.pathsend``: a response whose body is a file.

The file is opened, read and sent in threads: a disk may be slow.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from bide.errors import LocalProtocolError
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal

T = TypeVar("T")

_PART: Final = 1024 * 1024
"""Bytes that one call of a thread sends at most."""
_BLOCK: Final = 64 * 1024
"""Bytes that are read at a time, where the kernel cannot send a file."""


async def send_path(stream: Stream, path: Any, wait: Callable[[Signal], Awaitable[None]]) -> None:
    """Send a file as the body of a response that has been started, and end the response.

    Args:
        stream: the response.
        path: where the file is, as text.
        wait: waits for the client.

    Raises:
        OSError: the file cannot be read; nothing was sent.
        ClientDisconnected: the client has left.
        LocalProtocolError: it is not a file, or shorter than the head's Content-Length.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise LocalProtocolError(f"http.response.pathsend has the path {path!r}: it must be text")
    opened: list[int] = []
    try:
        await _in_thread(lambda: opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
        [descriptor] = opened
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LocalProtocolError(f"http.response.pathsend: {path} is not a file")
        head = stream.head
        assert head is not None
        if head.length is None and not stream.head_sent and not stream.bodiless:
            stream.announce(status.st_size)
        count = status.st_size if head.length is None else min(head.length, status.st_size)
        kernel = stream.sends_files and head.length is not None
        offset = 0
        while offset < count and not stream.bodiless:
            if kernel:
                part = min(_PART, count - offset)
                sent = await _in_thread(partial(stream.send_file, descriptor, offset, part))
                if isinstance(sent, Signal):
                    await wait(sent)
                    continue
                offset += sent
            else:
                block = await _in_thread(partial(os.pread, descriptor, _BLOCK, offset))
                if not block:
                    break
                offset += len(block)
                signal = stream.send(block[: count - offset + len(block)])
                if signal is not None:
                    await wait(signal)
        stream.end()
    finally:
        for each in opened:
            os.close(each)


async def _in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread; return when it has ended, also when the task is cancelled.

    A descriptor that is closed while a thread uses it would soon be another file.
    """
    future = asyncio.get_running_loop().run_in_executor(None, function)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()
        raise cancelled
    return future.result()
