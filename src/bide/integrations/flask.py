"""Flask: what is ``async def`` runs on the server's loop, and async generators stream.

Flask asks ``app.ensure_sync`` before it calls what may be a coroutine function (views, error
handlers, functions before, after and at the end of a request, context processors, signals), and
that asks ``app.async_to_sync``, which Flask offers for replacing. :class:`Bide` replaces it, on one
application, and nothing else of Flask.

Under another server than Bide, and in Flask's test client, waiting blocks the thread, and what is
``async def`` runs on one background loop of the process.
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
from bide.waiting.waiter import look

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
    """Have an application's coroutine functions run on the server's loop, their requests parked.

    ``Bide(app)``, or ``Bide().init_app(app)`` in a factory; before or after the views are there.
    Flask's contexts are visible in a coroutine, and what it changes in ``g``, in the session and in
    context variables is visible after it. An application class that overrides ``ensure_sync``
    itself decides alone.

    Raises:
        TypeError: ``app`` is no Flask application.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Do it for one application; any number of them, each any number of times."""
        if not isinstance(app, Flask):
            raise TypeError(
                f"Bide() takes a Flask application, not {_named(app)}: give it the object "
                "that Flask(__name__) made"
            )
        app.extensions["bide"] = self
        # Flask offers it to be replaced, and looks for it on the application.
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
    """Make an ordinary function of a coroutine function: it waits as :func:`bide.wait` does.

    Each call runs as one task on the server's loop, in a copy of the caller's context, whose
    changes the caller gets. Within an ``except`` block the coroutine sees the error that is being
    handled. When the request is cancelled, the coroutine is, and has ended when this raises, or has
    had the time that a cancelled request has for cleaning up.

    Raises, when called, whatever the coroutine raises, and what :func:`bide.wait` does.
    """

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        running = _Call(functools.partial(function, *args, **kwargs))
        try:
            result: T = wait(running.run())
            look()  # a result in spite of being cancelled is for nobody
            return result
        except Cancelled:
            wait(running.ended())
            raise
        finally:
            running.bring_back()

    return call


class _Call:
    """One call of a coroutine function; all but ``bring_back`` is on the loop."""

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
            except BaseException:  # noqa: BLE001 - it is the caller's, and stays handled there
                handled.__traceback__ = traceback  # without this frame: it is as it was
                return await self._function()
        finally:
            self._context = contextvars.copy_context()
            self._task = None  # it holds an error, whose traceback holds this: no cycle

    async def ended(self) -> None:
        """Return once the call, which has been cancelled, has ended.

        The loop is given ``run`` and its cancelling before this: it has begun now, or never will.
        """
        if self._task is not None:
            await asyncio.wait([self._task])

    def bring_back(self) -> None:
        """Set the context variables as the coroutine has left them; on the caller's thread."""
        if self._context is None:
            return
        for variable, value in self._context.items():
            # Only what has changed: setting Flask's own again would cost, and say nothing.
            if variable.get(_NOTHING) is not value:
                variable.set(value)


_NOTHING: Any = object()


# Streaming ----------------------------------------------------------------------------------------


@overload
def stream(source: AsyncIterable[Block]) -> Iterator[Block]: ...
@overload
def stream(source: Callable[P, AsyncIterator[Block]]) -> Callable[P, Iterator[Block]]: ...


def stream(source: Any) -> Any:
    """Make what a view can return, or give to ``Response``, of an async iterable of str or bytes.

    ``return stream(generate())``; each block is sent as it comes. It runs in one task on the
    server's loop, the request parked meanwhile, with Flask's contexts kept as
    :func:`flask.stream_with_context` keeps them. When the client leaves or the response is
    closed early, the iterable is cancelled or closed (``aclose``) there, in its own context, before
    Flask's contexts end. An error in it is raised to the server.

    As a decorator of an async generator function it makes one whose result can be returned.

    Needs no :class:`Bide`.

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
            "stream() was called outside a request, whose context it would keep: "
            "call it in a view, and return what it gives"
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
            # One that is collected may be closed on a loop's thread, where nobody can wait.
            with contextlib.suppress(WaitError):
                wait(source.ended())
            raise


class _Source:
    """An async iterable that says when it has ended; on the loop."""

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
        """Close it, as far as it can be closed."""
        try:
            close = getattr(self._iterator or self._iterable, "aclose", None)
            if close is not None:
                await close()
        finally:
            self._closed.set()

    async def ended(self) -> None:
        """Return once it is closed, or at once where it has not begun.

        The loop is given the call of ``aclose`` before this: it has begun now, or never will.
        """
        if self._iterator is not None:
            await self._closed.wait()
