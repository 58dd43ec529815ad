"""The ids of requests: taken from a trusted proxy, or made here; and those of their traces."""

from __future__ import annotations

import itertools
import os
import re
from typing import Final

from bide.errors import LocalProtocolError, SettingError
from bide.exchange.identity import Identity, trace_of
from bide.exchange.messages import Head, Request

_SAFE: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class RequestIds:
    """Gives each request of a server its identity; called on the loop.

    Args:
        header: the header that brings an id, and takes it back: the setting ``request_id``.

    Raises:
        SettingError: a response cannot have such a header, or has it already.
    """

    def __init__(self, header: str) -> None:
        try:
            head = Head("200 OK", [(header, "1")])
        except LocalProtocolError as error:
            raise SettingError(f"request_id is {header!r}: {error}") from None
        if head.dated or head.served or head.length is not None:
            raise SettingError(f"request_id is {header!r}: that header is used for something else")
        self.header = header
        self._name = header.lower().encode("ascii")
        # Unique, not secret: 48 random bits for each server, and a count.
        self._start = os.urandom(6).hex()
        self._count = itertools.count(1)

    def identify(self, request: Request, trusted: bool) -> Identity:
        """Return a new request's identity.

        Args:
            request: its head.
            trusted: whether who sent it may say what its id is.
        """
        return Identity(
            self.header, (trusted and self._sent(request)) or self._made(), trace_of(request)
        )

    def _sent(self, request: Request) -> str:
        found = [value for name, value in request.headers if name.lower() == self._name]
        if len(found) != 1 or not _SAFE.fullmatch(found[0]):
            return ""
        return found[0].decode("ascii")

    def _made(self) -> str:
        return f"{self._start}{next(self._count):08x}"


class Traces:
    """Sets the ids of traces on requests of a server that have no ids of their own."""

    def identify(self, request: Request, trusted: bool) -> Identity | None:  # noqa: ARG002
        """Return a new request's identity; None if it belongs to no trace. Anyone may say so."""
        trace = trace_of(request)
        return Identity("", "", trace) if trace else None
