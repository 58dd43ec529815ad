"""``bide.blocking`` under real WSGI servers: what it makes work, it makes work under each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import tables
from tests.hosts.wsgi_conversations import CLOSED, SERVERS, SLOW, WORKS
from tests.hosts.wsgi_hosts import COMMANDS, NO_UWSGI, Host, uwsgi
from tests.served import DEADLINE

ERROR = "An error before the head"
WITHOUT_THREADS = "uWSGI without threads"


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """Run the server that the test names."""
    if request.param.startswith("uWSGI") and not uwsgi():
        pytest.skip(NO_UWSGI)
    host = Host(request.param, tmp_path, patience=DEADLINE)
    try:
        host.ready()
        yield host
    finally:
        host.close()


@pytest.mark.parametrize(
    "host", [each for each in COMMANDS if each != WITHOUT_THREADS], indirect=True
)
def test_what_an_application_may_do_it_may_under_every_server(host: Host) -> None:
    """The iterable is a plain one, so the server needs nothing for it; errors stay the server's."""
    rows = {**WORKS, ERROR: SERVERS[ERROR]}
    # uWSGI closes the connection where others answer.
    error = "no answer" if host.name == "uWSGI" else "500"
    assert {row: say(host) for row, say in rows.items()} == {
        **dict.fromkeys(WORKS, "yes"),
        ERROR: error,
    }


@pytest.mark.parametrize("host", [WITHOUT_THREADS], indirect=True)
def test_uwsgi_without_threads_refuses_in_place_of_hanging(host: Host) -> None:
    """Nothing that is waited for could go on there."""
    assert {row: say(host) for row, say in WORKS.items()} == dict.fromkeys(WORKS, "no answer")


def test_the_page_has_every_conversation_with_every_server() -> None:
    """And says of what Bide does what the tests check. ``make hosts-table`` writes it."""
    page = tables.documented("wsgi servers")
    for name in COMMANDS:
        right = "no answer" if name == WITHOUT_THREADS else "yes"
        assert {row: page[name, row] for row in WORKS} == dict.fromkeys(WORKS, right)
        for row in (*SERVERS, SLOW, CLOSED):
            assert page[name, row]
