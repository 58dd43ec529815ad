"""What stands for the language model: a real HTTP server that answers slowly, word by word.

It runs on a free port of the loopback, on an event loop of its own, so that the example needs no
network. It knows nothing of the application, and has forgotten everything when its answer ends.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

SENTENCES = (
    "I am no language model, only a small program that answers as slowly as one.",
    "Each of these words is an event of its own, sent when it is there, and never held back.",
    "Between two words nobody’s thread waits for me: the request that brought you here is parked.",
    "Four threads are enough for hundreds of us: a parked request is a few kilobytes of memory.",
    "Close the page, or press Stop, and I hear of it at once, and save my breath.",
    "Open this page in a second window and ask there as well: we do not get in each other’s way.",
    "Ask me something else, and I shall begin with another of the few sentences that I know.",
)
LENGTH = 4
"""Sentences of an answer."""


def words(prompt: str) -> Iterator[str]:
    """Return the answer to a prompt, in pieces as a model would; the same one every time."""
    said = prompt if len(prompt) <= 80 else f"{prompt[:79]}…"
    text = [f"You said “{said}”."]
    first = sum(map(ord, prompt)) % len(SENTENCES)
    text += [SENTENCES[(first + n) % len(SENTENCES)] for n in range(LENGTH)]
    for number, word in enumerate(" ".join(text).split(" ")):
        yield word if number == 0 else f" {word}"


class Upstream:
    """Answers ``POST /generate`` with ``{"prompt": …}`` by a stream of events, from start to stop.

    Attributes:
        pause: seconds between two words.
        url: where it listens, once started.
        streaming: answers that are on their way.
        finished: answers that were heard to the end.
        abandoned: answers whose client left before.
    """

    def __init__(self, pause: float = 0.08) -> None:
        self.pause = pause
        self.url = ""
        self.streaming = 0
        self.finished = 0
        self.abandoned = 0
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()  # a new one for each word that is hurried
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    def start(self) -> None:
        """Begin to answer; returns once it listens."""
        self._thread.start()
        self._started.wait()

    def hurry(self) -> None:
        """Say the next word of each answer now, whatever the pause."""
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._hurry.set()
        self._hurry = asyncio.Event()

    def stop(self) -> None:
        """Listen no more, and break off what is on its way."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stopping.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; a connection has only one."""
        leaving = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            prompt = await self._prompt(head, reader)
            if prompt is None:
                writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                return
            # The client sends nothing more: whatever can be read is its end.
            leaving = asyncio.ensure_future(reader.read(1))
            await self._speak(prompt, writer, leaving)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            if leaving is not None:
                leaving.cancel()
            writer.close()

    async def _prompt(self, head: str, reader: asyncio.StreamReader) -> str | None:
        """Read the prompt; None if the request is another one."""
        request, *fields = head.split("\r\n")
        lengths = [line[15:] for line in fields if line.lower().startswith("content-length:")]
        if not request.startswith("POST /generate ") or not lengths:
            return None
        try:
            return str(json.loads(await reader.readexactly(int(lengths[0])))["prompt"])
        except (ValueError, KeyError, TypeError):
            return None

    async def _speak(
        self, prompt: str, writer: asyncio.StreamWriter, leaving: "asyncio.Future[bytes]"
    ) -> None:
        self.streaming += 1
        try:
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            )
            for word in words(prompt):
                writer.write(f"data: {json.dumps({'token': word})}\n\n".encode())
                await writer.drain()
                await self._breathe(leaving)
                if leaving.done():
                    self.abandoned += 1
                    return
            writer.write(b"data: [DONE]\n\n")
            self.finished += 1
        finally:
            self.streaming -= 1

    async def _breathe(self, leaving: "asyncio.Future[bytes]") -> None:
        """Wait until it is time for the next word, or the client has left."""
        hurry = asyncio.ensure_future(self._hurry.wait())
        either: set[asyncio.Future[Any]] = {leaving, hurry}
        await asyncio.wait(either, timeout=self.pause, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
