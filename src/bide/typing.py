"""Types for annotations: of WSGI applications as Bide calls them, and of promises.

They go beyond those of ``wsgiref.types`` in what PEP 3333 does not have: ``start_response`` also
gives ``finish``, the iterable may yield promises, and the call may return ``None`` or an async
iterable. What is annotated with ``wsgiref.types`` fits as well. Nothing here runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, TypeVar
from wsgiref import types as standard

__all__ = [
    "AddsCallbacks",
    "FutureLike",
    "Promise",
    "StartResponse",
    "WSGIApplication",
    "WSGIEnvironment",
    "Write",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

WSGIEnvironment = dict[str, Any]
"""A request's environ; the type of this name in ``wsgiref.types``."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class FutureLike(Protocol[T_co]):
    """A promise with ``add_done_callback`` and ``result``: ``concurrent.futures.Future``."""

    def add_done_callback(self, callback: Callable[[Any], Any], /) -> Any:
        """Have the callback called with the promise once that has fired."""

    def result(self) -> T_co:
        """Return the result of a promise that has fired, or raise its error."""


class AddsCallbacks(Protocol[T_co]):
    """A promise with ``addCallback``, as the proposal of 2004 has it."""

    def addCallback(self, callback: Callable[[T_co], Any], /) -> Any:  # noqa: N802 - its name
        """Have the callback called with the value."""


Promise = Awaitable[T] | FutureLike[T] | AddsCallbacks[T]
"""What ``bide.wait`` takes, and a WSGI application's iterable may yield: ``Promise[bytes]``."""


# A tuple, since for a tuple alone type checkers give each name of `write, finish = ...` its own
# type. What `start_response` really returns has no length and no index.
class Write(tuple[Callable[[bytes], None], Callable[[], None]]):
    """What ``start_response`` returns: ``write``, which unpacks into ``write, finish``.

    It stands for that in annotations; there are no instances of it.
    """

    __slots__ = ()

    def __call__(self, data: bytes, /) -> None:
        """Send a block now; from any thread."""
        raise NotImplementedError

    @property
    def finish(self) -> Callable[[], None]:
        """The function that ends the response; from any thread."""
        raise NotImplementedError


class StartResponse(standard.StartResponse, Protocol):
    """The second argument of a WSGI application.

    ``write, finish = start_response(...)`` gives both functions their types. So does
    ``start_response(...).finish``.
    """

    # It returns a callable of bytes, as the standard library's. mypy sees that of no tuple.
    def __call__(  # type: ignore[override]
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | None = None,
        /,
    ) -> Write:
        """Begin the response (PEP 3333, "The start_response() Callable")."""
        raise NotImplementedError


class WSGIApplication(Protocol):
    """A WSGI application as Bide calls it: a function, or an object that can be called.

    It returns an iterable, which may yield promises of bytes; an async iterable of bytes; a
    coroutine that returns either; or ``None``, when it has taken ``finish``.
    """

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse, /
    ) -> _Returned | Awaitable[_Returned]:
        """Answer one request."""
        raise NotImplementedError


_Returned = Iterable[bytes | Promise[bytes | None]] | AsyncIterable[bytes] | None
