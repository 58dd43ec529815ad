"""What the applications that send events to many clients do alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

# About as long as a short message of a chat; the mark that the client counts is in it.
EVENT = b"event: message\ndata: " + b"x" * 77 + b"!\n\n"
HEARTBEAT = b": still here\n\n"
HEARTBEAT_SECONDS = 15.0


class Queue(Protocol):
    """A queue of asyncio or of threads."""

    def put_nowait(self, item: bytes, /) -> None:
        """Put an event into it."""


Q = TypeVar("Q", bound=Queue)


class Listeners(Generic[Q]):
    """The queues of those who listen, one for each."""

    def __init__(self) -> None:
        self._queues: set[Q] = set()

    @contextmanager
    def listening(self, queue: Q) -> Iterator[None]:
        """Have a queue get every event for the length of the `with` block."""
        self._queues.add(queue)
        try:
            yield
        finally:
            self._queues.discard(queue)

    def publish(self, event: bytes) -> None:
        """Put an event into every queue."""
        for queue in list(self._queues):
            queue.put_nowait(event)
