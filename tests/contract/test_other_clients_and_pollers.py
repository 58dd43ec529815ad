"""The same server to a real HTTP client, and on a system that has no epoll."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bide.serving.server
from bide import wait
from bide.transports.poller import LoopPoller
from tests.conftest import Serve
from tests.contract import test_departure, test_file_wrapper, test_input, test_pep3333, test_push
from tests.served import Environ, Gate, answering
from tests.served import request as a_request


def echo(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Send back each block of the body as it comes, in upper case."""
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    while block := environ["wsgi.input"].readline():
        yield block.upper()


def test_httpx_makes_requests_of_every_kind_on_one_connection(serve: Serve) -> None:
    """GET, HEAD, POST with a length, POST in chunks; kept alive from one to the next."""
    ports: set[str] = set()

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        ports.add(environ["REMOTE_PORT"])
        return echo(environ, start_response)

    with serve(application).http() as client:
        assert client.get("/").text == ""
        assert client.head("/").status_code == 200
        assert client.post("/", content="öne\ntwo").text == "öNE\nTWO"
        assert client.post("/", content=iter([b"one\n", b"two\n", b""])).text == "ONE\nTWO\n"
        assert client.get("/" + "x" * 4000, params={"a": "b c"}).status_code == 200
    assert len(ports) == 1


def test_httpx_streams_both_ways(serve: Serve) -> None:
    """Each line comes back while the request is still being sent."""
    gates = [Gate() for _ in range(3)]

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for number, gate in enumerate(gates):
            yield b"%d\n" % number
            wait(gate.promise())

    with serve(application).http() as client, client.stream("GET", "/") as response:
        lines = response.iter_lines()
        for number, gate in enumerate(gates):
            assert next(lines) == str(number)
            gate.open()
        assert list(lines) == []


def test_httpx_is_refused_nothing_that_it_sends(serve: Serve) -> None:
    """Its own way with expectations, redirects, cookies and encodings."""

    def answer(environ: Environ) -> str:
        return f"{environ['HTTP_COOKIE']} {environ['HTTP_ACCEPT_ENCODING']}"

    with serve(answering(answer)).http() as client:
        client.cookies.set("a", "1")
        client.cookies.set("b", "2")
        assert client.get("/").text.startswith("a=1; b=2 gzip")


WITHOUT_EPOLL: list[Callable[..., None]] = [
    test_pep3333.test_each_block_is_sent_before_the_next_is_asked_for,
    test_pep3333.test_an_unread_body_does_not_end_the_connection,
    test_input.test_memory_is_bounded_by_a_window,
    test_input.test_reading_waits_and_holds_no_thread,
    test_push.test_write_in_a_request_parks_while_the_client_is_behind,
    test_push.test_write_in_a_thread_waits_while_the_client_is_behind,
    test_departure.test_a_half_closed_client_is_still_written_to,
    test_departure.test_departures_are_no_failures_of_the_application,
]


@pytest.mark.parametrize("test", WITHOUT_EPOLL, ids=lambda test: test.__name__)
def test_without_epoll(
    request: pytest.FixtureRequest,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    test: Callable[..., None],
) -> None:
    """The loop watches each socket itself: slow readers, slow writers, departures."""
    monkeypatch.setattr(bide.serving.server, "make_poller", LoopPoller)
    names = test.__code__.co_varnames[: test.__code__.co_argcount]
    test(**{name: request.getfixturevalue(name) for name in names})


def test_a_file_without_epoll(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """To a slow reader, from the kernel."""
    monkeypatch.setattr(bide.serving.server, "make_poller", LoopPoller)
    path = tmp_path / "large"
    path.write_bytes(b"x" * test_file_wrapper.SIZE)
    served = serve(test_file_wrapper.serving(lambda: path.open("rb")), threads=1)
    client = served.connect(window=4096)
    client.send(a_request())
    served.until_waiting(1)
    assert client.response().body == path.read_bytes()
