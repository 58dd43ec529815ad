"""What fuzzing has found is replayed, without a fuzzer: each target's corpus, and the samples.

An input in ``crashes`` has broken its target once. See "Fuzzing" in CONTRIBUTING.md.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from pathlib import Path

import pytest

from bide.wsgi.conversation import Conversation
from tests.failures import Failures, same, short
from tests.fuzz import corpus, http1
from tests.fuzz.strict import MalformedError, Reader
from tests.samples.tables import accepted

NAMES = list(corpus.TARGETS)


def replay(name: str, inputs: Iterable[tuple[str, bytes]]) -> int:
    """Check each input; all that break the target are told. Return how many there were."""
    check = corpus.target(name).check
    with Failures() as failures:
        for place, data in inputs:
            with failures.of(f"{name} is broken by {place}, {short(data)}"):
                check(data)
    return failures.checked


@pytest.mark.parametrize("name", NAMES)
def test_target_holds_for_its_corpus(name: str) -> None:
    """The inputs that reach most of the code, and those that have broken it once."""
    assert replay(name, corpus.kept(name)) > 20


@pytest.mark.parametrize("name", ["http1", "chunked"])
def test_target_holds_for_the_samples(name: str) -> None:
    """Each sample of HTTP, split and read in a way of its own."""
    assert replay(name, corpus.seeds(name)) > 300


@pytest.mark.parametrize("name", NAMES)
def test_target_holds_for_nothing_and_for_bytes_without_sense(name: str) -> None:
    """Structure is drawn from any bytes, those that are not there as well."""
    nonsense = [b"", bytes(64), bytes(range(256)), b"\xff" * 64]
    assert replay(name, ((repr(data), data) for data in nonsense)) == len(nonsense)


def test_nothing_is_left_of_a_conversation() -> None:
    """Whatever its application did: no reference keeps it, and with it the request."""

    def conversations() -> int:
        gc.collect()
        return sum(type(each) is Conversation for each in gc.get_objects())

    before = conversations()
    replay("applications", corpus.kept("applications"))
    assert conversations() <= before


@pytest.mark.parametrize("name", NAMES)
def test_corpus_is_small(name: str) -> None:
    """It is in every checkout and in every run of the tests."""
    sizes = [len(data) for data in corpus.read(corpus.corpus(name))]
    assert len(sizes) <= corpus.MOST_INPUTS
    assert sum(sizes) <= corpus.MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_target_says_its_invariant_first(name: str) -> None:
    """The docstring's first line is one sentence that can be false."""
    first = str(corpus.target(name).__doc__).splitlines()[0]
    assert len(first) > 60
    assert first.endswith(".")


def test_inputs_are_written_so_that_they_are_read_again(tmp_path: Path) -> None:
    """Any bytes, in the order of the bytes whatever order they come in, each once."""
    inputs = [b"", b"\n", b"'", b'"', b"'\"", b"\\", b" ", *(bytes([each]) for each in range(256))]
    path = tmp_path / "new" / "inputs.txt"
    corpus.write(path, inputs)
    assert corpus.read(path) == sorted(set(inputs))
    written = path.read_bytes()
    assert written.count(b"\n") == len(set(inputs))
    corpus.write(path, [*reversed(inputs), *inputs])
    assert path.read_bytes() == written
    for wrong in ("'text'\n", "b'b'\nb'a'\n", "b'a'\nb'a'\n"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"inputs\.txt"):
            corpus.read(path)


def test_strict_reader_reads_the_good_samples() -> None:
    """What Bide is compared with has its own measure: the samples' expectations."""
    with Failures() as failures:
        for sample in accepted():
            expected = [
                (each.method.encode(), each.target, each.body, "complete")
                for each in sample.requests
            ]
            with failures.of(sample):
                came = [
                    (message.first[0], message.first[1], bytes(message.body), message.end)
                    for message in http1.messages(sample.data)
                ]
                same(came, expected)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\rz\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    ],
)
def test_strict_reader_refuses_a_response_that_is_none(wire: bytes) -> None:
    """It must see what it is there to see."""
    with pytest.raises(MalformedError):
        Reader(wire).response("GET")


@pytest.mark.parametrize(
    ("framed", "end"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", "complete"),
        (b"5\r\nhello\r\n0\r\n", "short"),
        (b"5\r\nhell", "short"),
        (b"5\r\nhelloo\r\n0\r\n\r\n", "malformed"),
        (b"5\nhello\r\n0\r\n\r\n", "malformed"),
        (b"0x5\r\nhello\r\n0\r\n\r\n", "malformed"),
        (b"10000000000000000\r\n", "malformed"),
    ],
)
def test_strict_reader_tells_how_a_chunked_body_ends(framed: bytes, end: str) -> None:
    """Cut, complete or malformed."""
    reader = Reader(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed)
    assert reader.response("GET").end == end
