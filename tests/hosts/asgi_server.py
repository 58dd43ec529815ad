"""An ASGI server of which the test takes every step: what is received, and what is taken when.

No sockets: an order of events that a real server has once in a million is forced here.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bide.hosts.asgi import ASGI, Message, Scope
from tests.served import DEADLINE

DISCONNECT: Message = {"type": "http.disconnect"}
EMPTY: Message = {"type": "http.request"}


def run(steps: Coroutine[Any, Any, None]) -> None:
    """Run a test's steps on a loop of their own; fail at the deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE):
            await steps

    asyncio.run(bounded())


async def until(condition: Callable[[], object], what: str = "this never became true") -> None:
    """Return once ``condition()`` is true; fail the test at the deadline."""
    end = asyncio.get_running_loop().time() + DEADLINE
    while not condition():
        assert asyncio.get_running_loop().time() < end, what
        await asyncio.sleep(0.002)


def scope(path: str = "/", **more: Any) -> Scope:
    """Make an HTTP scope, as ASGI 3 has it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"test")],
        "client": ("10.0.0.1", 5000),
        "server": ("10.0.0.2", 8000),
        **more,
    }


def chunk(block: bytes, more: bool = True) -> Message:
    """Make a message with some of a request's body."""
    return {"type": "http.request", "body": block, "more_body": more}


class Exchange:
    """One request, from the server's side; made and used on the loop.

    Attributes:
        sent: what the application has sent.
        asked: how often it has asked for a message.
        taking: cleared by the test to have ``send`` wait, as for a client that is behind.
        task: the server's task for the request.
    """

    def __init__(self, application: ASGI, *messages: Message, **more: Any) -> None:
        self._messages: asyncio.Queue[Message | Exception] = asyncio.Queue()
        for message in messages or (EMPTY,):
            self._messages.put_nowait(message)
        self.sent: list[Message] = []
        self.asked = 0
        self.taking = asyncio.Event()
        self.taking.set()
        self.failure: Exception | None = None
        whole = scope(**more)
        self.task = asyncio.ensure_future(application(whole, self._receive, self._send))

    async def _receive(self) -> Message:
        self.asked += 1
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def _send(self, message: Message) -> None:
        await self.taking.wait()
        if self.failure is not None:
            raise self.failure
        self.sent.append(message)

    def give(self, message: Message | Exception) -> None:
        """Queue the next message for ``receive``, or an error."""
        self._messages.put_nowait(message)

    def fail(self, error: Exception) -> None:
        """Make ``send`` fail from now on, also one that waits."""
        self.failure = error
        self.taking.set()

    @property
    def status(self) -> int | None:
        """The response's status, once there is one."""
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The response's headers."""
        return dict(self.sent[0]["headers"])

    @property
    def blocks(self) -> list[bytes]:
        """The blocks of the body that have come."""
        return [each["body"] for each in self.sent[1:]]

    @property
    def body(self) -> bytes:
        """The body, as far as it has come."""
        return b"".join(self.blocks)

    @property
    def complete(self) -> bool:
        """Whether the last of it was said to be the last."""
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)
