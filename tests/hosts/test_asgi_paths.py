"""Where an application is mounted, and what was asked for: SCRIPT_NAME, PATH_INFO and the rest.

By both conventions for ``root_path``, and in the frameworks that mount ASGI applications.
"""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount

from bide import ClientDisconnected, wait
from bide.hosts.asgi import asgi
from tests.docs.snippets import modules_of
from tests.hosts.asgi_server import Exchange, run, until
from tests.served import Environ, Log, answering

with warnings.catch_warnings():  # it would rather have another client than httpx
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

KEYS = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI")


def tell(environ: Environ) -> str:
    return "|".join(environ[key] for key in KEYS)


def latin(text: str) -> str:
    """Return text as PEP 3333 has it: UTF-8 bytes as Latin-1 characters."""
    return text.encode().decode("latin-1")


def told(**more: Any) -> list[str]:
    """Return what an application sees of a scope's path."""
    seen: list[list[str]] = []

    def answer(environ: Environ) -> None:
        seen.append([environ[key] for key in KEYS])

    async def steps() -> None:
        await Exchange(asgi(answering(answer)), **more).task

    run(steps())
    return seen[0]


@pytest.mark.parametrize(
    ("path", "raw", "query", "expected"),
    [
        ("/", b"/", b"", ["", "/", "", "/"]),
        ("/a b", b"/a%20b", b"q=%20", ["", "/a b", "q=%20", "/a%20b?q=%20"]),
        ("/é", b"/%C3%A9", b"", ["", latin("/é"), "", "/%C3%A9"]),
        ("/%41", b"/%2541", b"", ["", "/%41", "", "/%2541"]),
        ("/a/b", b"/a%2Fb", b"", ["", "/a/b", "", "/a%2Fb"]),
        # No UTF-8: a server replaces it, and the bytes are still to be had.
        ("/\ufffd", b"/%FF", b"", ["", "/\xff", "", "/%FF"]),
        # Middleware has changed the path, and not what was sent.
        ("/new", b"/old", b"", ["", "/new", "", "/old"]),
        # A server that does not tell what was sent.
        ("/a b/é", None, b"q", ["", latin("/a b/é"), "q", "/a%20b/%C3%A9?q"]),
        # One that has the query in it.
        ("/a", b"/a?q", b"q", ["", "/a", "q", "/a?q"]),
        ("", b"", b"", ["", "", "", ""]),
        ("*", b"*", b"", ["", "", "", "*"]),
    ],
)
def test_a_path_is_the_bytes_that_were_asked_for(
    log: Log, path: str, raw: bytes | None, query: bytes, expected: list[str]
) -> None:
    """Decoded once (PEP 3333, Unicode Issues); REQUEST_URI is what was sent."""
    assert told(path=path, raw_path=raw, query_string=query) == expected


@pytest.mark.parametrize(
    ("root", "path", "script", "info"),
    [
        # ASGI 3 as it is now: the path has the root in it.
        ("/app", "/app/x", "/app", "/x"),
        ("/app", "/app", "/app", ""),
        ("/app", "/app/", "/app", "/"),
        ("/app/", "/app/x", "/app", "/x"),
        ("/é", "/é/x", latin("/é"), "/x"),
        ("/a b", "/a b/x", "/a b", "/x"),
        # As it was, and as a proxy has it that takes the root away.
        ("/app", "/x", "/app", "/x"),
        ("/app", "/", "/app", "/"),
        ("/app", "", "/app", ""),
        ("/app", "/application", "/app", "/application"),
        ("/", "/x", "", "/x"),
        ("", "/x", "", "/x"),
    ],
)
def test_the_root_is_the_script_by_both_conventions(
    log: Log, root: str, path: str, script: str, info: str
) -> None:
    """SCRIPT_NAME and PATH_INFO together are where the application is."""
    assert told(root_path=root, path=path)[:2] == [script, info]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ("10.0.0.2", "8000", "10.0.0.1", "5000", "http", "HTTP/1.1")),
        ({"http_version": "2"}, ("10.0.0.2", "8000", "10.0.0.1", "5000", "http", "HTTP/2")),
        ({"http_version": "1.0"}, ("10.0.0.2", "8000", "10.0.0.1", "5000", "http", "HTTP/1.0")),
        # PEP 3333: SERVER_NAME and SERVER_PORT are never empty.
        (
            {"server": None, "client": None, "scheme": "https"},
            ("localhost", "443", "", "", "https", "HTTP/1.1"),
        ),
        (
            {"server": ("/run/sock", None), "client": ("", None)},
            ("localhost", "80", "", "", "http", "HTTP/1.1"),
        ),
    ],
)
def test_addresses_are_those_that_the_server_knows(
    log: Log, more: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """A Unix socket has none."""
    seen: list[tuple[str, ...]] = []

    def answer(environ: Environ) -> None:
        names = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme")
        seen.append(tuple(environ[name] for name in (*names, "SERVER_PROTOCOL")))

    async def steps() -> None:
        await Exchange(asgi(answering(answer)), **more).task

    run(steps())
    assert seen == [expected]


def test_headers_are_as_under_bides_own_server(log: Log) -> None:
    """Joined, and those dropped that would pass for others."""
    seen: list[Environ] = []
    headers = [
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"x-forwarded-for", b"1"),
        (b"x-forwarded-for", b"2"),
        (b"x_forwarded_for", b"3"),
        (b"proxy", b"evil"),
        (b"content-type", b"text/plain"),
        (b"x-latin", b"\xe9"),
    ]

    async def steps() -> None:
        await Exchange(asgi(answering(seen.append)), headers=headers).task

    run(steps())
    environ = seen[0]
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_FORWARDED_FOR"] == "1,2"
    assert "HTTP_PROXY" not in environ
    assert environ["CONTENT_TYPE"] == "text/plain"
    assert environ["HTTP_X_LATIN"] == "\xe9"


