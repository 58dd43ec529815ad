"""A real server on a free port of the loopback, as the tests of the examples see it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx

import bide
from tests.served import DEADLINE, until

__all__ = ["DEADLINE", "Example", "LoopThread", "Serve", "Served", "Watched", "until"]


class LoopThread:
    """An event loop that runs in a thread of its own, as in somebody's asyncio program."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="the loop's thread")
        self.thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run ``coroutine`` on the loop and return its result, from any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE)

    def close(self) -> None:
        """Stop the loop and join the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE)
        self.loop.close()


@bide.capable("async", "threads", "processes")
class Watched:
    """Middleware that keeps the server's numbers for the test; as able as what it wraps."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.status: Callable[[], Any] | None = None

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Run the application."""
        self.status = environ["bide.status"]
        return self.application(environ, start_response)


class Served:
    """A running server.

    Attributes:
        url: where it listens, ``http://127.0.0.1:PORT``.
        host, port: the same, for a plain socket.
    """

    def __init__(self, address: str, watched: Watched) -> None:
        self.url = f"http://{address}"
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self._watched = watched

    def get(self, path: str = "/") -> httpx.Response:
        """Make one whole request."""
        return httpx.get(f"{self.url}{path}", timeout=DEADLINE, trust_env=False)

    @contextlib.contextmanager
    def stream(self, path: str = "/") -> Iterator[Iterator[str]]:
        """Return the lines of a response as they come; leaving closes the connection."""
        with (
            httpx.Client(timeout=DEADLINE, trust_env=False) as client,
            client.stream("GET", f"{self.url}{path}") as response,
        ):
            assert response.status_code == 200
            yield response.iter_lines()

    def until_waiting(self, number: int) -> None:
        """Return once exactly ``number`` requests are parked."""
        until(lambda: self.status is not None and self.status().waiting == number)

    @property
    def status(self) -> Callable[[], Any] | None:
        """The server's numbers; None before the first request."""
        return self._watched.status


Serve = Callable[..., contextlib.AbstractContextManager[Served]]
Example = Callable[[str], Any]
