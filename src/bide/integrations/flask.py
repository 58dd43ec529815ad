"""Flask: ``async def`` functions run on the server's loop, and async generators stream.

Flask calls ``app.ensure_sync`` before it calls what may be a coroutine function: views, error
handlers, functions before, after and at the end of a request, context processors, signals. That
calls ``app.async_to_sync``, which Flask offers for replacing. :class:`Bide` replaces it, on one
application, and nothing else of Flask.

Under another server than Bide, and in Flask's test client, waiting blocks the thread, and ``async
def`` functions run on one background loop of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib.metadata
import inspect
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar, overload

from flask import Flask, has_request_context
from flask.globals import app_ctx, request_ctx

from bide.errors import Cancelled, WaitError
from bide.waiting.api import iterate, wait
from bide.waiting.current import look

P = ParamSpec("P")
T = TypeVar("T")
Block = TypeVar("Block", str, bytes)


def _check_version() -> None:
    version = importlib.metadata.version("flask")
    major = version.partition(".")[0]
    if (major.isdecimal() and int(major) < 3) or not hasattr(Flask, "async_to_sync"):
        raise ImportError(
            "bide.integrations.flask needs Flask 3.0 or later, with its app.async_to_sync, and "
            f"this is Flask {version}: install one that has it (pip install 'flask>=3.0')"
        )


_check_version()


class Bide:
    """Runs an application's coroutine functions on the server's loop, while their requests wait.

    Write ``Bide(app)``, or ``Bide().init_app(app)`` in a factory; before or after the views are
    defined. Flask's contexts are visible in a coroutine. What the coroutine changes in ``g``, in
    the session and in context variables is visible after it. An application class that overrides
    ``ensure_sync`` is not affected.

    Raises:
        TypeError: ``app`` is not a Flask application.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Install this on an application; repeated calls do no harm.

        Raises:
            TypeError: ``app`` is not a Flask application.
        """
        if not isinstance(app, Flask):
            raise TypeError(
                f"Bide() takes a Flask application, not {_named(app)}: give it the object "
                "that Flask(__name__) made"
            )
        app.extensions["bide"] = self
        # Flask offers this method for replacing, and reads it from the application.
        app.async_to_sync = run_on_loop  # type: ignore[assignment, method-assign]


def _named(thing: object) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__name__}"
    kind = type(thing)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def run_on_loop(function: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Return an ordinary function that runs a coroutine function, waiting as :func:`bide.wait`.

    Each call runs as one task on the server's loop, in a copy of the caller's context. The caller's
    context gets the copy's changes. Within an ``except`` block the coroutine sees the error that is
    being handled. When the request is cancelled, the coroutine is cancelled, too. The function
    raises when the coroutine has ended, or when the time to clean up is over.

    The function raises what the coroutine raises, and what :func:`bide.wait` raises.
    """

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        running = _Call(functools.partial(function, *args, **kwargs))
        try:
            result: T = wait(running.run())
            look()  # a cancelled request does not use a result that the coroutine has all the same
            return result
        except Cancelled:
            wait(running.ended())
            raise
        finally:
            running.bring_back()

    return call


class _Call:
    """One call of a coroutine function; on the loop, except for ``bring_back``."""

    def __init__(self, function: Callable[[], Awaitable[Any]]) -> None:
        self._function = function
        self._handled = sys.exception()
        self._task: asyncio.Task[Any] | None = None
        self._context: contextvars.Context | None = None

    async def run(self) -> Any:
        """Make the call."""
        self._task = asyncio.current_task()
        handled, self._handled = self._handled, None
        traceback = None if handled is None else handled.__traceback__
        try:
            if handled is None:
                return await self._function()
            try:
                raise handled
            except BaseException:  # noqa: BLE001 - the caller handles it
                handled.__traceback__ = traceback  # without this frame: it is as it was
                return await self._function()
        finally:
            self._context = contextvars.copy_context()
            self._task = None  # it holds an error, whose traceback holds this: no cycle

    async def ended(self) -> None:
        """Return once the call, which has been cancelled, has ended.

        ``run`` and its cancellation came to the loop before this. So it has begun by now, or never
        will.
        """
        if self._task is not None:
            await asyncio.wait([self._task])

    def bring_back(self) -> None:
        """Set the context variables as the coroutine has left them; on the caller's thread."""
        if self._context is None:
            return
        for variable, value in self._context.items():
            # Only what has changed: to set Flask's own variables again would cost time.
            if variable.get(_NOTHING) is not value:
                variable.set(value)


