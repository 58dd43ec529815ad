"""Django's ASGI application, with a database: what its streams hold when clients have left."""

import json
from pathlib import Path

from tests.failures import same
from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import Client, request, until

SOURCE = """
import asyncio
import gc
from collections import Counter
from pathlib import Path

from asgiref.sync import sync_to_async
from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="x",
    MIDDLEWARE=[],
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path("db.sqlite3").absolute()}
    },
)

import django

django.setup()

from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished
from django.db import connection
from django.db.backends.signals import connection_created
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path

counts = Counter(opened=0, closed=0, begun=0, ended=0, finished=0)


def opened(**_):
    counts["opened"] += 1


def finished(**_):
    counts["finished"] += 1


connection_created.connect(opened)
request_finished.connect(finished)
close = DatabaseWrapper._close


def closing(self):
    counts["closed"] += self.connection is not None
    return close(self)


DatabaseWrapper._close = closing


def query():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


async def blocks():
    counts["begun"] += 1
    try:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)
    finally:
        counts["ended"] += 1


async def stream(request):
    await sync_to_async(query)()
    return StreamingHttpResponse(blocks())


async def told(request):
    gc.collect()  # an iterator that Django leaves is the collector's
    return JsonResponse(counts)


urlpatterns = [path("stream", stream), path("counts", told)]
application = ASGIHandler()
"""

STREAMS = 100


def test_the_database_connections_of_streams_are_closed(start: Start, tmp_path: Path) -> None:
    """Each is opened by its request, and closed when its client has left: by request_finished."""
    (tmp_path / "streams.py").write_text(SOURCE)
    program = start("streams:application", "--bind", "127.0.0.1:0", PYTHONWARNINGS="default")
    address = program.serving()
    for _ in range(STREAMS):
        client = Client(address, window=4096)
        client.send(request("/stream"))
        assert client.head().status == 200
        assert client.chunk()
        client.reset()

    counts: dict[str, int] = {}

    def ended() -> bool:
        counts.update(json.loads(get(address, "/counts").text))
        return counts["ended"] == counts["closed"] == STREAMS <= counts["finished"]

    try:
        until(ended)
    finally:
        same(counts, {**counts, **dict.fromkeys(("opened", "closed", "begun", "ended"), STREAMS)})
