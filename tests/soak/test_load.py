"""The soak's client: what it asks, that it notices every wrong answer, and a short run of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from soak import departures, exchanges
from soak.client import BrokenAnswerError, Connection
from soak.exchanges import Asked, WrongAnswerError, check
from soak.load import Job, Session, plan
from soak.run import EXECUTORS, Size, run
from soak.verdict import judge

RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrig\r\n2\r\nht\r\n0\r\n\r\n"


def draw(requests: int, leaving: int) -> list[Job]:
    return list(plan(requests, leaving, itertools.count(), Random(1)))


async def ask(answer: bytes, asked: Asked) -> None:
    """Check what a server of one fixed answer, which then closes, says to a request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        connection = await Connection.open(server.sockets[0].getsockname()[1])
        try:
            await connection.send(b"".join(asked.parts))
            async with asyncio.timeout(10):
                await check(connection, asked)
        finally:
            connection.leave()


def asked(body: bytes = b"right", **more: object) -> Asked:
    return Asked((exchanges.get("/"),), 200, body, **more)  # type: ignore[arg-type]


def test_a_plan_has_as_many_requests_and_departures_as_are_asked_for() -> None:
    """Departures are spread over the requests; what is due at the end is not forgotten."""
    jobs = draw(3_000, 300)
    made = left = 0
    for job in jobs:
        if isinstance(job, Session):
            made += sum(len(group) for group in job.groups)
        else:
            left += 1
            assert left <= made * 300 // 3_000
    assert (made, left) == (3_000, 300)
    assert len([job for job in draw(1, 50) if not isinstance(job, Session)]) == 50


def test_a_plan_draws_every_kind() -> None:
    """Also the rarest request and the rarest way to leave."""
    kinds: Counter[str] = Counter()
    for job in draw(5_000, 3_000):
        if isinstance(job, Session):
            kinds.update(name for group in job.groups for name, _ in group)
        else:
            kinds[job.__name__] += 1
    wanted = {kind.__name__ for kind in (*exchanges.KINDS, *departures.KINDS)}
    assert set(kinds) == wanted


def test_every_request_has_a_token_of_its_own() -> None:
    """Else another's answer could pass for the right one."""
    tokens: list[bytes] = []
    for job in draw(5_000, 0):
        assert isinstance(job, Session)
        for name, one in itertools.chain(*job.groups):
            if name != "health":
                tokens += set(re.findall(rb"/(t[0-9a-f]{8})/", b"".join(one.parts)))
    assert len(tokens) == len(set(tokens)) > 4_000


def test_a_plan_without_stalls_has_none() -> None:
    """A test has no seconds to give to them."""
    jobs = list(plan(0, 3_000, itertools.count(), Random(1), stalls=False))
    assert not departures.STALLS & set(jobs)
    assert set(departures.KINDS) > departures.STALLS


@pytest.mark.parametrize("answer", [RIGHT, CHUNKED])
def test_the_client_takes_the_right_answer(answer: bytes) -> None:
    """Of both framings."""
    asyncio.run(ask(answer, asked()))


@pytest.mark.parametrize(
    "answer",
    [
        RIGHT.replace(b"right", b"wrong"),
        RIGHT.replace(b"200", b"500"),
        RIGHT.replace(b": 5", b": 6"),
        RIGHT.replace(b"Content-Length: 5\r\n", b""),
        RIGHT[:-6],
        CHUNKED.replace(b"ht\r\n", b"th\r\n"),
        CHUNKED[:-5],
        CHUNKED.replace(b"rig\r\n", b"right"),
        b"junk" + RIGHT,
        b"",
    ],
    ids=[
        "another's bytes",
        "another status",
        "cut",
        "no framing",
        "no body",
        "another's chunk",
        "no last chunk",
        "a chunk without its end",
        "junk before it",
        "nothing",
    ],
)
def test_the_client_notices_a_wrong_answer(answer: bytes) -> None:
    """A soak that takes anything for right would prove nothing."""
    with pytest.raises((WrongAnswerError, BrokenAnswerError)):
        asyncio.run(ask(answer, asked()))


@pytest.mark.parametrize(
    ("answer", "one"),
    [
        (RIGHT, asked(mark=b"X-Token: t1\r\n")),
        (RIGHT, asked(cut=True)),
        (CHUNKED, asked(cut=True)),
        (RIGHT + RIGHT, asked(last=True)),
        (RIGHT, asked(body=b"", bodiless=True, last=True)),
    ],
    ids=["no mark", "not cut", "its last chunk came", "more after the last", "a body after HEAD"],
)
def test_the_client_notices_what_should_not_be_there(answer: bytes, one: Asked) -> None:
    """A response that must break off and is complete looks like success, and is a failure."""
    with pytest.raises(WrongAnswerError):
        asyncio.run(ask(answer, one))


def test_the_client_takes_a_cut_response_for_what_it_is() -> None:
    """The first block, and no end."""
    asyncio.run(ask(CHUNKED[:-5], asked(cut=True, last=True)))


@pytest.mark.parametrize("kind", exchanges.KINDS, ids=lambda kind: kind.__name__)
def test_every_request_is_made_of_whole_parts(kind: Callable[[str, Random], Asked]) -> None:
    """A part that is empty would not be sent, and a head without its end never answered."""
    for seed in range(20):
        one = kind("t0", Random(seed))
        assert b"\r\n\r\n" in b"".join(one.parts) or one.status == 400
        assert 200 <= one.status < 600


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_short_run_is_right_and_leaves_nothing(executor: str) -> None:
    """The real thing, small: what can be told of so few requests is told, and good."""
    cores = {max(os.sched_getaffinity(0))}
    result = run(executor, Size(600, 60, stalls=False), cores)
    assert result.tally.examples == []
    outcomes = {finding.what: (finding.found, finding.outcome) for finding in judge(result)}
    assert not [each for each in outcomes.items() if each[1][1] == "bad"]
    good = [what for what, (_, outcome) in outcomes.items() if outcome == "good"]
    assert len(good) == 6  # all but what memory and objects do
    assert len(result.samples) >= 2
    assert result.tally.departures.total() >= 60
