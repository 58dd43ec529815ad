"""A WSGI server of the test's own: it keeps what it is given, and asks when the test says so."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from bide.applications.mounts import Mounts
from bide.hosts.wsgi import blocking
from tests.served import Application, Environ


class FakeHost:
    """One request to an application, on the test's thread, with the standard library's validator.

    Attributes:
        events: what the host was given, in order: a head, then blocks.
        site: the application as the host has it.
    """

    def __init__(
        self, application: Application | Mounts, method: str = "GET", **environ: Any
    ) -> None:
        self.site: Any = blocking(application)
        self.events: list[Any] = []
        self.environ: Environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.input": io.BytesIO(),
        }
        setup_testing_defaults(self.environ)
        self.environ |= environ
        self.iterable: Any = None
        self._iterator: Iterator[bytes] = iter(())

    def call(self) -> FakeHost:
        """Call the application."""
        self.iterable = validator(self.site)(self.environ, self._start_response)
        self._iterator = iter(self.iterable)
        return self

    def _start_response(self, status: str, headers: list[Any], exc_info: Any = None) -> Any:
        assert not self.events, "the host got a second head"
        assert exc_info is None
        self.events.append((status, headers))

        def write(data: bytes) -> None:
            raise AssertionError("write() is not needed")

        return write

    @property
    def status(self) -> str:
        """The head's status."""
        status: str = self.events[0][0]
        return status

    def header(self, name: str) -> str | None:
        """Return a header of the head."""
        headers: dict[str, str] = dict(self.events[0][1])
        return headers.get(name)

    @property
    def blocks(self) -> list[bytes]:
        """The blocks so far."""
        return self.events[1:]

    def next(self) -> bytes:
        """Ask for one block; raises StopIteration at the end."""
        block = next(self._iterator)
        assert self.events, "a block came before the head"
        assert block, "an empty block"
        self.events.append(block)
        return block

    def rest(self) -> bytes:
        """Ask for the rest, and close, as a host does in any case."""
        try:
            while True:
                self.next()
        except StopIteration:
            return b"".join(self.blocks)
        finally:
            self.close()

    def close(self) -> None:
        """Close the iterable."""
        self.iterable.close()

    def run(self) -> bytes:
        """Make the whole request; give its body."""
        return self.call().rest()
