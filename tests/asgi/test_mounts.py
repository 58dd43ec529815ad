"""Several applications in one server: which of them a request is for, and what it finds there."""

from typing import Any

import bide
from bide.testing import LiveServer
from tests.asgi.sites import Receive, Scope, Send, answer
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import Log, answering, request


def wsgi(name: str) -> Any:
    """Return a WSGI application that answers where it was found."""
    return answering(lambda environ: f"{name} {environ['SCRIPT_NAME']} {environ['PATH_INFO']}")


def asgi(name: str) -> Any:
    """Return an ASGI application that does."""

    async def application(scope: Scope, _: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        raw = scope["raw_path"].decode()
        await answer(send, f"{name} {scope['root_path']} {scope['path']} {raw}".encode())

    return application


def test_a_request_goes_to_the_longest_path_that_fits(serve: Serve) -> None:
    """By segments as they were sent; an encoded slash does not end one."""
    served = serve(
        bide.mount(
            {
                "/": wsgi("root"),
                "/live": asgi("live"),
                "/live/deep/er": wsgi("deeper"),
                "/café": asgi("café"),
            }
        ),
        executor="loop",
    )
    client = served.connect()
    with Failures() as failures:
        for path, expected in {
            "/": "root  /",
            "/other": "root  /other",
            "/live": "live /live /live /live",
            "/live/": "live /live /live/ /live/",
            "/live/deep": "live /live /live/deep /live/deep",
            "/live/deep/er": "deeper /live/deep/er ",
            "/live/deep/er/x": "deeper /live/deep/er /x",
            "/live/deep/ers": "live /live /live/deep/ers /live/deep/ers",
            "/l%69ve/a%2Fb": "live /live /live/a/b /l%69ve/a%2Fb",
            "/live%2Fdeep": "root  /live/deep",
            "/lively": "root  /lively",
            "//live": "root  //live",
            "/live//x": "live /live /live//x /live//x",
            "/caf%C3%A9/x": "café /café /café/x /caf%C3%A9/x",
            "/Live": "root  /Live",
        }.items():
            with failures.of(path):
                client.send(request(path))
                same(client.response().body.decode("utf-8"), expected)
        with failures.of("*"):
            client.send(request("*", method="OPTIONS"))
            same(client.response().text, "root  ")


def test_a_path_that_nothing_is_mounted_at_is_not_found(serve: Serve) -> None:
    """The server answers, and the others go on."""
    served = serve(bide.mount({"/live": asgi("live")}))
    assert served.get("/other").status == 404
    assert served.get("/live").text == "live /live /live /live"


def test_all_have_one_status_and_one_end(serve: Serve, log: Log) -> None:
    """Each request is shown with its application; a WSGI one finds the counts of all."""
    found: list[Any] = []

    async def live(scope: Scope, receive: Receive, _: Send) -> None:
        assert scope["type"] == "http"
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    def counts(environ: Any) -> str:
        found.append((environ["bide.status"](), bide.status().requests))
        return "counted"

    served = serve(bide.mount({"/": answering(counts), "/live": live}), graceful_timeout=0.1)
    client = served.request("/live")
    served.until_waiting(1)
    assert served.get("/").text == "counted"
    [(status, requests)] = found
    assert (status.running, status.waiting, status.threads_max) == (1, 1, 4)
    assert [each.state for each in requests] == ["running", "waiting"]
    assert requests[1].waits_for == "Future"
    served.begin_stop()
    assert client.response().status == 503
    served.join()
    log.take("1 requests have not ended in time")


def test_mounts_are_served_in_tests_too() -> None:
    """By ``LiveServer``; a text is imported."""
    with LiveServer(bide.mount({"/a": asgi("a"), "/b": "tests.asgi.site:app"})) as server:
        import httpx

        assert httpx.get(f"{server.url}/a/x").text == "a /a /a/x /a/x"
        assert httpx.get(f"{server.url}/b/x").text == "b /b /x"
