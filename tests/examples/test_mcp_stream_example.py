"""Streams that end in order when the server stops, over a real server in a process of its own."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.processes import PROGRAM, Program
from tests.served import DEADLINE

ROOT = Path(__file__).parent.parent.parent
CALL = {"id": 7, "method": "tools/call", "params": {"name": "count", "arguments": {"to": 3}}}


@pytest.fixture
def program() -> Iterator[Program]:
    """Start the example."""
    arguments = ["examples.mcp_stream.app:app", "--bind", "127.0.0.1:0"]
    program = Program([*PROGRAM, *arguments], ROOT, PYTHONWARNINGS="default")
    try:
        yield program
    finally:
        program.close()


def messages(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the messages of a stream."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_streams_end_in_order_when_the_server_stops(program: Program) -> None:
    """One that would never end says good-bye; a call in progress gets its result."""
    url = f"http://{program.serving()}/mcp"
    with httpx.Client(timeout=DEADLINE, trust_env=False) as client:
        asked = {"id": 1, "method": "tools/list"}
        listed = client.post(url, json=asked).json()
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["count"]
        assert client.post(url, json={"id": 2, "method": "x"}).status_code == 404
        with client.stream("GET", url) as news, client.stream("POST", url, json=CALL) as call:
            heard, said = news.iter_lines(), messages(call.iter_lines())
            assert next(heard) == ": hello"
            assert next(said)["params"] == {"progressToken": 7, "progress": 1, "total": 3}
            program.signal(signal.SIGTERM)
            # Both to their proper ends: a cut one raises here.
            assert [each["method"] for each in messages(heard)] == ["notifications/stopping"]
            *progress, result = said
            assert [each["params"]["progress"] for each in progress] == [2, 3]
            assert result["id"] == 7
            assert result["result"]["content"][0]["text"] == "counted to 3"
    assert program.wait() == 0
    assert not [line for line in program.lines if "ERROR" in line or "cancelled" in line]
