"""Other people's clients get from Bide what they came for."""

from collections.abc import Iterator

import pytest

from tests.clients.asking import Ask
from tests.clients.conftest import Visit
from tests.clients.site import BLOCK, LARGE, MANY, Site
from tests.conftest import Serve
from tests.served import until


def test_get_gives_status_headers_and_body(serve: Serve, visit: Visit) -> None:
    """The first thing of all; with a header that is not ASCII, as its bytes."""
    [answer] = visit(serve(Site())).ask(Ask("/"))
    assert (answer.status, answer.body) == (200, b"hello\n")
    assert answer.headers["content-length"] == "6"
    assert answer.headers["content-type"] == "text/plain"
    assert "x-name" in answer.headers
    assert answer.headers["date"].endswith(" GMT")


def test_a_target_comes_as_it_was_sent(serve: Serve, visit: Visit) -> None:
    """What clients leave encoded and what they encode is decoded once."""
    [answer] = visit(serve(Site())).ask(Ask("/echo/a%20b%2Fc;d,e~f"))
    assert answer.body == b"GET /echo/a b/c;d,e~f "


def test_head_gives_the_headers_of_get_and_no_body(serve: Serve, visit: Visit) -> None:
    """And the connection goes on: no client waits for a body, or takes the next answer for it."""
    site = Site()
    head, get = visit(serve(site)).ask(Ask("/", "HEAD"), Ask("/"))
    assert (head.status, head.body, get.body) == (200, b"", b"hello\n")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert site.connections == 1


