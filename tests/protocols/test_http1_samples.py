"""Whole requests as raw bytes, a file each, and what the protocol makes of them.

``tests/samples/http1/accept`` holds what must be understood, ``reject`` what must be refused;
beside each ``NAME.http`` stands what is expected of it, ``NAME.json``. What is a known attack, or
might be one, says so there: its ``attack`` in words, its ``source``, and one of each is ``shown``
on the page about security, which is made from these, with the ``answer`` where it is no status.
However the network splits the bytes, the result is the same.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.fakes import Client, Received, Result, connect, drain, feed

SAMPLES = Path(__file__).parent.parent / "samples" / "http1"
ACCEPTED = sorted(path.stem for path in (SAMPLES / "accept").glob("*.http"))
REJECTED = sorted(path.stem for path in (SAMPLES / "reject").glob("*.http"))

FOLLOWING = b"GET /following HTTP/1.1\r\nHost: following.example\r\n\r\n"
LONG = 512
"""Bytes above which a sample is split at random places and no more at every one."""


def read(kind: str, name: str) -> tuple[bytes, dict[str, Any]]:
    folder = SAMPLES / kind
    expectation: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return (folder / f"{name}.http").read_bytes(), expectation


REJECTED_IN_HEAD = [name for name in REJECTED if read("reject", name)[1]["where"] == "head"]


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Give the ways to split ``data``: whole, in bytes, in two, in many."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    places = random.Random(len(data))  # the same places in every run
    if len(data) <= LONG:
        for at in range(1, len(data)):
            yield [data[:at], data[at:]]
    else:
        for at in places.sample(range(1, len(data)), 100):
            yield [data[:at], data[at:]]
    for _ in range(20):
        cuts = sorted(places.choices(range(len(data) + 1), k=places.randint(2, 12)))
        yield [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def expected(request: dict[str, Any]) -> tuple[object, ...]:
    """Give a request of an expectation as :func:`feed` gives those that came."""
    return (
        request["method"],
        request["target"].encode("latin-1"),
        request["path"].encode("latin-1"),
        request["query"].encode("latin-1"),
        request["version"],
        tuple(
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in request["headers"]
        ),
        request["persistent"],
        Received(request["body"].encode("latin-1"), "complete"),
    )


@pytest.mark.parametrize("name", ACCEPTED)
def test_protocol_understands_a_good_request_however_it_is_split(name: str) -> None:
    """Head, body and persistence are as the sample says, and nothing is sent or refused."""
    data, expectation = read("accept", name)
    requests = [expected(request) for request in expectation["requests"]]
    for pieces in splits(data):
        assert feed(pieces) == Result(requests), pieces


@pytest.mark.parametrize("name", ACCEPTED)
def test_protocol_begins_the_next_request_where_a_good_one_ends(name: str) -> None:
    """A pipelined request is understood behind each persistent one, and dropped behind others."""
    data, expectation = read("accept", name)
    requests = [expected(request) for request in expectation["requests"]]
    if expectation["requests"][-1]["persistent"]:
        host = ((b"Host", b"following.example"),)
        body = Received(b"", "complete")
        requests.append(("GET", b"/following", b"/following", b"", "1.1", host, True, body))
    for pieces in ([data + FOLLOWING], [data, FOLLOWING], *splits(data + FOLLOWING)):
        assert feed(pieces) == Result(requests), pieces


def outcome(client: Client) -> tuple[object, ...]:
    """Say what a refused connection came to, for comparing."""
    return (
        [(stream.request.target, drain(stream)) for stream in client.owner.begun],
        [error.status for error in client.owner.refused],
        client.protocol.stopped,
    )


@pytest.mark.parametrize("name", REJECTED)
def test_protocol_refuses_a_bad_request_however_it_is_split(name: str) -> None:
    """The status is the sample's, requests before it are served, and no stream is begun for it.

    A body that turns out bad has begun its stream: reading it raises, after its good bytes.
    """
    data, expectation = read("reject", name)
    good, status = expectation["good"], expectation["status"]
    in_head = expectation["where"] == "head"
    outcomes = []
    for pieces in splits(data):
        client = connect()
        client.send(*pieces)
        bodies = [drain(stream) for stream in client.owner.begun]
        assert [body.end for body in bodies[:good]] == ["complete"] * good, pieces
        if in_head:
            assert len(bodies) == good, pieces
            assert [error.status for error in client.owner.refused] == [status], pieces
        else:
            assert len(bodies) == good + 1, pieces
            assert (bodies[good].end, bodies[good].status) == ("malformed", status), pieces
            assert client.owner.refused == [], pieces
        outcomes.append(outcome(client))
    assert outcomes[1:] == outcomes[:-1]


@pytest.mark.parametrize("name", REJECTED)
def test_protocol_parses_no_byte_after_a_refusal(name: str) -> None:
    """A good request behind a bad one is never begun, whether it comes with it or later."""
    data, expectation = read("reject", name)
    begun = expectation["good"] + (expectation["where"] == "body")
    for pieces in ([data + FOLLOWING], [data, FOLLOWING], [data, *FOLLOWING.splitlines(True)]):
        client = connect()
        client.send(*pieces)
        assert client.protocol.stopped
        assert len(client.owner.begun) == begun
        refused = list(client.owner.refused)
        client.send(FOLLOWING)
        assert len(client.owner.begun) == begun
        assert client.owner.refused == refused


@pytest.mark.parametrize("name", REJECTED_IN_HEAD)
def test_client_gets_the_status_and_a_closed_connection_for_a_bad_head(name: str) -> None:
    """Behind the answers to good requests comes one with the status, then the connection ends.

    A bad body is its application's to answer: see the tests of responses.
    """
    data, expectation = read("reject", name)
    answered = []

    def answer(stream: Any) -> None:
        answered.append(stream)
        stream.start("200 OK", [])
        stream.end(b"good")

    client = connect(answer)
    client.send(data)
    assert len(answered) == expectation["good"]
    *good, last = client.transport.writes
    assert [response[:15] for response in good] == [b"HTTP/1.1 200 OK"] * expectation["good"]
    head, _, body = last.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % expectation["status"])
    assert b"\r\nConnection: close" in head
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    assert client.transport.closed == "linger"


def test_every_sample_has_its_expectation() -> None:
    """No file of the samples stands alone, and there are as many as there should be."""
    for kind in ("accept", "reject"):
        names = {path.stem for path in (SAMPLES / kind).glob("*.http")}
        assert names == {path.stem for path in (SAMPLES / kind).glob("*.json")}
    assert len(ACCEPTED) >= 120
    assert len(REJECTED) >= 290


@pytest.mark.parametrize("kind", ["accept", "reject"])
def test_every_attack_has_its_source(kind: str) -> None:
    """Whatever is refused is an attack, with the RFC's section or the advisory that tells of it."""
    for name in ACCEPTED if kind == "accept" else REJECTED:
        expectation = read(kind, name)[1]
        assert ("attack" in expectation) == ("source" in expectation), name
        assert "attack" in expectation or kind == "accept", name
        for source in expectation.get("source", []):
            assert re.fullmatch(
                r"CVE-\d{4}-\d{4,}|RFC \d+( (section|appendix) [A-Z\d.]+)?", source
            ), name


def test_one_sample_of_each_attack_is_shown() -> None:
    """The page about security shows its bytes."""
    shown: dict[str, list[str]] = {}
    for kind, names in (("accept", ACCEPTED), ("reject", REJECTED)):
        for name in names:
            expectation = read(kind, name)[1]
            if "attack" in expectation:
                shown.setdefault(expectation["attack"], [])
                if expectation.get("shown"):
                    shown[expectation["attack"]].append(name)
                    assert ("answer" in expectation) == (kind == "accept"), name
            else:
                assert "shown" not in expectation, name
    assert len(shown) >= 35
    assert {attack: len(names) for attack, names in shown.items() if len(names) != 1} == {}
