"""Every exception that Bide raises, in one tree.

::

    Exception
     └── BideError
          ├── StartError            the server cannot start: the message says what to change
          │    ├── LoadError        the application cannot be imported, or is not an application
          │    ├── SettingError     a setting has a value that is not allowed
          │    │    └── UsageError  a setting cannot be read, or there is no such setting
          │    ├── BindError        the server cannot listen on an address
          │    └── ControlError     no server answers on a control socket, or it refuses
          ├── ProtocolError
          │    ├── RemoteProtocolError   the client broke HTTP: has the status to answer with
          │    └── LocalProtocolError    the application broke PEP 3333, ASGI or HTTP
          │         └── FinishLost       nobody can call ``finish`` any more
          ├── ClientGone            ``send`` of an ASGI application, when the client has left
          ├── WaitError             waiting is not possible here
          ├── WriteWouldBlock       ``write`` on an event loop, when the client is too slow
          ├── ProcessDied           the process that made a call has ended: see ``in_process``
          ├── ProcessesBusy         all processes are busy, and too many calls wait
          ├── ResidentFailed        the factory of a ``resident`` has failed
          └── WebSocketClosed       the WebSocket has ended: has the close code
    BaseException
     └── Cancelled                  this request ends early
          ├── ClientDisconnected    its client has left
          ├── Overloaded            too many requests wait for the same: see ``bide.limit``
          ├── RequestTimeout        it has taken longer than ``--request-timeout``
          ├── ServerStopping        its server stops, and the time to finish is over
          └── ThreadEnded           an asynchronous exception has ended its thread

A wait that takes longer than its ``timeout`` raises the built-in :exc:`TimeoutError`.

``Cancelled`` derives from ``BaseException`` as :exc:`asyncio.CancelledError` does, and for the
same reason: ``except Exception`` in an application must not swallow it.

This module imports nothing of Bide.
"""

from __future__ import annotations


class BideError(Exception):
    """The root of Bide's ordinary exceptions."""


class StartError(BideError):
    """The server cannot start. The message tells the deployer in one line what to change."""


class LoadError(StartError):
    """The application cannot be imported, or what was imported is not an application."""


class SettingError(StartError):
    """A setting has a value that is not allowed. The message says what is allowed."""


class UsageError(SettingError):
    """An option, a variable or a key of the settings file cannot be read, or is unknown."""


class BindError(StartError):
    """The server cannot listen on an address. The message says why, and what to do."""


class ControlError(StartError):
    """There is no server at a control socket, or more than one; or it refuses a command."""


class ProtocolError(BideError):
    """The client or the application broke a protocol."""


class RemoteProtocolError(ProtocolError):
    """The client broke the protocol. Nothing more of its connection may be parsed.

    Attributes:
        status: the HTTP status to answer with, 4xx or 5xx, if an answer is still possible.
        headers: more headers of that answer.
        head: the first bytes of the malformed request, for the log; at most 256.
        ends: why the connection is closed, in one word; empty if it stays open.
        again: with HTTP/2, if only the stream is refused, and the client may send the request
            again: the reason, in one word. Else empty.
    """

    def __init__(
        self, message: str, status: int = 400, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.head = b""
        self.ends = ""
        self.again = ""

    def show(self, head: bytes | bytearray) -> None:
        """Keep the first bytes of ``head`` for the log."""
        self.head = bytes(head[:256])


class LocalProtocolError(ProtocolError):
    """The application did something that PEP 3333, ASGI or HTTP does not allow."""


class FinishLost(LocalProtocolError):  # noqa: N818 - says what happened
    """The application took ``finish``, and lost every reference to it without calling it."""


class ClientGone(BideError, ConnectionError):  # noqa: N818 - says what happened
    """An ASGI application has called ``send`` after its client has left."""


class WaitError(BideError, RuntimeError):
    """``wait`` was called where waiting is not possible. The message says why, and what to do.

    Examples: on a thread that runs an event loop; while a lock of the server is held.
    """


class WriteWouldBlock(BideError, BlockingIOError):  # noqa: N818 - says what happened
    """``write`` was called on an event loop's thread, and the client reads too slowly.

    The block was not sent. Call ``write`` where it can wait: in the request itself, or in a thread.
    """


class ProcessDied(BideError):  # noqa: N818 - says what happened
    """The process that made a call has ended before the call did.

    This is for ``in_process`` and residents. The process has crashed, or was killed, for example
    because the system had no memory left.
    """


class ProcessesBusy(BideError):  # noqa: N818 - says what happened
    """All processes of ``in_process`` or of a resident are busy, and too many calls wait for them.

    In a request that Bide serves, :class:`Overloaded` is raised instead.
    """


class ResidentFailed(BideError):  # noqa: N818 - says what happened
    """The factory of a :func:`bide.resident` has failed. Its error is the ``__cause__``.

    It is called again later. The message says when.
    """


class WebSocketClosed(BideError):  # noqa: N818 - says what happened
    """The WebSocket has ended: nothing more can be received or sent.

    Attributes:
        code: the close code (RFC 6455 section 7.4) of the side that closed it. 1005: the client
            has sent no code. 1006: the connection has ended without a close.
        reason: the text that was sent with the code; may be empty.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        """Return the code, and the reason if there is one."""
        return f"{self.code} {self.reason}".rstrip()


class Cancelled(BaseException):
    """This request ends early. Raised at the line that waits, reads or writes.

    Clean up in ``finally``, and let it pass. There the request may still wait, for a limited time.
    """


class ClientDisconnected(Cancelled):
    """The client of this request has left."""


class RequestTimeout(Cancelled):
    """This request has taken longer than the setting ``request_timeout``."""


class ServerStopping(Cancelled):
    """The server stops, and the time that requests had to finish is over."""


class Overloaded(Cancelled):
    """Too many requests wait for the same thing as this one. It is answered 503.

    They wait for a :func:`bide.limit`, or for a process of :func:`bide.in_process` or of a
    :func:`bide.resident`.
    """


class ThreadEnded(Cancelled):
    """An asynchronous exception has ended the thread that the request ran on, while it waited."""
