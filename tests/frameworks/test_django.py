"""Django's middleware around views that wait; Django alone, without an integration."""

import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from bide import wait
from tests.conftest import Serve
from tests.django_settings import django_settings
from tests.frameworks.sites import Site
from tests.served import Application


class Urls:
    """What Django takes for a module of routes: the site's."""

    def __init__(self, site: Site) -> None:
        self.urlpatterns = [
            path("wait/<name>", self.wait),
            path("stream", self.stream),
            path("large", self.large),
        ]
        self.site = site

    def wait(self, request: Any, name: str) -> HttpResponse:
        """Answer the name."""
        self.site.wait()
        return HttpResponse(name)

    def stream(self, request: Any) -> StreamingHttpResponse:
        """Stream with a wait."""
        return StreamingHttpResponse(self.site.stream())

    def large(self, request: Any) -> StreamingHttpResponse:
        """Stream empty blocks, waits and what is long enough to be compressed."""

        def blocks() -> Iterator[bytes]:
            yield b""
            wait(self.site.gate.promise())
            yield b"0123456789" * 1000
            yield from self.site.empty()

        return StreamingHttpResponse(blocks())


@pytest.fixture
def site() -> Iterator[Site]:
    """Return a site in Django, with settings that are put back after the test."""
    site = Site("django")
    with django_settings(
        ROOT_URLCONF=Urls(site),
        ALLOWED_HOSTS=["test"],
        USE_TZ=True,
        MIDDLEWARE=["django.middleware.gzip.GZipMiddleware"],
    ):
        site.application = WSGIHandler()
        yield site


def test_django_views_wait_on_two_threads(serve: Serve, site: Site) -> None:
    """As they come."""
    application: Application = site.application
    served = serve(application, threads=2)
    clients = [served.request(f"/wait/{number}") for number in range(20)]
    served.until_waiting(20)
    site.gate.open()
    assert [client.response().text for client in clients] == [str(each) for each in range(20)]


def test_a_django_stream_comes_piece_by_piece(serve: Serve, site: Site) -> None:
    """The middleware leaves it alone for a client that takes no gzip."""
    served = serve(site.application, threads=1)
    client = served.request("/stream")
    client.head()
    assert client.chunk() == b"begin\n"
    served.until_waiting(1)
    site.gate.open()
    assert client.chunk() == b"end\n"
    assert client.chunk() == b""


def test_djangos_gzip_compresses_what_waits(serve: Serve, site: Site) -> None:
    """It swallows the empty blocks and holds others back; the waits are below it."""
    served = serve(site.application, threads=1)
    client = served.request("/large", headers=["Accept-Encoding: gzip"])
    served.until_waiting(1)
    site.gate.open()
    response = client.response()
    assert response.header("Content-Encoding") == "gzip"
    assert gzip.decompress(response.body) == b"0123456789" * 1000 + b"something"


def test_a_departure_passes_djangos_handlers(serve: Serve, site: Site) -> None:
    """And nothing is logged, by Bide or as an error of the view's."""
    served = serve(site.application, threads=1)
    client = served.request("/wait/me")
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert site.seen == ["waited"]
