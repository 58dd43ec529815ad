"""``wsgi.input`` against ``io.BytesIO``: any body, in any pieces, by any sequence of reads."""

from __future__ import annotations

import asyncio
import bz2
import codecs
import csv
import email
import gc
import gzip
import hashlib
import io
import itertools
import json
import pickle
import shutil
import tarfile
import tomllib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import pytest
from greenlet import greenlet
from hypothesis import given
from hypothesis import strategies as st

from bide.errors import ClientDisconnected, RemoteProtocolError, WaitError
from bide.exchange.messages import Request
from bide.exchange.stream import Stream
from bide.waiting.outcome import Wait
from bide.waiting.waiter import Parking, Waiter
from bide.wsgi.input import Input
from tests.failures import Failures, same
from tests.protocols.fakes import FakeChannel

T = TypeVar("T")


class Trickle(Parking):
    """The network: each time the reader parks, the next piece comes, and at last the end.

    Attributes:
        parked: how often the reader has waited.
    """

    def __init__(
        self, early: Iterable[bytes], late: Iterable[bytes], error: BaseException | None = None
    ) -> None:
        channel = FakeChannel()
        request = Request("POST", b"/", b"/", b"", "1.1", [])
        self.stream = Stream(request, channel, 1 << 20)
        self.since = 0.0
        self.name = "trickle"
        self.parked = 0
        self._late = deque(late)
        self._error = error
        for piece in early:
            self.stream.body.feed(piece)

    def park(self, wait: Wait) -> None:
        """Bring the next piece, which must wake the reader."""
        self.parked += 1
        body = self.stream.body
        if self._late:
            body.feed(self._late.popleft())
        elif self._error is not None:
            body.fail(self._error)
        else:
            body.finish()
        assert wait.reason, "the reader parked, and what came did not wake it"

    def wake(self, wait: Wait) -> None:
        """Do nothing: ``park`` is about to return."""

    def run(self, function: Callable[[Input], T]) -> T:
        """Call ``function`` with the input, as a conversation that may wait."""
        result: list[T] = []
        reading = Reading(lambda: result.append(function(Input(self.stream))))
        reading.waiter = Waiter(cast(Any, None), self)
        reading.switch()
        return result[0]


class Reading(greenlet):
    """A greenlet with a place to wait, as a conversation's is."""

    waiter: Waiter


def read(
    function: Callable[[Input], T],
    early: Iterable[bytes] = (),
    late: Iterable[bytes] = (),
    error: BaseException | None = None,
) -> T:
    return Trickle(early, late, error).run(function)


# The oracle --------------------------------------------------------------------------------------

SIZE = st.one_of(st.none(), st.integers(-3, 12))
CALL = st.one_of(
    st.tuples(st.sampled_from(["read", "readline", "readlines"]), st.tuples(SIZE)),
    st.tuples(st.sampled_from(["read", "readline", "readlines"]), st.just(())),
    st.tuples(st.just("iterate"), st.tuples(st.integers(0, 4))),
)
TEXT = st.lists(st.sampled_from([b"a", b"b", b"\n", b"\r", b"\0"]), max_size=40).map(b"".join)


