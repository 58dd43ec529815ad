"""The instance, as the process of the status page asks it: once for all who look.

Nobody looks: nothing is asked. There is never more than one question on its way, however many look,
and however slowly the server answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any, Final

log = logging.getLogger("bide")

EVERY: Final = 1.0
PATIENCE: Final = 3.0  # a supervisor itself waits a second for its workers
FRESH: Final = 0.25
"""Seconds for which an answer is good enough for who asks once."""
_LONGEST: Final = 1 << 30
"""Bytes of an answer at most: a line for each of a million requests."""


class Silent(Exception):  # noqa: N818 - says what happened
    """The server has not answered in time."""


class Feed:
    """What the server does, again and again; on one event loop.

    Args:
        sock: leads to the server: a line with the word ``status`` is answered by a line of JSON.
        shown: makes of an instance what viewers are sent.
        ended: called when the server has closed the socket.
        every: seconds from one look at the server to the next, while there are viewers.
        patience: seconds after which a server that has not answered is called silent.

    Attributes:
        viewers: how many follow it.
        asked: how often the server was asked.
    """

    def __init__(
        self,
        sock: socket.socket,
        shown: Callable[[dict[str, Any]], dict[str, Any]],
        ended: Callable[[], object],
        every: float = EVERY,
        patience: float = PATIENCE,
    ) -> None:
        self._sock = sock
        self._shown = shown
        self._ended = ended
        self._every = every
        self._patience = patience
        self.viewers = 0
        self.asked = 0
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None]
        self._answer: asyncio.Future[dict[str, Any]] | None = None  # to the question on its way
        self._latest: dict[str, Any] = {}
        self._latest_at = -inf  # on the loop's clock
        self._watching: asyncio.Task[None] | None = None
        self._event = b""  # of the last look
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Begin; called once, on the loop."""
        reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=_LONGEST)
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                answer, self._answer = self._answer, None
                assert answer is not None, "nobody has asked"
                self._latest = json.loads(line)
                self._latest_at = asyncio.get_running_loop().time()
                answer.set_result(self._latest)
        except ConnectionError:
            pass
        except Exception:
            log.exception("the server's answer cannot be read")
        self._ended()

    async def now(self, fresh: float = FRESH) -> dict[str, Any]:
        """Return the instance, not older than some seconds.

        Raises:
            Silent: the server has not answered in time. It may still do so; until then, who asks
                waits for that answer, too.
        """
        loop = asyncio.get_running_loop()
        if loop.time() - self._latest_at <= fresh:
            return self._latest
        if self._answer is None:
            self._answer = loop.create_future()
            self.asked += 1
            self._writer.write(b"status\n")
        answer = self._answer
        await asyncio.wait([answer], timeout=self._patience)
        if not answer.done():
            raise Silent
        return answer.result()

    async def follow(self) -> AsyncIterator[bytes]:
        """Yield a server-sent event for each look at the server.

        Who is slow misses some, and is sent the last one. It must be closed.
        """
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        watching = self._watching
        self.viewers += 1
        try:
            event = self._event
            while True:
                if event:
                    yield event
                while event is self._event:
                    if watching.done():
                        watching.result()  # it has failed, and so does this
                    await self._news.wait()
                event = self._event
        finally:
            self.viewers -= 1
            if not self.viewers:
                watching.cancel()
                self._watching = None
                self._event = b""  # it is old when the next viewer comes

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        answered = loop.time()
        try:
            while True:
                due = loop.time() + self._every
                try:
                    data = self._shown(await self.now(0.0))
                    answered = loop.time()
                except Silent:
                    data = {"silent": round(loop.time() - answered, 1)}
                text = json.dumps(data, separators=(",", ":"))
                self._event = f"data: {text}\n\n".encode()
                self._tell()
                await asyncio.sleep(due - loop.time())
        finally:
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
