"""``StreamingHttpResponse`` with an async iterator: each block is sent when it is there."""

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.signals import request_finished
from django.http import HttpRequest, StreamingHttpResponse
from django.test import Client
from django.utils import translation

from tests.integrations.django_project.conftest import Project
from tests.served import Gate, Log, happened

variable: ContextVar[str] = ContextVar("variable", default="unset")


def test_a_block_is_sent_before_the_next_one_is_there(project: Project, executor: str) -> None:
    """Many streams at once, on one thread; Django alone would collect all blocks first."""
    gate = Gate()

    async def blocks() -> AsyncIterator[str]:
        yield "first\n"
        await asyncio.wrap_future(gate.promise())
        yield "second\n"

    async def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(blocks())

    served = project.serve({"view": view}, executor=executor, threads=1)
    clients = [served.request("/view") for _ in range(10)]
    for client in clients:
        client.head()
        assert client.chunk() == b"first\n"
    served.until_waiting(10)
    gate.open()
    for client in clients:
        assert client.chunk() == b"second\n"
        assert client.chunk() == b""


def test_a_stream_has_the_requests_context_and_thread(project: Project) -> None:
    """The language that the view has activated, and blocking calls on the lane."""

    async def blocks() -> AsyncIterator[str]:
        yield f"{variable.get()} {translation.get_language()}\n"
        yield (await sync_to_async(threading.current_thread)()).name

    def view(request: HttpRequest) -> StreamingHttpResponse:
        variable.set("set by the view")
        translation.activate("fr")
        return StreamingHttpResponse(blocks())

    served = project.serve({"view": view}, threads=1)
    assert served.get("/view").text == "set by the view fr\nbide-thread-1"


def test_gzip_middleware_keeps_a_stream_a_stream(project: Project) -> None:
    """It wraps the async iterator in one of its own, and flushes each block."""
    project.middleware = ["django.middleware.gzip.GZipMiddleware"]
    gate = Gate()

    async def blocks() -> AsyncIterator[bytes]:
        yield b"first " * 100
        await asyncio.wrap_future(gate.promise())
        yield b"second"

    async def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(blocks())

    served = project.serve({"view": view}, threads=1)
    client = served.request("/view", headers=["Accept-Encoding: gzip"])
    assert client.head().header("Content-Encoding") == "gzip"
    sent = b""
    while gunzip(sent) != b"first " * 100:
        sent += client.chunk()
    gate.open()
    while chunk := client.chunk():
        sent += chunk
    assert gunzip(sent).endswith(b"first second")


def gunzip(data: bytes) -> bytes:
    """Decompress what has come so far; Django 5.2 makes a member of each block, 6 makes one."""
    text = b""
    while data:
        member = zlib.decompressobj(31)
        text += member.decompress(data)
        data = member.unused_data
    return text


def test_an_error_in_a_stream_cuts_it(project: Project, log: Log) -> None:
    """The client must not take it for complete."""

    async def blocks() -> AsyncIterator[str]:
        yield "first\n"
        raise ValueError("the stream fails")

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(blocks())

    served = project.serve({"view": view})
    response = served.get("/view")
    assert (response.text, response.complete) == ("first\n", False)
    log.failure()


@pytest.mark.parametrize("slow", [False, True], ids=["while it waits", "while the client is slow"])
def test_a_client_that_leaves_ends_the_stream_within_the_request(
    project: Project, executor: str, slow: bool
) -> None:
    """Its ``finally`` may await and call; then the response is closed, and Django told."""
    events: list[Any] = []
    finished = threading.Event()

    def finish(**_: Any) -> None:
        events.append("request_finished")
        finished.set()

    async def blocks() -> AsyncIterator[bytes]:
        events.append((await sync_to_async(threading.current_thread)()).name)
        try:
            yield b"first"
            while slow:
                yield bytes(1024 * 1024)
            await asyncio.get_running_loop().create_future()
        finally:
            events.append((await sync_to_async(threading.current_thread)()).name)

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(blocks())

    served = project.serve({"view": view}, executor=executor, threads=1)
    request_finished.connect(finish)
    try:
        client = served.request("/view")
        client.head()
        assert client.chunk() == b"first"
        served.until_waiting(1)
        client.close()
        happened(finished)
        served.until_idle()
    finally:
        request_finished.disconnect(finish)
    first, second, last = events
    assert first == second
    assert last == "request_finished"


def test_closing_the_response_ends_the_stream(project: Project) -> None:
    """Also where somebody still has the iterator, so that the collector cannot."""
    closed = threading.Event()
    kept: list[Any] = []

    class Keeping:
        def __init__(self, response: Any) -> None:
            self.response = response
            self.close = response.close

        def __iter__(self) -> Iterator[bytes]:
            kept.append(iter(self.response))
            return iter(kept[0])

    async def blocks() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            yield b"second"
        finally:
            closed.set()

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(blocks())

    served = project.serve({"view": view}, wrap=Keeping)
    assert served.get("/view", method="HEAD").body == b""
    happened(closed)


def test_without_the_integration_django_collects_the_stream(project: Project) -> None:
    """And warns that it does: this is what the integration is for."""

    async def blocks() -> AsyncIterator[str]:
        yield "first\n"
        yield "second\n"

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(blocks())

    served = project.serve({"view": view}, install=False)
    with pytest.warns(Warning, match="must consume asynchronous iterators"):
        response = served.get("/view")
    assert response.text == "first\nsecond\n"


def test_the_test_client_collects_the_stream_with_the_integration_in_force(
    project: Project,
) -> None:
    """Outside a request of Bide's everything is as ever."""

    async def blocks() -> AsyncIterator[str]:
        yield "first\n"

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(blocks())

    project.serve({"view": view})
    response = Client().get("/view")
    with pytest.warns(Warning, match="must consume asynchronous iterators"):
        assert b"".join(response) == b"first\n"
