"""Every exception that Bide raises, in one tree.

::

    Exception
     └── BideError
          ├── StartError            the deployer's mistake: one line, and the program ends
          │    ├── LoadError        the application cannot be imported, or is none
          │    ├── SettingError     a setting with a value it cannot have
          │    └── BindError        an address that cannot be listened on
          ├── ProtocolError
          │    ├── RemoteProtocolError   the client broke HTTP: has the status to answer with
          │    └── LocalProtocolError    the application broke PEP 3333 or HTTP
          │         └── FinishLost       nobody can call ``finish`` any more
          ├── WaitError             a wait where none is possible
          └── WriteWouldBlock       ``write`` on an event loop, to a client that is slower
    BaseException
     └── Cancelled                  this request goes on no further
          ├── ClientDisconnected    its client has left
          ├── RequestTimeout        it has taken longer than ``--request-timeout``
          ├── ServerStopping        its server stops, and the time to finish is over
          └── ThreadEnded           its thread was ended by an asynchronous exception

A wait that takes longer than its ``timeout`` raises the built-in :exc:`TimeoutError`.

``Cancelled`` derives from ``BaseException`` as :exc:`asyncio.CancelledError` does, and for the
same reason: ``except Exception`` in an application must not swallow it.

This module imports nothing of Bide.
"""

from __future__ import annotations


class BideError(Exception):
    """The root of Bide's ordinary exceptions."""


class StartError(BideError):
    """The server cannot start, by a mistake that one line can explain to the deployer."""


class LoadError(StartError):
    """The application cannot be imported, or what was imported is no WSGI application."""


class SettingError(StartError):
    """A setting was given a value that it cannot have."""


class BindError(StartError):
    """An address cannot be listened on."""


class ProtocolError(BideError):
    """One side of an exchange did what the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The client broke the protocol; nothing more of its connection may be parsed.

    Attributes:
        status: the HTTP status to answer with, 4xx or 5xx, where an answer is still possible.
        head: the beginning of what came in the place of a request, for the log; any bytes.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.head = b""

    def show(self, head: bytes | bytearray) -> None:
        """Keep the beginning of what came."""
        self.head = bytes(head[:256])


class LocalProtocolError(ProtocolError):
    """The application asked for something that PEP 3333 or HTTP does not allow."""


class FinishLost(LocalProtocolError):  # noqa: N818 - says what happened
    """An application took ``finish``, and every reference to it is gone uncalled."""


class WaitError(BideError, RuntimeError):
    """``wait`` was called where waiting is impossible: on a thread that runs an event loop."""


class WriteWouldBlock(BideError, BlockingIOError):  # noqa: N818 - says what happened
    """``write`` was called on an event loop's thread while the client is behind.

    The block was not taken. Wait for the client elsewhere: in the request itself, or in a thread.
    """


class Cancelled(BaseException):
    """This request goes on no further; raised at the line that waits, reads or writes."""


class ClientDisconnected(Cancelled):
    """The client of this request has left."""


class RequestTimeout(Cancelled):
    """This request has taken longer than the deployer's ``request_timeout``."""


class ServerStopping(Cancelled):
    """The server stops, and the time that requests had to finish is over."""


class ThreadEnded(Cancelled):
    """An asynchronous exception has ended the thread that the request ran on, while it waited."""
