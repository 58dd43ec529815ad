"""Extensions of ASGI: what is sent ahead of a response, and what behind its body."""

import math
from typing import Any

import pytest

from tests.asgi.sites import Receive, Scope, Send, answer, body, routed, start
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import Log, request

HINT = "http.response.early_hint"
TRAILERS = "http.response.trailers"
LINKS = [b"</style.css>; rel=preload; as=style", b"</app.js>; rel=preload; as=script"]


def trailers(*headers: tuple[bytes, bytes], more: bool = False) -> dict[str, Any]:
    """Return a message with trailers."""
    return {"type": TRAILERS, "headers": list(headers), "more_trailers": more}


def promising(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    """Return a message that begins a response with trailers."""
    return {**start(status, *headers), "trailers": True}


def test_early_hints_go_out_ahead_of_the_response(serve: Serve) -> None:
    """To HTTP/1.1; whoever speaks 1.0 is not offered them, and gets none."""

    async def hints(scope: Scope, _: Receive, send: Send) -> None:
        offered = HINT in scope["extensions"]
        await send({"type": HINT, "links": LINKS})
        await send({"type": HINT, "links": LINKS[:1]})
        await answer(send, b"offered" if offered else b"not offered")

    served = serve(routed(hints=hints))
    client = served.connect()
    for _ in range(2):
        client.send(request("/hints"))
        for count in (2, 1):
            early = client.head()
            assert (early.status, early.reason) == (103, "Early Hints")
            links = [(name, value.encode()) for name, value in early.headers]
            assert links == [("Link", link) for link in LINKS[:count]]
        assert client.response().text == "offered"
    assert served.get("/hints", version="1.0").text == "not offered"


def test_a_client_that_reads_no_hints_parks_who_sends_them(serve: Serve) -> None:
    """No more is held than a limit and a hint; the departure wakes who waits."""
    raised: list[str] = []

    async def flood(_: Scope, __: Receive, send: Send) -> None:
        try:
            for _ in range(100_000):
                await send({"type": HINT, "links": [b"x" * 8000] * 4})
        except OSError as error:
            raised.append(type(error).__name__)
            raise
        await answer(send, b"never")

    served = serve(routed(flood=flood), asgi_cancel=math.inf)
    client = served.connect(window=4096)
    client.send(request("/flood"))
    served.until_waiting(1)
    [status] = served.server.requests()
    assert status.state == "sending"
    [connection] = served.connections
    assert connection.held < served.server.settings.limit_unsent + 40_000
    client.reset()
    served.until_idle()
    assert raised == ["ClientGone"]


def test_trailers_to_a_client_that_has_left_raise_as_the_body_does(serve: Serve) -> None:
    """The last of them, one before, and one behind a body that was not taken."""
    raised: dict[str, list[str]] = {}

    async def trailing(scope: Scope, receive: Receive, send: Send) -> None:
        whole = scope["path"].endswith("whole")
        await send(promising())
        await send(body(b"ok", more=not whole))
        while (await receive())["type"] != "http.disconnect":
            pass
        names = raised[scope["path"]] = []
        for message in (body(b"x", more=True), trailers(more=True), trailers()):
            try:
                await send(message)
            except Exception as error:
                names.append(type(error).__name__)
            else:
                names.append("nothing")

    served = serve(routed(trailing=trailing), asgi_cancel=math.inf)
    with Failures() as failures:
        for te in ("TE: trailers", "TE: gzip"):
            for path in ("/trailing/half", "/trailing/whole"):
                if (te, path) == ("TE: gzip", "/trailing/whole"):
                    continue  # there the response has ended
                with failures.of((te, path)):
                    client = served.request(path, headers=[te])
                    client.head()
                    client.reset()
                    served.until_idle()
                    same(raised[path], ["ClientGone"] * 3)


def test_a_hint_that_may_not_be_sent_raises(serve: Serve) -> None:
    """And the response is as if it had not been tried."""
    raised: list[str] = []

    async def wrong(_: Scope, __: Receive, send: Send) -> None:
        async def attempt(links: Any) -> None:
            try:
                await send({"type": HINT, "links": links})
            except Exception as error:
                raised.append(f"{type(error).__name__}: {error}")

        await attempt(["</a>"])
        await attempt([b"</a>\r\nSet-Cookie: a=b"])
        await send(start())
        await attempt(LINKS)
        await send(body(b"ok"))

    assert serve(routed(wrong=wrong)).get("/wrong").text == "ok"
    for each, said in zip(
        raised,
        ["they must be bytes", "control character '\\r'", "comes before the start"],
        strict=True,
    ):
        assert each.startswith("LocalProtocolError: ")
        assert said in each


async def digested(scope: Scope, _: Receive, send: Send) -> None:
    """Answer with a body in parts, and its digest behind it."""
    length = [] if "short" not in scope["path"] else [(b"content-length", b"4")]
    await send(promising((b"trailer", b"Digest, X-Count"), *length))
    await send(body(b"bo", more=True))
    await send(body(b"dy"))
    await send(trailers((b"digest", b"sha-256=abc"), more=True))
    await send(trailers((b"x-count", b"2")))


def test_trailers_go_behind_the_body_to_clients_that_take_them(serve: Serve) -> None:
    """By TE, in HTTP/1.1. To others the body is all, with its Content-Length if it has one."""
    offered: list[bool] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        offered.append(TRAILERS in scope["extensions"])
        await digested(scope, receive, send)

    served = serve(routed(digested=look, short=look))
    client = served.connect()
    with Failures() as failures:
        for path, te, version, taken in (
            ("/digested", "TE: trailers", "1.1", True),
            ("/short", "TE: gzip;q=0.5, Trailers", "1.1", True),
            ("/digested", "TE: gzip", "1.1", False),
            ("/short", "TE: gzip", "1.1", False),
            ("/digested", "Accept: */*", "1.1", False),
            ("/digested", "TE: trailers", "1.0", False),
        ):
            with failures.of((path, te, version)):
                if version == "1.0":
                    client = served.connect()
                client.send(request(path, headers=[te], version=version))
                head = client.head()
                same(head.header("Trailer"), "digest, x-count" if taken else None)
                if taken:
                    same((client.chunk(), client.chunk()), (b"bo", b"dy"))
                    ending = b"0\r\ndigest: sha-256=abc\r\nx-count: 2\r\n\r\n"
                    same(client.read(len(ending)), ending)
                elif head.header("Transfer-Encoding"):
                    same([client.chunk() for _ in range(3)], [b"bo", b"dy", b""])
                elif version == "1.0":
                    same(client.rest(), b"body")
                else:
                    same((head.header("Content-Length"), client.read(4)), ("4", b"body"))
                same(offered.pop(), taken)
    client = served.request("/digested", method="HEAD", headers=["TE: trailers"])
    assert client.response("HEAD").complete
    client.send(request("/digested"))
    assert client.response().chunks == [b"bo", b"dy"]


def test_a_body_in_one_piece_may_have_trailers(serve: Serve) -> None:
    """Also none at all: it must be said that there are none."""

    async def grpc(scope: Scope, _: Receive, send: Send) -> None:
        await send(promising())
        await send(body(b"x" * 20_000 if "large" in scope["path"] else b""))
        await send(trailers(*([(b"grpc-status", b"0")] if "none" not in scope["path"] else [])))

    client = serve(routed(grpc=grpc)).connect()
    for path, blocks, ending in (
        ("/grpc", [], b"0\r\ngrpc-status: 0\r\n\r\n"),
        ("/grpc/large", [b"x" * 20_000], b"0\r\ngrpc-status: 0\r\n\r\n"),
        ("/grpc/none", [], b"0\r\n\r\n"),
    ):
        client.send(request(path, headers=["TE: trailers"]))
        assert client.head().status == 200
        assert [client.chunk() for _ in blocks] == blocks
        assert client.read(len(ending)) == ending


def test_trailers_that_may_not_be_sent_raise(serve: Serve, log: Log) -> None:
    """For every client, whether it takes trailers or not; and without the last the body is cut."""
    raised: list[str] = []

    async def wrong(_: Scope, __: Receive, send: Send) -> None:
        async def attempt(message: Any) -> None:
            try:
                await send(message)
            except Exception as error:
                raised.append(f"{type(error).__name__}: {error}")
            else:
                raised.append("nothing was raised")

        await send(promising())
        await attempt(trailers((b"x-a", b"1")))
        await send(body(b"ok"))
        await attempt(trailers((b"content-length", b"2")))
        await attempt(trailers((b"Set-Cookie", b"a=b")))
        await attempt(trailers((b"transfer-encoding", b"chunked"), (b"trailer", b"x")))
        await attempt(trailers((b"x-a", b"1\r\nx: y")))
        await attempt(body(b"more"))
        await send(trailers((b"x-a", b"2")))

    async def unpromised(_: Scope, __: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"ok", more=True))
        await send(trailers((b"x-a", b"1")))

    async def missing(_: Scope, __: Receive, send: Send) -> None:
        await send(promising())
        await send(body(b"ok"))

    served = serve(routed(wrong=wrong, unpromised=unpromised, missing=missing))
    with Failures() as failures:
        for te in ("TE: trailers", "TE: gzip"):
            raised.clear()
            client = served.request("/wrong", headers=[te])
            with failures.of(te):
                if te == "TE: trailers":
                    same((client.head().status, client.chunk()), (200, b"ok"))
                    same(client.read(13), b"0\r\nx-a: 2\r\n\r\n")
                else:
                    same(client.response().text, "ok")
                served.until_idle()
                for each, said in zip(
                    raised,
                    [
                        "http.response.trailers must come after the body",
                        "'content-length' may not be a trailer",
                        "'Set-Cookie' may not be a trailer",
                        "'trailer' belongs to the connection",
                        "control character '\\r'",
                        "the body has ended" if te == "TE: trailers" else "the response has ended",
                    ],
                    strict=True,
                ):
                    assert each.startswith("LocalProtocolError: ")
                    assert said in each, each
    assert not served.get("/unpromised", headers=["TE: trailers"]).complete
    assert "did not have trailers: True" in str(log.failure().exc_info)
    assert not served.get("/missing", headers=["TE: trailers"]).complete
    log.take("http.response.trailers without more_trailers is missing")
    assert served.get("/missing").text == "ok"


@pytest.mark.parametrize("te", ["TE: trailers", "TE: gzip"])
def test_a_file_has_no_trailers(serve: Serve, tmp_path: Any, te: str) -> None:
    """It ends the response; trailers that come then are dropped."""
    path = tmp_path / "file"
    path.write_bytes(b"content")

    async def file(_: Scope, __: Receive, send: Send) -> None:
        await send(promising())
        await send({"type": "http.response.pathsend", "path": str(path)})
        await send(trailers((b"x-a", b"1")))

    response = serve(routed(file=file)).get("/file", headers=[te])
    assert (response.header("Content-Length"), response.body) == ("7", b"content")
