"""Clients of the package websockets, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.served import DEADLINE, Served


@contextmanager
def client_of(served: Served, path: str = "/", **options: Any) -> Iterator[ClientConnection]:
    """Connect a client; not over TLS.

    It reads on one thread and writes on another. A TLS socket of Python may not be used so: OpenSSL
    may crash.
    """
    if served.context is not None:
        pytest.skip("the client uses one TLS socket on two threads")
    url = f"{served.url.replace('http', 'ws', 1)}{path}"
    with connect(url, **options) as client:
        yield client


def come_back(client: ClientConnection) -> None:
    """Check that messages of every kind and size come back."""
    for message in ("", "hi", b"bytes", "é€" * 5, "x" * 70_000, bytes(300_000)):
        client.send(message)
        assert client.recv(timeout=DEADLINE) == message


def end_of(client: ClientConnection) -> tuple[int, str]:
    """Receive the server's end, which is what comes next: its code and its reason."""
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=DEADLINE)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason
