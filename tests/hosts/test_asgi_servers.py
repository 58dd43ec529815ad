"""Under the real ASGI servers, and beside the other adapters: what ``docs/hosts.md`` says is so."""

import pytest

from tests.hosts.asgi_conversations import (
    ROWS,
    STOP,
    TABLES,
    Cells,
    documented,
    measure,
)

DOCUMENTED = documented()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """Give what came of every conversation with every host, all of them running at once."""
    return measure(DOCUMENTED, tmp_path_factory.mktemp("hosts"))


@pytest.mark.parametrize(("host", "row"), DOCUMENTED)
def test_a_host_does_what_the_page_says(measured: Cells, host: str, row: str) -> None:
    """What it cannot do, too: a reader must be able to choose."""
    assert measured[host, row] == DOCUMENTED[host, row]


def test_every_conversation_is_in_the_page() -> None:
    """With every server; and whatever Bide can do is there."""
    assert {row for _, row in DOCUMENTED} == {*ROWS, STOP}
    for column in TABLES["servers"].values():
        assert all((column, row) in DOCUMENTED for row in ROWS)
    for name in ("uvicorn", "hypercorn", "granian"):
        assert DOCUMENTED[name, "A departure is noticed while the application waits"] == "yes"
