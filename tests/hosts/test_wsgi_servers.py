"""``bide.blocking`` under real WSGI servers: one conversation table, and the page that has it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.hosts.wsgi_hosts import COMMANDS, PROJECT, Host, uwsgi

PAGE: Final = PROJECT / "docs" / "hosts.md"
MARK: Final = re.compile(r"(<!-- wsgi servers -->\n)(.*?)(<!-- end -->)", re.DOTALL)
"""The table of the page; BIDE_WRITE_TABLES=1 has the test write it."""

NO_UWSGI: Final = "uWSGI is not installed: pip install uwsgi, which needs a C compiler"

ROWS: Final[dict[str, Callable[[Host], str]]] = {
    "Promises in the iterable": lambda host: host.right("/promises"),
    "`wait` in ordinary code": lambda host: host.right("/waits"),
    "A coroutine function": lambda host: host.right("/coroutine"),
    "An async generator": lambda host: host.right("/generator"),
    "`write()`": lambda host: host.right("/writes"),
    "Push: `write` and `finish`": lambda host: host.right("/pushes"),
    "Empty blocks before `start_response`": lambda host: host.right("/late", status=504),
    "HEAD has no body": lambda host: host.right("/promises", method="HEAD"),
    "204 has no body": lambda host: host.right("/nothing", status=204),
    "An error before the head": lambda host: host.status("/fails"),
    "A block reaches the client before the next is made": lambda host: host.streams(),
    "A departure is noticed while the application waits": lambda host: host.departure(),
    "An error after the head: what the client sees": lambda host: host.end("/cut"),
    "The same, with a Content-Length": lambda host: host.end("/cut-with-length"),
    "The same, to HTTP/1.0": lambda host: host.end("/cut", version="1.0"),
    "*Without Bide:* promises in the iterable": lambda host: host.right("/plain/promises"),
    "*Without Bide:* a coroutine function": lambda host: host.right("/plain/coroutine"),
    "*Without Bide:* an async generator": lambda host: host.right("/plain/generator"),
    "*Without Bide:* `write()`": lambda host: host.right("/plain/writes"),
    "*Without Bide:* empty blocks before `start_response`": lambda host: host.right(
        "/plain/late", status=504
    ),
}
SLOW: Final = "A slow client: the application is asked for no more"
CLOSED: Final = "A client that leaves in the middle: `close()` is called"

WORKS: Final = list(ROWS)[:9]
"""What works everywhere, whatever the server."""

Table = dict[str, dict[str, str]]


def converse(name: str, directory: Path) -> dict[str, str]:
    """Start a server, make every conversation, and end it; give what came of each."""
    host = Host(name, directory)
    try:
        host.ready()
        cells = {row: say(host) for row, say in ROWS.items()}
        cells[SLOW], cells[CLOSED] = host.bounded()
        return cells
    finally:
        host.close()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """Give what came of every conversation under every server that is installed."""
    names = [name for name in COMMANDS if uwsgi() or not name.startswith("uWSGI")]
    directory = tmp_path_factory.mktemp("wsgi")
    with ThreadPoolExecutor(4) as pool:
        columns = pool.map(lambda name: converse(name, directory), names)
        yield dict(zip(names, columns, strict=True))


def cell_of(table: Table, name: str, row: str) -> str:
    """Give a cell; skips the test where the server is not installed."""
    if name not in table:
        pytest.skip(NO_UWSGI)
    return table[name][row]


@pytest.mark.parametrize("row", WORKS)
@pytest.mark.parametrize("name", [each for each in COMMANDS if "without" not in each])
def test_what_an_application_may_do_it_may_under_every_server(
    table: Table, name: str, row: str
) -> None:
    """The iterable is a plain one: the server needs nothing for it."""
    assert cell_of(table, name, row) == "yes"


@pytest.mark.parametrize("name", COMMANDS)
def test_an_error_before_the_head_is_no_answer_of_the_application(table: Table, name: str) -> None:
    """The server's own 500; uWSGI closes the connection."""
    expected = "no answer" if name.startswith("uWSGI") else "500"
    assert cell_of(table, name, "An error before the head") == expected


def test_uwsgi_without_threads_refuses_in_place_of_hanging(table: Table) -> None:
    """Nothing that is waited for could go on there."""
    for row in WORKS:
        assert cell_of(table, "uWSGI without threads", row) == "no answer"


def test_the_page_has_the_table(table: Table) -> None:
    """Made by this very run: BIDE_WRITE_TABLES=1 writes it."""
    text = PAGE.read_text()
    if os.environ.get("BIDE_WRITE_TABLES"):
        assert uwsgi(), NO_UWSGI
        lines = ["| | " + " | ".join(table) + " |", "|---" * (len(table) + 1) + "|"]
        for row in [*ROWS, SLOW, CLOSED]:
            cells = [table[name][row] for name in table]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        text = MARK.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[3], text)
        PAGE.write_text(text)
    found = MARK.search(text)
    assert found is not None
    head, _, *rows = (line.strip("|").split("|") for line in found[2].splitlines())
    names = [name.strip() for name in head[1:]]
    assert names == list(COMMANDS)
    page: Table = {name: {} for name in names}
    for row, *cells in rows:
        for name, cell in zip(names, cells, strict=True):
            page[name][row.strip()] = cell.strip()
    for name, column in table.items():
        for row, cell in column.items():
            # granian closes the connection before or after it has sent what it has.
            either = {"a cut", "no answer"} if name == "granian" else {cell}
            assert page[name][row] == cell or {page[name][row], cell} == either, (name, row, cell)
