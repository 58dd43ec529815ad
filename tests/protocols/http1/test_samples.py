"""Whole requests as raw bytes, and what the protocol makes of them: see ``tests/samples``.

However the network splits the bytes, the result is the same.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from typing import Any

from tests.failures import Failures, same
from tests.protocols.fakes import Received, Result, connect, drain, feed
from tests.samples.tables import Expected, Sample, accepted, rejected, samples

FOLLOWING = b"GET /following HTTP/1.1\r\nHost: following.example\r\n\r\n"
FOLLOWED = Expected(
    "GET", b"/following", b"/following", b"", "1.1", ((b"Host", b"following.example"),), b"", True
)
LONG = 512
"""Bytes above which a sample is split at random places and no more at every one."""


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Return the ways to split ``data``: whole, in bytes, in two, in many."""
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


def understood(requests: tuple[Expected, ...]) -> Result:
    """Return the requests of an expectation as :func:`feed` gives those that came."""
    return Result(
        [
            (
                each.method,
                each.target,
                each.path,
                each.query,
                each.version,
                each.headers,
                each.persistent,
                Received(each.body, "complete"),
            )
            for each in requests
        ]
    )


def way(pieces: list[bytes]) -> str:
    """Return a text that says how bytes are split."""
    if len(pieces) == 1:
        return "whole"
    if all(len(piece) == 1 for piece in pieces):
        return "byte by byte"
    ends = itertools.accumulate(len(piece) for piece in pieces[:-1])
    return f"split at {', '.join(map(str, ends))}"


def compare(came: object, expected: object, pieces: list[bytes]) -> None:
    """Check that these pieces came to what is expected."""
    if came != expected:
        same(came, expected, way(pieces))


def test_protocol_understands_a_good_request_however_it_is_split() -> None:
    """Head, body and persistence are as the sample says, and nothing is sent or refused."""
    with Failures() as failures:
        for sample in accepted():
            expected = understood(sample.requests)
            with failures.of(sample):
                for pieces in splits(sample.data):
                    compare(feed(pieces), expected, pieces)


def test_protocol_begins_the_next_request_where_a_good_one_ends() -> None:
    """A pipelined request is understood behind each persistent one, and dropped behind others."""
    with Failures() as failures:
        for sample in accepted():
            data, requests = sample.data, sample.requests
            if requests[-1].persistent:
                requests = (*requests, FOLLOWED)
            expected = understood(requests)
            with failures.of(sample):
                for pieces in ([data, FOLLOWING], *splits(data + FOLLOWING)):
                    compare(feed(pieces), expected, pieces)


def test_protocol_refuses_a_bad_request_however_it_is_split() -> None:
    """The status is the sample's, requests before it are served, and no stream is begun for it.

    A body that turns out bad has begun its stream: reading it raises, after its good bytes.
    """
    with Failures() as failures:
        for sample in rejected():
            with failures.of(sample):
                refuse(sample)


def refuse(sample: Sample) -> None:
    """Check the refusal of a sample in every split."""
    targets: list[bytes] | None = None
    bodies: list[Received] | None = None
    ends = [("complete", 0)] * sample.good
    ends += [("malformed", sample.status)] if sample.where == "body" else []
    refused = [sample.status] if sample.where == "head" else []
    for pieces in splits(sample.data):
        client = connect()
        client.send(*pieces)
        begun = client.owner.begun
        came = [drain(stream) for stream in begun]
        compare([(body.end, body.status) for body in came], ends, pieces)
        compare([error.status for error in client.owner.errors], refused, pieces)
        assert client.protocol.stopped, way(pieces)
        if targets is None or bodies is None:
            targets, bodies = [stream.request.target for stream in begun], came
        compare([stream.request.target for stream in begun], targets, pieces)
        if len(sample.data) <= LONG:
            compare(came, bodies, pieces)
        else:  # how far a body is read before it exceeds a limit depends on what comes together
            for body, whole in zip(came, bodies, strict=True):
                assert whole.data.startswith(body.data), way(pieces)


def test_protocol_parses_no_byte_after_a_refusal() -> None:
    """A good request behind a bad one is never begun, whether it comes with it or later."""
    with Failures() as failures:
        for sample in rejected():
            data, begun = sample.data, sample.good + (sample.where == "body")
            for pieces in (
                [data + FOLLOWING],
                [data, FOLLOWING],
                [data, *FOLLOWING.splitlines(True)],
            ):
                with failures.of(f"{sample}, {way(pieces)}"):
                    client = connect()
                    client.send(*pieces)
                    assert client.protocol.stopped
                    same(len(client.owner.begun), begun)
                    refused = list(client.owner.errors)
                    client.send(FOLLOWING)
                    same(len(client.owner.begun), begun)
                    same(client.owner.errors, refused)


def test_client_gets_the_status_and_a_closed_connection_for_a_bad_head() -> None:
    """Behind the answers to good requests comes one with the status, then the connection ends.

    A bad body is its application's to answer: see the tests of responses.
    """
    with Failures() as failures:
        for sample in rejected():
            if sample.where == "head":
                with failures.of(sample):
                    answered(sample)


def answered(sample: Sample) -> None:
    """Check what a client gets for a sample, whose good requests are answered."""
    served = []

    def answer(stream: Any) -> None:
        served.append(stream)
        stream.start("200 OK", [])
        stream.end(b"good")

    client = connect(answer)
    client.send(sample.data)
    same(len(served), sample.good)
    *good, last = client.transport.writes
    same([response[:15] for response in good], [b"HTTP/1.1 200 OK"] * sample.good)
    head, _, body = last.partition(b"\r\n\r\n")
    same(head[:13], b"HTTP/1.1 %d " % sample.status)
    assert b"\r\nConnection: close" in head
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    same(client.transport.closed, "linger")


def test_there_are_as_many_samples_as_there_should_be() -> None:
    """Those of a file that is not found would not be missed."""
    assert len(accepted()) >= 130
    assert len(rejected()) >= 320


def test_every_attack_has_its_source() -> None:
    """Whatever is refused is an attack, with the RFC's section or the advisory that tells of it."""
    with Failures() as failures:
        for sample in samples():
            with failures.of(sample):
                assert bool(sample.attack) == bool(sample.source)
                assert sample.attack or sample.kind == "accept"
                for source in sample.source:
                    assert re.fullmatch(
                        r"CVE-\d{4}-\d{4,}|RFC \d+( (section|appendix) [A-Z\d.]+)?", source
                    )


def test_one_sample_of_each_attack_is_shown() -> None:
    """The page about security shows its bytes."""
    shown: dict[str, list[str]] = {}
    for sample in samples():
        if sample.attack:
            shown.setdefault(sample.attack, [])
            if sample.shown:
                shown[sample.attack].append(sample.name)
                assert bool(sample.answer) == (sample.kind == "accept"), sample
        else:
            assert not sample.shown, sample
    assert len(shown) >= 35
    assert {attack: names for attack, names in shown.items() if len(names) != 1} == {}