def call(file: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "iterate":
        return list(itertools.islice(iter(file), *arguments))
    return getattr(file, name)(*arguments)


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Split into pieces that are not empty, as the network does."""
    places = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(
    body=st.one_of(TEXT, st.binary(max_size=40)),
    cuts=st.sets(st.integers(0, 40)),
    early=st.integers(0, 40),
    calls=st.lists(CALL, max_size=8),
)
def test_input_reads_as_a_file_does(
    body: bytes, cuts: set[int], early: int, calls: list[tuple[str, tuple[Any, ...]]]
) -> None:
    """Whatever has come already, and wherever the rest is split, each call gives the same bytes."""
    pieces = split(body, cuts)
    file = io.BytesIO(body)
    expected = [call(file, *each) for each in calls] + [file.read(), b""]
    given_ = read(
        lambda file: [call(file, *each) for each in calls] + [file.read(), file.read()],
        pieces[:early],
        pieces[early:],
    )
    assert given_ == expected


# In the standard library's hands ------------------------------------------------------------------


def packed() -> bytes:
    """Pack a file as a stream of tar and gzip."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        member = tarfile.TarInfo("member")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"12345"))
    return target.getvalue()


def unpack(file: Any) -> list[tuple[str, bytes]]:
    """Unpack it from a file that cannot be sought in."""
    with tarfile.open(fileobj=file, mode="r|gz") as archive:
        return [(each.name, archive.extractfile(each).read()) for each in archive]  # type: ignore[union-attr]


def copied(file: Any) -> bytes:
    """Copy it into another file."""
    target = io.BytesIO()
    shutil.copyfileobj(file, target, 7)
    return target.getvalue()


def filled(file: Any) -> list[tuple[int, bytes]]:
    """Read it into a buffer, until it is at its end."""
    buffer = bytearray(9)
    return [(size, bytes(buffer[:size])) for size in iter(lambda: file.readinto(buffer), 0)]


LINES = 'größer,zwei\r\n"drei\nvier",\nfünf'.encode()
DATA: Any = {"text": ["ä" * 70_000], "number": 7}

HANDS: dict[str, tuple[Callable[[Any], Any], bytes]] = {
    "io.TextIOWrapper": (lambda file: list(io.TextIOWrapper(file, "utf-8")), LINES),
    "io.TextIOWrapper.read": (lambda file: io.TextIOWrapper(file, "utf-8").read(), LINES),
    "io.BufferedReader": (lambda file: list(io.BufferedReader(file)), LINES),
    "io.BufferedReader.read": (lambda file: io.BufferedReader(file, 5).read(), LINES),
    "io.BufferedReader.peek": (lambda file: io.BufferedReader(file, 64).peek()[:20], LINES),
    "both": (lambda file: io.TextIOWrapper(io.BufferedReader(file), "utf-8").readlines(), LINES),
    "csv.reader": (
        lambda file: list(csv.reader(io.TextIOWrapper(file, "utf-8", newline=""))),
        LINES,
    ),
    "codecs.getreader": (lambda file: list(codecs.getreader("utf-8")(file)), LINES),
    "next": (lambda file: [next(file), next(file), next(file), next(file, None)], LINES),
    "itertools": (lambda file: list(itertools.islice(file, 1, None)), LINES),
    "with": (lambda file: file.__enter__() is file and file.__exit__(None, None, None), LINES),
    "readinto": (filled, LINES),
    "shutil.copyfileobj": (copied, LINES),
    "json.load": (json.load, json.dumps(DATA).encode()),
    "pickle.load": (pickle.load, pickle.dumps(DATA)),
    "hashlib.file_digest": (
        lambda file: (
            hashlib.sha256(file.read()).digest()
            if isinstance(file, io.BytesIO)  # it is read by another way
            else hashlib.file_digest(file, "sha256").digest()
        ),
        LINES,
    ),
    "gzip.GzipFile": (lambda file: gzip.GzipFile(fileobj=file).read(), gzip.compress(LINES)),
    "bz2.BZ2File": (lambda file: bz2.BZ2File(file).read(), bz2.compress(LINES)),
    "tarfile.open": (unpack, packed()),
    "email": (
        lambda file: email.message_from_binary_file(file).get_payload(),
        b"Subject: one\n\ntwo\nthree",
    ),
    "tomllib.load": (tomllib.load, b'one = "two"'),
}


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_the_standard_library_takes_input_for_a_binary_file(size: int) -> None:
    """Each has what it has of ``io.BytesIO``, however the body comes."""
    with Failures() as failures:
        for name, (hand, body) in HANDS.items():
            if len(body) > 100 * size:
                continue
            with failures.of(name):
                pieces = split(body, range(0, len(body), size))
                same(read(hand, pieces[:1], pieces[1:]), hand(io.BytesIO(body)))


def test_input_is_a_file_that_is_read_forwards_only() -> None:
    """It says so where the standard library asks; what it cannot do raises io's own error."""

    def look(file: Any) -> None:
        assert isinstance(file, io.BufferedIOBase)
        assert isinstance(file, io.IOBase)
        assert file.readable()
        assert [file.writable(), file.seekable(), file.isatty(), file.closed] == [False] * 4
        file.flush()
        assert iter(file) is file
        for call in (
            lambda: file.seek(0),
            file.tell,
            file.truncate,
            file.fileno,
            file.detach,
            lambda: file.write(b"more"),
            lambda: file.writelines([b"more"]),
        ):
            with pytest.raises(io.UnsupportedOperation, match="read once, forwards"):
                call()

    read(look)


def test_read1_and_readinto1_give_what_has_come() -> None:
    """At most one block, and never nothing before the end."""

    def look(file: Input) -> list[Any]:
        buffer = bytearray(9)
        seen: list[Any] = [file.read1(0), file.read1(1), file.read1(), file.read1(9)]
        seen += [
            file.readinto1(buffer),
            bytes(buffer[:1]),
            file.read1(None),
            file.readinto1(buffer),
        ]
        return seen

    came = read(look, [b"abc"], [b"de", b"f"])
    assert came == [b"", b"a", b"bc", b"de", 1, b"f", b"", 0]


@pytest.mark.parametrize("wrapper", [io.TextIOWrapper, io.BufferedReader], ids=["text", "buffered"])
def test_a_wrapper_that_is_closed_or_dropped_leaves_the_rest_to_be_read(wrapper: Any) -> None:
    """Middleware that has looked at the body does not take it from the application."""

    def rest(file: Input) -> bytes:
        with wrapper(file):
            pass
        wrapper(file)
        gc.collect()
        with file:
            pass
        file.close()
        return file.read()

    assert read(rest, [b"some"], [b" body"]) == b"some body"


def test_text_comes_as_soon_as_the_body_does() -> None:
    """A line of text does not wait for the rest of the wrapper's buffer."""
    trickle = Trickle([b"one\ntw"], [b"o\n"])

    def first(file: Any) -> tuple[str, int, str]:
        text = io.TextIOWrapper(file, "utf-8")
        return text.readline(), trickle.parked, text.read()

    assert trickle.run(first) == ("one\n", 0, "two\n")


# By name -----------------------------------------------------------------------------------------


def test_read_waits_for_exactly_what_it_asks_for() -> None:
    """``read(n)`` gives n bytes over any number of pieces, and waits for no more than it needs."""
    trickle = Trickle([b"ab"], [b"c", b"de", b"f"])
    assert trickle.run(lambda file: file.read(4)) == b"abcd"
    assert trickle.parked == 2


def test_read_of_nothing_does_not_wait() -> None:
    """Nor does a line of at most 0 bytes."""
    trickle = Trickle([], [b"a"])
    assert trickle.run(lambda file: (file.read(0), file.readline(0))) == (b"", b"")
    assert trickle.parked == 0


def test_readline_waits_for_its_newline_and_not_for_the_next_line() -> None:
    """A line over three pieces; what follows the newline stays for the next call."""
    trickle = Trickle([b"a"], [b"b", b"c\nd", b"\n"])
    assert trickle.run(lambda file: file.readline()) == b"abc\n"
    assert trickle.parked == 2


def test_readline_stops_at_its_size_within_a_line() -> None:
    """The rest of the line is the next one's start, though the pieces end elsewhere."""
    lines = read(lambda file: [file.readline(2) for _ in range(4)], [b"abc"], [b"d\ne", b"f"])
    assert lines == [b"ab", b"cd", b"\n", b"ef"]


def test_readlines_stops_when_its_hint_is_reached() -> None:
    """At the line that reaches it, and at the end without one."""
    assert read(lambda file: file.readlines(3), [b"a\nb\nc\nd"]) == [b"a\n", b"b\n"]
    assert read(lambda file: file.readlines(2), [b"a\nb\nc\nd"]) == [b"a\n"]
    assert read(lambda file: file.readlines(), [b"a\n", b"b"], [b"c\n"]) == [b"a\n", b"bc\n"]


def test_iteration_gives_a_line_as_soon_as_it_has_come() -> None:
    """The reader sees the first line while the second is still on its way."""
    trickle = Trickle([b"one\ntw"], [b"o\n"])

    def first(file: Input) -> tuple[bytes, int, list[bytes]]:
        lines = iter(file)
        return next(lines), trickle.parked, list(lines)

    assert trickle.run(first) == (b"one\n", 0, [b"two\n"])


def test_input_does_not_wait_at_the_end_once_it_has_seen_it() -> None:
    """Every method gives nothing, again and again."""
    trickle = Trickle([b"a"], [])

    def twice(file: Input) -> list[Any]:
        file.read()
        again = [file.read(), file.read(5), file.readline(), file.readlines(), list(file)]
        return [*again, trickle.parked]

    assert trickle.run(twice) == [b"", b"", b"", [], [], 1]


@pytest.mark.parametrize("error", [ClientDisconnected("left"), RemoteProtocolError("bad chunk")])
def test_input_raises_where_its_body_breaks_off(error: BaseException) -> None:
    """The bytes before can be read; whatever needs more raises, each time."""

    def broken(file: Input) -> list[bytes]:
        good = [file.read(2), file.readline(), file.read(0)]
        for method in (file.read, lambda: file.read(1), file.readline, file.readlines):
            with pytest.raises(type(error), match=str(error)):
                method()
        return good

    assert read(broken, [b"ab"], [b"c\n"], error) == [b"ab", b"c\n", b""]


def test_input_raises_in_the_middle_of_a_line() -> None:
    """Half a line is not a line: the client left before its newline."""

    def half(file: Input) -> None:
        with pytest.raises(ClientDisconnected):
            file.readline()

    read(half, [b"abc"], [b"d"], ClientDisconnected("left"))


def test_input_raises_on_the_thread_of_an_event_loop_and_loses_nothing() -> None:
    """What has come can be read there; it cannot wait, and the same read works elsewhere."""
    trickle = Trickle([b"ab"], [b"cd"])
    file = Input(trickle.stream)
    asyncio._set_running_loop(cast(Any, object()))
    try:
        assert file.read(2) == b"ab"
        with pytest.raises(WaitError):
            file.read(2)
    finally:
        asyncio._set_running_loop(None)
    assert trickle.run(lambda _: file.read()) == b"cd"


@pytest.mark.parametrize("read", [Input.read, Input.readline, Input.readlines])
def test_reading_that_fails_loses_nothing_of_what_had_come(read: Callable[[Input], Any]) -> None:
    """Who catches the error, or the end of a wait, and reads on must not miss a part unnoticed."""

    def application(body: Input) -> bytes:
        with pytest.raises(RemoteProtocolError):
            read(body)
        return body.read(5)

    network = Trickle([b"h\n"], [b"el", b"l"], RemoteProtocolError("malformed"))
    if read is Input.readline:
        network = Trickle([b"h-"], [b"el", b"l"], RemoteProtocolError("malformed"))
    assert network.run(application).replace(b"\n", b"-") == b"h-ell"
