"""Middleware of both kinds, for the chain to change between them."""

import threading
from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse


def blocking(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    """Note the thread, as middleware that knows nothing of coroutines."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["X-Threads"] = f"{response.get('X-Threads', '')} {threading.get_ident()}".strip()
        return response

    return middleware


class Asynchronous:
    """Note the thread, as middleware that is a coroutine function."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> None:
        assert iscoroutinefunction(get_response)
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass it on."""
        response = await self.get_response(request)
        response["X-Loop-Thread"] = str(threading.get_ident())
        return response
