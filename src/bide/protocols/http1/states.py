"""The states of a connection's way in: what the next bytes are, and how that changes.

It is always in one of these states; ``MOVES`` has every move::

              part                length
      head <--------+        +------------> counted
        |           |        |                 |
        +--whole--> |        | <-----end-------+
                      idle
        +--go on--> |        | <-----end-------+
        |           |        |                 |
      held <--------+        +------------> chunked
              hold                chunks
                                              each of them --stop--> stopped
"""

from __future__ import annotations

from typing import Final

IDLE: Final = "idle"
"""The next byte begins a head, or an empty line before one."""
HEAD: Final = "head"
"""A head has begun, and is kept until its end has come."""
COUNTED: Final = "counted"
"""A body of known length is coming."""
CHUNKED: Final = "chunked"
"""A chunked body is coming."""
HELD: Final = "held"
"""What comes is kept unparsed."""
STOPPED: Final = "stopped"
"""What comes is dropped."""

PART: Final = "part"
"""A head has come in part."""
WHOLE: Final = "whole"
"""The rest of it has come."""
LENGTH: Final = "length"
"""A head has announced a body of known length."""
CHUNKS: Final = "chunks"
"""A head has announced a chunked body."""
END: Final = "end"
"""The body has come to its end."""
HOLD: Final = "hold"
"""Enough requests wait, or the last one may change the protocol."""
GO_ON: Final = "go on"
"""Fewer wait, or the protocol stays."""
STOP: Final = "stop"
"""Nothing more can be a request: after an error, the last request, or the client's end."""

MOVES: Final = {
    (IDLE, PART): HEAD,
    (IDLE, LENGTH): COUNTED,
    (IDLE, CHUNKS): CHUNKED,
    (IDLE, HOLD): HELD,
    (IDLE, STOP): STOPPED,
    (HEAD, WHOLE): IDLE,
    (HEAD, STOP): STOPPED,
    (COUNTED, END): IDLE,
    (COUNTED, STOP): STOPPED,
    (CHUNKED, END): IDLE,
    (CHUNKED, STOP): STOPPED,
    (HELD, GO_ON): IDLE,
    (HELD, STOP): STOPPED,
}
"""The state that follows, by state and event. There is no other move."""
