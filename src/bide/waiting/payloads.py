"""What passes between a process and a child that works for it: pickles, and large buffers beside.

A message is a head (what it is, how many parts it has, and the size of each) and its parts: one
pickle, and the buffers that the pickled objects do not copy into it (PEP 574). An array's bytes are
sent from where they are, and received into the buffer that the other side's array then has.

Sockets here block. Whoever calls has a thread for that.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

Part = bytes | bytearray | memoryview

CALL: Final = 1
"""To a child: a function and its arguments."""
BEGUN: Final = 2
"""From a child: all of a call has come, and its code may run from now on."""
RESULT: Final = 3
"""From a child: what the function has returned."""
ERROR: Final = 4
"""From a child: what it has raised."""

# With a resident, every message but LOAD and READY has the number of its call as its first part.
LOAD: Final = 5
"""To a resident: the factory of what it keeps."""
READY: Final = 6
"""From a resident: it has been made."""
STREAM: Final = 7
"""From a resident: the method's result is a stream, whose items follow."""
ITEM: Final = 8
"""From a resident: one item."""
END: Final = 9
"""From a resident: there are no more."""
MORE: Final = 10
"""To a resident: there is room for one more item."""
LEFT: Final = 11
"""To a resident: nobody wants more of the stream."""

_HEAD: Final = struct.Struct("!BI")
_SIZE: Final = struct.Struct("!Q")
NUMBER: Final = struct.Struct("!Q")
"""How the number of a call is sent."""

_AT_ONCE: Final = 64
"""Parts that are given to the system in one call, which takes 1,024 at most."""


def dump(value: Any) -> list[Part]:
    """Return the parts of a value; the large ones are its own memory, and not copies."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [data, *(each.raw() for each in buffers)]


def load(parts: Sequence[Part]) -> Any:
    """Return the value of parts; it has those behind the first as its memory."""
    return pickle.loads(parts[0], buffers=parts[1:])


def send(sock: socket.socket, kind: int, parts: Sequence[Part] = ()) -> None:
    """Send a message; raises OSError when the other side is gone."""
    head = _HEAD.pack(kind, len(parts)) + b"".join(_SIZE.pack(len(each)) for each in parts)
    left = [memoryview(each) for each in (head, *parts) if len(each)]
    while left:
        sent = sock.sendmsg(left[:_AT_ONCE])
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


def receive(sock: socket.socket) -> tuple[int, list[bytearray]]:
    """Receive a message.

    Raises:
        EOFError: the other side has ended, at the end of a message or within one.
        OSError: likewise.
    """
    kind, number = _HEAD.unpack(_exactly(sock, _HEAD.size))
    sizes = _exactly(sock, _SIZE.size * number)
    return kind, [_exactly(sock, size) for (size,) in _SIZE.iter_unpack(sizes)]


def _exactly(sock: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    left = memoryview(data)
    while left:
        came = sock.recv_into(left)
        if not came:
            raise EOFError
        left = left[came:]
    return data
