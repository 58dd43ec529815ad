"""The project's own pages; most tests put theirs in place of these."""

import asyncio
from collections.abc import AsyncIterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from tests.integrations.django_project.models import Note


async def add(request: HttpRequest, text: str) -> HttpResponse:
    """Write a note, and say how many there are."""
    await Note.objects.acreate(text=text)
    await asyncio.sleep(0)
    return HttpResponse(f"{await Note.objects.filter(text=text).acount()}")


async def every(request: HttpRequest) -> StreamingHttpResponse:
    """Stream all notes."""

    async def lines() -> AsyncIterator[str]:
        async for note in Note.objects.order_by("id").aiterator():
            yield f"{note.text}\n"

    return StreamingHttpResponse(lines())


urlpatterns = [path("add/<text>", add), path("all", every)]