_NOTHING: Any = object()


# Streaming ----------------------------------------------------------------------------------------


@overload
def stream(source: AsyncIterable[Block]) -> Iterator[Block]: ...
@overload
def stream(source: Callable[P, AsyncIterator[Block]]) -> Callable[P, Iterator[Block]]: ...


def stream(source: Any) -> Any:
    """Return an iterator over an async iterable of str or bytes, for a view to return.

    ``return stream(generate())``, or ``return Response(stream(generate()))``. Each block is sent as
    it comes. The iterable runs in one task on the server's loop, and the request waits without a
    thread. Flask's contexts are kept as :func:`flask.stream_with_context` keeps them. When the
    client leaves, or the response is closed early, the iterable is cancelled or closed (``aclose``)
    on the loop, in its own context, before Flask's contexts end. An error in it is raised to the
    server.

    As a decorator of an async generator function, it returns a function whose result a view can
    return.

    :class:`Bide` is not needed for this.

    Raises:
        TypeError: ``source`` is not an async iterable.
        RuntimeError: called outside a request.
    """
    if inspect.isasyncgenfunction(source):

        @functools.wraps(source)
        def streaming(*args: Any, **kwargs: Any) -> Any:
            return stream(source(*args, **kwargs))

        return streaming
    if not hasattr(type(source), "__aiter__"):
        name = _named(source)
        if inspect.iscoroutine(source):
            source.close()  # else Python warns of it, too
        raise TypeError(
            f"stream() takes an async iterable, such as an async generator, not {name}: "
            "write `async def` with `yield`, and call it"
        )
    if not has_request_context():
        raise RuntimeError(
            "stream() was called outside a request: call it in a view, and return its result"
        )
    return _blocks(_Source(source), _current(app_ctx), _current(request_ctx))


def _current(proxy: Any) -> AbstractContextManager[Any]:
    context: AbstractContextManager[Any] = proxy._get_current_object()
    return context


def _blocks(source: _Source, *contexts: AbstractContextManager[Any]) -> Iterator[Any]:
    # stream_with_context pushes the contexts where it is called, before Flask 3.1.2: a coroutine's
    # context is a copy, from which the request cannot pop them.
    with contextlib.ExitStack() as kept:
        for context in contexts:
            kept.enter_context(context)
        try:
            yield from iterate(source)
        except (Cancelled, GeneratorExit):
            # A generator that is collected may be closed on a loop's thread, where waiting is
            # impossible.
            with contextlib.suppress(WaitError):
                wait(source.ended())
            raise


class _Source:
    """Wraps an async iterable, and tells when it has been closed; on the loop."""

    def __init__(self, iterable: AsyncIterable[Any]) -> None:
        self._iterable = iterable
        self._iterator: AsyncIterator[Any] | None = None
        self._closed = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._iterator is None:
            self._iterator = aiter(self._iterable)
        return await anext(self._iterator)

    async def aclose(self) -> None:
        """Close the iterable if it has an ``aclose``."""
        try:
            close = getattr(self._iterator or self._iterable, "aclose", None)
            if close is not None:
                await close()
        finally:
            self._closed.set()

    async def ended(self) -> None:
        """Return once the iterable is closed, or at once if it has not begun.

        The call of ``aclose`` came to the loop before this. So it has begun by now, or never will.
        """
        if self._iterator is not None:
            await self._closed.wait()
