"""Django and FastAPI with one pool, over a real server, in a process of its own."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.live.processes import PROGRAM, Program
from tests.served import DEADLINE

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """Serve the example on one thread for all; it ends in order."""
    arguments = ["examples.shared_pool.app:app", "--bind", "127.0.0.1:0", "--threads", "1"]
    program = Program(
        [*PROGRAM, *arguments],
        ROOT,
        # Other people's packages warn of each other.
        PYTHONWARNINGS="default",
        PRICES_DIRECTORY=str(tmp_path),
    )
    try:
        url = f"http://{program.serving()}"
        with httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False) as client:
            yield client
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert not [line for line in program.lines if "ERROR" in line]
    finally:
        program.close()


def test_what_one_application_writes_the_other_reads_by_the_same_pool(
    client: httpx.Client,
) -> None:
    """And many at once have two connections and one thread."""
    assert "<p>250 cents</p>" in client.get("/tea").text
    assert client.put("/api/prices/tea", params={"cents": 275}).json() == {"cents": 275}
    assert "<p>275 cents</p>" in client.get("/tea").text
    assert client.get("/api/prices/coffee").json() == {"cents": 300}
    assert '<li><a href="/tea">tea</a></li>' in client.get("/").text
    assert client.get("/milk").status_code == client.get("/api/prices/milk").status_code == 404
    assert "/api/openapi.json" in client.get("/api/docs").text
    with ThreadPoolExecutor(20) as people:
        paths = ["/tea", "/api/prices/tea"] * 20
        assert {answer.status_code for answer in people.map(client.get, paths)} == {200}
    pool = client.get("/api/pool").json()
    assert pool["size"] == 2
    assert 1 <= pool["most"] <= 2