# Frameworks -----------------------------------------------------------------------------------


def starlette(application: Any) -> Any:
    return Starlette(routes=[Mount("/wsgi", app=application)])


def fastapi(application: Any) -> Any:
    site = FastAPI()
    site.mount("/wsgi", application)
    return site


def nested(application: Any) -> Any:
    return Starlette(routes=[Mount("/a b", routes=[Mount("/é", app=application)])])


def middleware(application: Any) -> Any:
    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    return Starlette(
        routes=[Mount("/wsgi", app=application)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)],
    )


@pytest.mark.parametrize(
    ("site", "mount", "script"),
    [
        (starlette, "/wsgi", "/wsgi"),
        (fastapi, "/wsgi", "/wsgi"),
        (nested, "/a%20b/%C3%A9", "/a b/é"),
        (middleware, "/wsgi", "/wsgi"),
    ],
)
def test_a_mounted_application_knows_where_it_is(
    log: Log, site: Any, mount: str, script: str
) -> None:
    """Below a prefix of Starlette's or FastAPI's; over an in-process client of each test's loop."""

    async def steps() -> None:
        hosted = asgi(answering(tell))
        transport = httpx.ASGITransport(site(hosted))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get(f"{mount}/x%20y?q=1")
            assert answer.status_code == 200
            # In UTF-8: the environ's strings were encoded again.
            expected = f"{latin(script)}|/x y|q=1|{mount}/x%20y?q=1"
            assert answer.text == expected
        await hosted.stop()

    run(steps())


def test_a_mounted_application_is_stopped_by_the_lifespan_of_its_site(log: Log) -> None:
    """Mounts get none of their own: one line in the site's."""
    hosted = asgi(answering(lambda environ: wait(asyncio.sleep(0, environ["wsgi.input"].read()))))

    @contextlib.asynccontextmanager
    async def lifespan(site: Any) -> AsyncIterator[None]:
        yield
        await hosted.stop()

    site = Starlette(routes=[Mount("/wsgi", app=hosted)], lifespan=lifespan)
    for _ in range(2):  # a loop each
        with TestClient(site) as client:
            assert client.post("/wsgi/", content=b"1" * 200_000).text == "1" * 200_000
        assert not hosted._dispatchers


def test_an_application_is_tested_by_starlettes_client(log: Log) -> None:
    """As it is, with its lifespan; a loop for each `with`, or each request without."""
    hosted = asgi(answering(tell))
    with TestClient(hosted) as client:
        assert client.get("/x").text == "|/x||/x"
        assert client.get("/x?y").text == "|/x|y|/x?y"
    assert not hosted._dispatchers
    client = TestClient(hosted)
    for _ in range(3):
        assert client.get("/x").text == "|/x||/x"


@pytest.mark.parametrize(
    ("module", "name", "path", "expected"),
    [("waits", "served", "/", "3\n"), ("mounted", "site", "/old/x", "/old")],
)
def test_the_examples_of_the_page_are_served(
    log: Log, module: str, name: str, path: str, expected: str
) -> None:
    """As they stand there."""
    source = next(each for each in modules_of("docs/hosts.md") if each.name == module).text
    names: dict[str, Any] = {}
    exec(source, names)
    with TestClient(names[name]) as client:
        assert client.get(path).text == expected


def test_a_time_out_of_the_sites_cancels_the_wait(log: Log) -> None:
    """Middleware that cancels what takes too long is a departure to the application."""
    raised: list[type[BaseException]] = []

    def answer(environ: Environ) -> None:
        try:
            wait(asyncio.sleep(60))
        except BaseException as error:
            raised.append(type(error))
            raise

    async def steps() -> None:
        hosted = asgi(answering(answer))
        request = Exchange(hosted)
        await until(lambda: hosted.dispatchers().status().waiting == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(request.task, 0.01)

    run(steps())
    assert raised == [ClientDisconnected]
