"""What the server answers in an application's place, for calls of every interface."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from bide.errors import (
    Cancelled,
    ClientDisconnected,
    Overloaded,
    RemoteProtocolError,
    RequestTimeout,
    ServerStopping,
)
from bide.exchange.stream import SWITCHED, Stream

_REJECTIONS: Final = {
    429: "Too many requests of yours are in progress.\n",
    503: "All threads are busy.\n",
}
_STOPS: Final = "The server stops.\n"
_PLAIN: Final = ("Content-Type", "text/plain; charset=utf-8")


def answer(stream: Stream, status: str, text: str, *more: tuple[str, str]) -> None:
    """Send a whole response; or cut the one that has begun, which nothing else may follow."""
    try:
        if stream.head_sent:
            stream.cut()
        else:
            stream.start(status, [_PLAIN, *more])
            stream.end(text.encode())
    except Cancelled:
        stream.cut()


def answer_failure(stream: Stream) -> None:
    """Answer that the application has failed."""
    answer(stream, "500 Internal Server Error", "Internal Server Error\n")


def answer_rejected(stream: Stream, retry_after: int, code: int, stops: bool) -> None:
    """Answer 503 or 429: it was not begun; as :meth:`Call.reject`."""
    status = f"{code} {HTTPStatus(code).phrase}"
    text = _STOPS if stops else _REJECTIONS[code]
    answer(stream, status, text, ("Retry-After", str(retry_after)))


def answer_malformed(stream: Stream, error: RemoteProtocolError) -> None:
    """Answer that the body is not what HTTP allows."""
    status = HTTPStatus(error.status)
    answer(stream, f"{status} {status.phrase}", f"{error}\n", *error.headers)


def refusal_in(error: BaseException) -> Overloaded | None:
    """Return what an application has raised because too many wait, also as a group; else None."""
    if isinstance(error, Overloaded):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [refusal_in(each) for each in error.exceptions]
    return found[0] if all(found) else None


def answer_cancelled(stream: Stream, cancelled: Cancelled) -> None:
    """Answer why a request goes on no further; cut its response where nobody is to be told."""
    if stream.state == SWITCHED:
        stream.break_off(cancelled)
    elif isinstance(cancelled, RequestTimeout):
        answer(stream, "504 Gateway Timeout", "The request took too long.\n")
    elif isinstance(cancelled, ServerStopping):
        answer(stream, "503 Service Unavailable", _STOPS)
    elif isinstance(cancelled, Overloaded):
        text = "Too many requests wait for the same.\n"
        answer(stream, "503 Service Unavailable", text, ("Retry-After", "1"))
    else:
        # A client that only closed its sending side is gone now, too: a push to it raises.
        stream.gone = stream.gone or isinstance(cancelled, ClientDisconnected)
        stream.cut()