@pytest.mark.parametrize("size", [1, 1000, 3_000_000])
def test_a_body_with_its_length_arrives(serve: Serve, visit: Visit, size: int) -> None:
    """Of the large one curl asks first whether it may come."""
    body = b"%d" % size * (size // len(b"%d" % size))
    [answer] = visit(serve(Site())).ask(Ask("/echo", "POST", body=body))
    assert answer.headers["x-length"] == str(len(body))
    assert answer.body == b"POST /echo " + body


def test_a_body_in_chunks_arrives(serve: Serve, visit: Visit) -> None:
    """Whatever pieces the client makes of it."""
    pieces = [b"one ", b"two " * 10_000, b"three"]
    [answer] = visit(serve(Site())).ask(Ask("/echo", "POST", pieces=pieces))
    assert answer.headers["x-length"] == "none"
    assert answer.body == b"POST /echo " + b"".join(pieces)


def test_a_put_and_a_delete_with_a_body_are_framed_too(serve: Serve, visit: Visit) -> None:
    """No method says whether there is a body; the next request is not read out of it."""
    site = Site()
    answers = visit(serve(site)).ask(
        Ask("/echo", "PUT", body=b"GET / HTTP/1.1\r\n\r\n"),
        Ask("/unread", "DELETE", body=b"GET / HTTP/1.1\r\n\r\n"),
        Ask("/echo", "PATCH", body=b"x"),
    )
    assert [answer.status for answer in answers] == [200, 413, 200]
    assert answers[0].body == b"PUT /echo GET / HTTP/1.1\r\n\r\n"
    assert [method for method, _, _ in site.visits] == ["PUT", "DELETE", "PATCH"]
    assert site.connections == 1


def test_204_and_304_have_no_body_and_the_connection_goes_on(serve: Serve, visit: Visit) -> None:
    """A client that saw a length or a chunk there would hang, or misread what comes next."""
    site = Site()
    asks = [Ask("/204"), Ask("/304", headers={"If-None-Match": '"1"'}), Ask("/204"), Ask("/")]
    answers = visit(serve(site)).ask(*asks)
    assert [answer.status for answer in answers] == [204, 304, 204, 200]
    assert [answer.body for answer in answers] == [b"", b"", b"", b"hello\n"]
    assert site.connections == 1


def test_many_requests_go_over_one_connection(serve: Serve, visit: Visit) -> None:
    """Kept alive by both, whatever their kind; each answer is its own."""
    site = Site()
    asks = [
        Ask(path, "POST" if number % 2 else "GET", body=b"x" * number if number % 2 else None)
        for number, path in enumerate(MANY)
    ]
    answers = visit(serve(site)).ask(*asks)
    assert [answer.body for answer in answers] == [
        f"{ask.method} {ask.path} ".encode() + (ask.body or b"") for ask in asks
    ]
    assert site.connections == 1


def test_connection_close_is_honoured(serve: Serve, visit: Visit) -> None:
    """The answer is whole, the connection is closed, the next request takes another one."""
    site = Site()
    served = serve(site)
    first, second = visit(served).ask(Ask("/", headers={"Connection": "close"}), Ask("/"))
    assert first.headers["connection"] == "close"
    assert (first.body, second.body) == (b"hello\n", b"hello\n")
    assert site.connections == 2


@pytest.mark.parametrize("visit", ["curl", "aiohttp", "h11"], indirect=True)
def test_a_client_that_asks_first_is_told_to_continue(serve: Serve, visit: Visit) -> None:
    """By the application's read; these clients wait for it before they send the body."""
    ask = Ask("/echo", "POST", {"Expect": "100-continue"}, body=b"x" * 1000)
    site = Site()
    visitor = visit(serve(site))
    answers = visitor.ask(ask, ask)
    for answer in answers:
        assert answer.body == b"POST /echo " + b"x" * 1000
    assert site.connections == 1


@pytest.mark.parametrize("visit", ["curl", "h11"], indirect=True)
def test_a_client_that_asks_first_sees_100_once_and_only_when_the_body_is_read(
    serve: Serve, visit: Visit
) -> None:
    """Else the final answer comes at once, and a client that waits sends no byte of the body."""
    ask = Ask("/echo", "POST", {"Expect": "100-continue"}, body=b"x" * 1000)
    visitor = visit(serve(Site()))
    assert visitor.ask(ask)[0].interim == [100]
    ask.path = "/unread"
    [answer] = visitor.ask(ask)
    assert (answer.status, answer.interim, answer.body) == (413, [], b"too large for me")


@pytest.mark.parametrize("visit", ["httpx", "urllib3", "http.client"], indirect=True)
def test_a_client_that_does_not_wait_to_be_told_is_understood(serve: Serve, visit: Visit) -> None:
    """It may send the body at once (RFC 9110 section 10.1.1), and skips a 100 that comes."""
    ask = Ask("/echo", "POST", {"Expect": "100-continue"}, body=b"x" * 100_000)
    for answer in visit(serve(Site())).ask(ask, ask):
        assert answer.body == b"POST /echo " + b"x" * 100_000


def test_each_piece_arrives_before_the_next_is_made(serve: Serve, visit: Visit) -> None:
    """Server-sent events: the application waits until the client has the piece before."""
    site = Site()
    served = serve(site)
    visitor = visit(served)
    with visitor.stream("/events") as pieces:
        for number, gate in enumerate(site.gates):
            assert next(pieces) == b"data: %d\n\n" % number
            served.until_waiting(1)
            gate.open()
        assert list(pieces) == []


def test_each_piece_of_a_body_is_there_before_the_next_is_sent(serve: Serve, visit: Visit) -> None:
    """An upload that takes its time: the application has each line while the client is at it."""
    site = Site()
    served = serve(site)

    def pieces() -> Iterator[bytes]:
        for line in (b"one\n", b"two\n", b"three\n"):
            yield line
            until(lambda line=line: site.lines[-1:] == [line])  # type: ignore[misc]

    [answer] = visit(served).ask(Ask("/pieces", "POST", pieces=pieces()))
    assert answer.body == b"ONE\nTWO\nTHREE\n"


@pytest.mark.parametrize("query", ["length", "chunks"])
def test_a_large_download_arrives_whole_and_as_it_is(
    serve: Serve, visit: Visit, query: str
) -> None:
    """Every byte, and not compressed, though most clients offer gzip."""
    [answer] = visit(serve(Site())).ask(Ask(f"/large?{query}"))
    assert "content-encoding" not in answer.headers
    assert ("content-length" in answer.headers) == (query == "length")
    assert answer.body == BLOCK * (LARGE // len(BLOCK))


def test_a_download_is_left_in_the_middle_and_the_next_request_is_answered(
    serve: Serve, visit: Visit
) -> None:
    """The rest of it answers nothing; the iterable is closed, once."""
    site = Site()
    served = serve(site)
    visitor = visit(served)
    with visitor.stream("/endless") as pieces:
        assert next(pieces)[:256] == BLOCK[:256]
    [answer] = visitor.ask(Ask("/"))
    assert answer.body == b"hello\n"
    served.until_idle()
    assert site.endless is not None
    assert site.endless.count == 1


@pytest.mark.parametrize("visit", ["curl", "httpx", "aiohttp", "urllib3"], indirect=True)
def test_redirects_are_followed(serve: Serve, visit: Visit) -> None:
    """By clients that do: with another method, or with the same body once more."""
    site = Site()
    visitor = visit(serve(site))
    [found] = visitor.ask(Ask("/found", follow=True))
    assert (found.status, found.body) == (200, b"GET /echo/found ")
    [same] = visitor.ask(Ask("/same", "POST", body=b"x" * 1000, follow=True))
    assert (same.status, same.body) == (200, b"POST /echo/same " + b"x" * 1000)
    assert len(site.visits) == 4


@pytest.mark.parametrize("visit", ["curl", "aiohttp"], indirect=True)
def test_http_1_0_is_spoken(serve: Serve, visit: Visit) -> None:
    """No chunks to it, a body with its length, and the connection's end is the response's."""
    visitor = visit(serve(Site()))
    [answer] = visitor.ask(Ask("/", version="1.0"))
    assert (answer.status, answer.body) == (200, b"hello\n")
    [answer] = visitor.ask(Ask("/echo", "POST", body=b"x" * 3000, version="1.0"))
    assert answer.body == b"POST /echo " + b"x" * 3000
    [answer] = visitor.ask(Ask("/large?chunks", version="1.0"))
    assert "transfer-encoding" not in answer.headers
    assert len(answer.body) == LARGE
