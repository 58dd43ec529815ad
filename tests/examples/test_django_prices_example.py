"""The Django project that asks slow sellers, over a real server, in a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.served import DEADLINE

ROOT = Path(__file__).parent.parent.parent
START = """
from examples.django_prices import wsgi, views
import bide
views.SECONDS = 0.1
bide.run(wsgi.application, bind="127.0.0.1:0", threads=1)
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Serve the example, with sellers that dawdle less, on one thread for all."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    process = subprocess.Popen(
        [sys.executable, "-c", START],
        cwd=ROOT,
        env={**env, "PRICES_DIRECTORY": str(tmp_path_factory.mktemp("prices"))},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + process.stderr.read()
        with httpx.Client(base_url=found[0], timeout=DEADLINE, trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "ERROR" not in rest


def test_the_sellers_are_asked_and_the_answers_kept(client: httpx.Client) -> None:
    """By one thread, which serves the sellers too."""
    assert client.get("/cheapest/tea").json() == {"item": "tea", "seller": "amble", "cents": 205}
    kept = client.get("/history/tea").json()["prices"]
    assert sorted(kept) == [["amble", 205], ["bumble", 226], ["crumble", 247]]


def test_the_first_page_asks_and_shows_what_was_answered(client: httpx.Client) -> None:
    """It needs no other file, not even for its icon."""
    client.get("/cheapest/cocoa").raise_for_status()
    page = client.get("/").raise_for_status().text
    assert "<td>cocoa</td><td>amble</td>" in page
    assert '"/live/ITEM"' in page
    assert re.search(r'<link rel="icon" href="data:', page)
    assert not re.search(r"""(?:src|href)=["'](?!data:|/)""", page)


def test_a_crowd_is_served_by_one_thread(client: httpx.Client) -> None:
    """Each asks three sellers of the same server, and none waits for the thread of another."""
    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(lambda n: client.get(f"/cheapest/{'x' * n}").json(), range(1, 21)))
    assert [each["cents"] for each in answers] == [100 + 35 * n for n in range(1, 21)]


def test_the_answers_are_shown_as_they_come(client: httpx.Client) -> None:
    """Each on a line."""
    with client.stream("GET", "/live/coffee") as response:
        lines = sorted(response.iter_lines())
    assert lines == ["amble: 310", "bumble: 352", "crumble: 394"]
