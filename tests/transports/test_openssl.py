"""What OpenSSL says of a connection, where the thread has an error of something else."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable

import pytest

from bide.transports.openssl import forget, read
from tests.failures import Failures, same
from tests.tls import Ends, leave_an_error


def nothing(ends: Ends) -> None:
    """Send nothing."""


def a_part(ends: Ends) -> None:
    """Send half a record."""
    ends.client.write(b"data")
    ends.up.write(ends.up.read()[:10])


def the_end(ends: Ends) -> None:
    """Send the ``close_notify``."""
    with contextlib.suppress(ssl.SSLWantReadError):
        ends.client.unwrap()


def a_bare_end(ends: Ends) -> None:
    """End without it."""
    ends.up.write_eof()


def damage(ends: Ends) -> None:
    """Send what nobody has encrypted."""
    ends.up.write(b"\x17\x03\x03\x00\x20" + bytes(32))


def an_alert(ends: Ends) -> None:
    """Send that what came is damaged."""
    ends.down.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        ends.client.read(1)


LOST = ssl.SSLError
Sent = Callable[[Ends], None]
READ: dict[Sent, object] = {
    nothing: ssl.SSLWantReadError,
    a_part: ssl.SSLWantReadError,
    the_end: b"",
    a_bare_end: b"",
    damage: LOST,
    an_alert: LOST,
}
"""What a read says, by what the client has sent: a value, or the type of an error."""


def said_by(call: Callable[[], bytes]) -> object:
    """Return what a read says, as above."""
    try:
        return call()
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
        return type(error)
    except ssl.SSLError:
        return LOST


def test_an_error_of_something_else_is_not_taken_for_the_connection_s() -> None:
    """And the connection's own is told as ever."""
    with Failures() as failures:
        for sent, said in READ.items():
            with failures.of(sent.__name__):
                ends = Ends()
                sent(ends)
                same(said_by(lambda: ends.server.read(1)), said, "an empty queue")  # noqa: B023
                ends = Ends()
                sent(ends)
                leave_an_error()
                same(said_by(lambda: ends.server.read(1)), LOST, "what Python says")  # noqa: B023
                ends = Ends()
                sent(ends)
                leave_an_error()
                same(said_by(lambda: read(ends.server, 1)), said)  # noqa: B023


def test_an_error_is_forgotten_on_its_thread() -> None:
    """So that whoever calls OpenSSL next finds none."""
    ends = Ends()
    leave_an_error()
    forget()
    with pytest.raises(ssl.SSLWantReadError):
        ends.server.read(1)
