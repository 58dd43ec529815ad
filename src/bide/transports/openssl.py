"""Calls of OpenSSL that say how things are with the connection that is asked, and no other.

OpenSSL keeps errors in a queue, which is the thread's. A call that cannot go on for now, or finds
the end, looks into it to say why (SSL_get_error(3): it must be empty before). Python does not empty
it before a call. So an error that another connection has left on the thread, or a library of the
application that uses OpenSSL, makes "nothing has come" look like a failure, and a connection that
is well would be cut.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def sure(call: Callable[..., T], *args: Any) -> T:
    """Call OpenSSL; return what it returns, or raise what it raises of this very connection.

    Python empties the queue as it raises. So what has failed is called again: it fails again, if
    the failure is its own. The arguments must be those of before (SSL_write(3)).
    """
    try:
        return call(*args)
    except ssl.SSLError as error:
        if type(error) is not ssl.SSLError:  # the others name a state of the connection
            raise
    return call(*args)


def read(tls: ssl.SSLSocket | ssl.SSLObject, size: int) -> bytes:
    """Return what has come on a connection, up to ``size`` bytes; none at its end.

    Raises what is raised of this very connection, as :func:`sure`.
    """
    try:
        return tls.read(size)
    except ssl.SSLError as error:
        if type(error) is not ssl.SSLError:
            raise
        failure = error
    data = tls.read(size)
    if not data and tls.version() is None:
        raise failure  # an alert has broken it, and OpenSSL calls that an end when asked again
    return data


def forget() -> None:
    """Empty the queue of this thread: what the application asks of OpenSSL here is its own affair.

    Called after a call that may have left an error there, and has not raised.
    """
    # Python empties it before it makes a connection; there is no other call that does and no more.
    _blank().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)


@functools.cache
def _blank() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
