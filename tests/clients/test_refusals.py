"""What Bide refuses, gives up or cuts is understood by other people's clients.

None takes it for success, none hangs, and each is served again afterwards.
"""

import threading
from collections.abc import Iterator

import pytest

from tests.clients.asking import Ask, BrokenError
from tests.clients.conftest import Visit
from tests.clients.site import Site
from tests.conftest import Serve
from tests.served import LONG, Environ, Log, answering, happened, until

UPLOAD = b"x" * 4_000_000
"""More than is read of a body that nobody wants (``limit_discard``)."""


@pytest.mark.parametrize("query", ["length", "chunks"])
def test_a_response_that_is_cut_is_an_error(
    serve: Serve, visit: Visit, log: Log, query: str
) -> None:
    """Framed either way; what came of it is not passed on as all of it."""
    visitor = visit(serve(Site()))
    with pytest.raises(BrokenError):
        visitor.ask(Ask(f"/cut?{query}"))
    log.failure()
    assert visitor.ask(Ask("/"))[0].body == b"hello\n"


def test_a_stream_that_is_cut_is_an_error(serve: Serve, visit: Visit, log: Log) -> None:
    """Also to a client that takes it piece by piece; aiohttp may tell of the end first."""
    with visit(serve(Site())).stream("/cut?chunks") as pieces:
        received: list[bytes] = []
        with pytest.raises(BrokenError):
            received.extend(pieces)
        assert (b"x" * 500).startswith(b"".join(received))
    log.failure()


@pytest.mark.parametrize("visit", ["curl"], indirect=True)
def test_a_response_to_http_1_0_that_is_cut_is_an_error(
    serve: Serve, visit: Visit, log: Log
) -> None:
    """Its end would be the connection's end; so the connection is reset.

    aiohttp 3.14 takes a reset for the end of such a response, whoever sends it.
    """
    visitor = visit(serve(Site()))
    with pytest.raises(BrokenError):
        visitor.ask(Ask("/cut", version="1.0"))
    log.failure()


def test_a_response_that_a_stop_cuts_is_an_error(serve: Serve, visit: Visit, log: Log) -> None:
    """At the end of the graceful time a stream ends, and not as if that had been all."""
    served = serve(Site(), graceful_timeout=0.0)
    with visit(served).stream("/events") as pieces:
        assert next(pieces) == b"data: 0\n\n"
        served.until_waiting(1)
        served.begin_stop()
        with pytest.raises(BrokenError):
            next(pieces)
    served.join()
    log.take("1 requests have not ended in time")


def test_an_upload_that_is_not_read_is_answered(serve: Serve, visit: Visit) -> None:
    """The answer comes early, is not lost in a reset, and says that the connection ends with it."""
    visitor = visit(serve(Site(), linger_timeout=15.0))
    [answer] = visitor.ask(Ask("/unread", "POST", body=UPLOAD))
    assert (answer.status, answer.body) == (413, b"too large for me")
    assert answer.headers["connection"] == "close"
    assert visitor.ask(Ask("/"))[0].body == b"hello\n"


def test_an_upload_in_chunks_that_is_not_read_is_answered(serve: Serve, visit: Visit) -> None:
    """That it is too long to be taken to its end shows behind the answer: the next one connects."""
    served = serve(Site(), linger_timeout=15.0)
    [answer] = visit(served).ask(Ask("/unread", "POST", pieces=[UPLOAD[:1_000_000]] * 4))
    assert (answer.status, answer.body) == (413, b"too large for me")
    assert visit(served).ask(Ask("/"))[0].body == b"hello\n"


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_above_the_limit_is_answered_413(
    serve: Serve, visit: Visit, chunked: bool
) -> None:
    """By its length before the application is asked, or when its chunks come to more."""
    site = Site()
    ask = Ask("/echo", "POST", body=UPLOAD)
    if chunked:
        ask = Ask("/echo", "POST", pieces=[UPLOAD[:1_000_000]] * 4)
    visitor = visit(serve(site, limit_body=1_500_000, linger_timeout=15.0))
    [answer] = visitor.ask(ask)
    assert answer.status == 413
    assert len(site.visits) == (1 if chunked else 0)
    assert visitor.ask(Ask("/echo", "POST", body=b"x" * 1_500_000))[0].status == 200


def test_an_upload_that_stalls_is_answered_408(serve: Serve, visit: Visit) -> None:
    """The client has sent a part, and sends the rest when it is too late."""
    served = serve(Site(), idle_timeout=LONG, linger_timeout=15.0)

    def pieces() -> Iterator[bytes]:
        yield b"begun"
        served.until_waiting(1)
        # Not just once: what was sent above may still be on its way.
        served.advance_until(lambda: not served.status.waiting, LONG)
        served.until_idle()
        yield b" and finished"

    visitor = visit(served)
    [answer] = visitor.ask(Ask("/echo", "POST", pieces=pieces()))
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert visitor.ask(Ask("/"))[0].body == b"hello\n"


REFUSED = {
    "400": (Ask("/", headers={"Host": "a b"}), 400),
    "414": (Ask("/" + "x" * 10_000), 414),
    "417": (Ask("/", "POST", {"Expect": "a miracle"}, body=b"x"), 417),
    "431 for a large head": (Ask("/", headers={"X-Large": "x" * 70_000}), 431),
    "431 for many": (Ask("/", headers={f"X-{number}": "x" for number in range(200)}), 431),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_refused_request_is_understood(serve: Serve, visit: Visit, case: str) -> None:
    """The status and a sentence; the connection is closed, and the next one serves."""
    ask, status = REFUSED[case]
    site = Site()
    visitor = visit(serve(site))
    [answer] = visitor.ask(ask)
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert answer.body.endswith(b"\n")
    assert not site.visits
    assert visitor.ask(Ask("/"))[0].body == b"hello\n"


@pytest.mark.parametrize("executor", ["threads"])
def test_a_server_with_all_threads_busy_is_understood(serve: Serve, visit: Visit) -> None:
    """503 with Retry-After on a connection that goes on, and a good answer when there is one."""
    begun, release = threading.Event(), threading.Event()
    ports: list[str] = []

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/busy":
            begun.set()
            happened(release)
        else:
            ports.append(environ["REMOTE_PORT"])
        return "served"

    served = serve(answering(answer), threads=1, queue=0)
    busy = served.request("/busy")
    happened(begun)
    visitor = visit(served)
    try:
        for refused in visitor.ask(Ask("/"), Ask("/", "POST", body=b"x")):
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert "connection" not in refused.headers
    finally:
        release.set()
    assert busy.response().body == b"served"
    served.until_idle()
    until(lambda: visitor.ask(Ask("/"))[0].body == b"served")
