"""WhiteNoise's and Werkzeug's middleware around an application that waits and streams."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from pyramid.response import Response
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.profiler import ProfilerMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.middleware.shared_data import SharedDataMiddleware
from werkzeug.wrappers import Response as WerkzeugResponse
from whitenoise import WhiteNoise

from tests.conftest import Serve
from tests.frameworks.sites import Site
from tests.served import Application, Environ, Served

PLAIN = [("Content-Type", "text/plain")]
CONTENT = b"".join(b"%07d\n" % number for number in range(128 * 1024))  # 1 MiB


def streaming(site: Site) -> Application:
    """Stream, with a wait; say what the environ says of the client."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        site.seen.append(
            f"{environ['wsgi.url_scheme']} {environ['REMOTE_ADDR']} "
            f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']}"
        )
        start_response("200 OK", PLAIN)
        return site.stream()

    return application


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with a large file."""
    (tmp_path / "large.txt").write_bytes(CONTENT)
    return tmp_path


def with_whitenoise(application: Application, files: Path) -> Application:
    wrapped: Application = WhiteNoise(application, root=str(files), prefix="static")
    return wrapped


def with_shared_data(application: Application, files: Path) -> Application:
    return SharedDataMiddleware(application, {"/static": str(files)})


def with_proxy_fix(application: Application, files: Path) -> Application:
    return ProxyFix(application)


def with_dispatcher(application: Application, files: Path) -> Application:
    return DispatcherMiddleware(WerkzeugResponse("no", 404), {"/mounted": application})


WRAPPERS: list[Callable[[Application, Path], Application]] = [
    with_whitenoise,
    with_shared_data,
    with_proxy_fix,
    with_dispatcher,
]
PATH = "/mounted/stream"


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_middleware_lets_a_stream_through_piece_by_piece(
    serve: Serve, files: Path, wrap: Callable[[Application, Path], Application]
) -> None:
    """Two of them on one thread; each block is with its client before the next is made."""
    site = Site("none")
    served = serve(validator(wrap(streaming(site), files)), threads=1)
    clients = [served.request(PATH) for _ in range(2)]
    for client in clients:
        client.head()
        assert client.chunk() == b"begin\n"
    served.until_waiting(2)
    assert all(client.is_silent() for client in clients)
    site.gate.open()
    for client in clients:
        assert client.chunk() == b"end\n"
        assert client.chunk() == b""
    assert site.seen.count("stream closed") == 2


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_middleware_lets_a_departure_through(
    serve: Serve, files: Path, wrap: Callable[[Application, Path], Application]
) -> None:
    """The stream is closed, and nothing is logged."""
    site = Site("none")
    served = serve(validator(wrap(streaming(site), files)), threads=1)
    client = served.request(PATH)
    client.head()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert site.seen.count("stream closed") == 1


def test_proxy_fix_and_dispatcher_change_the_environ_as_ever(serve: Serve, files: Path) -> None:
    """The address and scheme from a trusted proxy; the mount's path apart from the rest."""
    site = Site("none")
    site.gate.open()
    inner = with_dispatcher(streaming(site), files)
    served = serve(ProxyFix(inner, x_for=1, x_proto=1), trust="127.0.0.1")
    served.get(PATH, headers=["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https"])
    assert site.seen[0] == "https 192.0.2.7 /mounted /stream"


def fetch(served: Served, *headers: str) -> Any:
    """Fetch the file."""
    return served.get("/static/large.txt", headers=headers)


@pytest.mark.parametrize("wrap", [with_whitenoise, with_shared_data])
def test_files_of_middleware_are_whole_and_not_sent_twice(
    serve: Serve, files: Path, wrap: Callable[[Application, Path], Application]
) -> None:
    """With their length; a second time with 304, when the client has them."""
    served = serve(wrap(streaming(Site("none")), files))
    response = fetch(served)
    assert (response.status, response.body) == (200, CONTENT)
    assert response.header("Content-Length") == str(len(CONTENT))
    again = fetch(served, f"If-Modified-Since: {response.header('Last-Modified')}")
    assert (again.status, again.body, again.complete) == (304, b"", True)


def test_whitenoise_has_the_kernel_send_its_files(
    serve: Serve, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole ones; parts of them go as blocks."""
    sent: list[int] = []
    real = os.sendfile

    def sendfile(*args: Any) -> int:
        sent.append(real(*args))
        return sent[-1]

    monkeypatch.setattr(os, "sendfile", sendfile)
    served = serve(with_whitenoise(streaming(Site("none")), files))
    assert fetch(served).body == CONTENT
    served.until_idle()  # what was sent is counted after it has been
    assert sum(sent) == len(CONTENT)
    sent.clear()
    part = fetch(served, "Range: bytes=100-200099")
    assert (part.status, part.complete) == (206, True)
    assert part.body == CONTENT[100:200100]
    assert part.header("Content-Range") == f"bytes 100-200099/{len(CONTENT)}"
    served.until_idle()
    assert sent == []
    beyond = fetch(served, f"Range: bytes={len(CONTENT)}-")
    assert beyond.status == 416


def test_the_profiler_collects_what_waits(serve: Serve) -> None:
    """It makes a list of the response: a wait works below it, nothing streams through it."""
    site = Site("none")
    out = io.StringIO()
    served = serve(ProfilerMiddleware(streaming(site), stream=out), threads=1)
    client = served.request("/")
    served.until_waiting(1)
    assert client.is_silent()
    site.gate.open()
    assert client.response().body == b"begin\nend\n"
    assert "function calls" in out.getvalue()


def test_werkzeugs_response_drops_nothing_that_waits(serve: Serve) -> None:
    """Its ``ClosingIterator`` and its joining of blocks are below the wait."""
    site = Site("none")
    site.gate.open()

    def application(environ: Environ, start_response: Any) -> Any:
        response = WerkzeugResponse(site.empty())
        if environ["PATH_INFO"] == "/joined":
            response.get_data()
        return response(environ, start_response)

    served = serve(validator(application))
    assert served.get("/").chunks == [b"something"]
    joined = served.get("/joined")
    assert joined.body == b"something"
    assert joined.header("Content-Length") == "9"


def test_webobs_response_may_wait_while_it_is_joined(serve: Serve) -> None:
    """``body`` joins the blocks, empty ones too."""
    site = Site("none")

    def application(environ: Environ, start_response: Any) -> Any:
        response = Response(app_iter=site.empty(), content_type="text/plain")
        assert response.body == b"something"
        return response(environ, start_response)

    assert serve(validator(application)).get("/").body == b"something"
