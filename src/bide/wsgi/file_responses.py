"""Responses that are files: the kernel sends them if it can."""

from __future__ import annotations

from typing import Any, Final

from bide.exchange.messages import Head
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal
from bide.waiting.waiter import Waiter
from bide.wsgi.files import FileWrapper, kernel_part

_PART: Final = 1024 * 1024  # bytes that the kernel sends before others may go on


def file_of(result: Any, head: Head | None) -> FileWrapper | None:
    """Return the file that a response sends, or a part of; positioned at the response's start.

    Werkzeug answers a range request by an iterator of its own over the file, which seeks at its
    first block. So the seek is done here.
    """
    if isinstance(result, FileWrapper):
        return result
    if type(result).__name__ != "_RangeWrapper" or head is None or head.length is None:
        return None
    file = getattr(result, "iterable", None)
    if (
        not isinstance(file, FileWrapper)
        or getattr(result, "byte_range", None) != head.length
        or getattr(result, "read_length", None) != 0
        or not file.seekable()
    ):
        return None
    file.seek(result.start_byte)
    return file


def send_file(stream: Stream, waiter: Waiter, wrapper: FileWrapper) -> bool:
    """Send a file by the kernel, and end the response; on the conversation's thread.

    Return false if the kernel cannot send it. Then nothing was sent, and the wrapper yields no more
    than the head's Content-Length, however the file grows.
    """
    head = stream.head
    if head is None or stream.head_sent or stream.bodiless:
        return False
    plain = stream.sends_files and type(wrapper) is FileWrapper
    part = kernel_part(wrapper.file) if plain else None
    if part is None:
        wrapper.left = head.length
        return False
    descriptor, offset, count = part
    if head.length is None:
        stream.announce(count)
    else:
        count = min(count, head.length)
    end = offset + count
    while offset < end:
        sent = stream.send_file(descriptor, offset, min(end - offset, _PART))
        if isinstance(sent, Signal):
            waiter.wait_io(sent)
        else:
            offset += sent
            waiter.keep_pace(None)
    stream.end()
    return True
