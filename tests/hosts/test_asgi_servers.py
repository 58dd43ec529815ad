"""``bide.hosts.asgi`` under real ASGI servers: what it makes work, it makes work under each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import tables
from tests.hosts.asgi_conversations import ROWS, STOP, converse, stops
from tests.hosts.asgi_hosts import SERVERS, Host

RIGHT = {
    "A block reaches the client before the next is made": "yes",
    "Requests that wait at once, of 200": "200",
    "Threads that have run the application by then": "4 at most",
    "A departure is noticed while the application waits": "yes",
    "`close()` is called": "yes",
    "An error before the head": "500",
    "HEAD, 204 and 304 have no body": "yes",
    "PATH_INFO, of bytes that are not UTF-8, too": "yes",
    "`bide.websocket`: 100 sockets wait on 4 threads": "yes",
    "`write()`": "yes",
    "Push: `write` and `finish`": "yes",
    "Promises in the iterable": "yes",
}
STREAMS = {
    "A slow client: the application is asked for no more": "yes",
    "An upload is read as it comes": "yes",
    "A slow application: the upload stops": "yes",
    "An error after the head: what the client sees": "a cut",
}
"""Daphne takes everything into memory, and leaves the connection of a cut response open."""


def right(server: str) -> dict[str, str]:
    """What comes of the conversations under a server, where that is up to Bide."""
    return RIGHT if server == "daphne" else {**RIGHT, **STREAMS}


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """Run the server that the test names."""
    host = Host(request.param, tmp_path)
    try:
        host.ready()
        yield host
    finally:
        host.close()


@pytest.mark.parametrize("host", SERVERS, indirect=True)
def test_what_an_application_may_do_it_may_under_every_server(host: Host) -> None:
    """What a server does by itself is in the tables of the page only."""
    expected = right(host.name)
    assert converse(host, expected) == expected
    if host.name == "uvicorn":  # the others wait for the client, or kill what waits
        assert stops([host]) == {host.name: "yes"}


def test_the_page_has_every_conversation_with_every_server() -> None:
    """And says of what Bide does what the tests check. ``make hosts-table`` writes it."""
    page = tables.documented("asgi servers")
    for server in SERVERS:
        expected = right(server)
        assert {row: page[server, row] for row in expected} == expected
        for row in (*ROWS, STOP):
            assert page[server, row]
