"""Lines on their way to a log: whoever logs never waits for whoever reads."""

import errno
import io
import logging
import os
import threading
from pathlib import Path

import pytest

from bide.serving import lines
from bide.serving.lines import LINES, LineHandler, Writer
from tests.served import DEADLINE, happened, until


class Pipe:
    """A pipe that is full, and that nobody reads before the test does."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        self.filled = 0
        try:
            while True:
                self.filled += os.write(self.writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(self.writing, True)
        self.stream = os.fdopen(self.writing, "w")
        self.text = b""

    def read(self) -> None:
        """Read what comes, in a thread of its own."""
        left = self.filled
        while left:
            left -= len(os.read(self.reading, left))
        while data := os.read(self.reading, 65536):
            self.text += data


@pytest.fixture
def pipe() -> Pipe:
    """Return a full pipe; the test closes it."""
    return Pipe()


def test_a_process_without_threads_is_not_held_up_by_a_full_pipe(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits a moment, once; what comes when the pipe is read is written."""
    monkeypatch.setattr(lines, "FLUSH_SECONDS", 0.01)
    writer = Writer(pipe.stream, "the log")
    writer.forget()
    for number in range(100):
        writer.put(f"{number}\n")
    reader = threading.Thread(target=pipe.read)
    reader.start()

    def came() -> bool:
        writer.put("last\n")
        return bool(pipe.text)

    until(came)
    pipe.stream.close()
    reader.join(DEADLINE)
    assert set(pipe.text.split()) == {b"last"}
    os.close(pipe.reading)


def test_a_full_pipe_blocks_nobody_and_what_is_dropped_is_counted(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    """The queue is bounded; once the pipe is read all that it had comes, and the log says more."""
    begun = threading.Event()

    class Slow(Writer):
        def _deliver(self, items: list[str]) -> None:
            begun.set()
            super()._deliver(items)

    writer = Slow(pipe.stream, "the log")
    writer.put("first\n")  # which the thread takes out, and hangs on
    happened(begun)  # else it takes more with the first
    for number in range(LINES + 7):
        writer.put(f"{number}\n")
    assert not writer.flush(0.0)
    reader = threading.Thread(target=pipe.read)
    reader.start()
    until(lambda: caplog.records)
    assert writer.flush(DEADLINE)
    pipe.stream.close()
    reader.join(DEADLINE)
    assert pipe.text.decode().splitlines() == ["first", *map(str, range(LINES))]
    assert [each.getMessage() for each in caplog.records] == [
        "lines of the log were dropped, because it is too slow: 7"
    ]
    os.close(pipe.reading)


def test_a_reader_that_has_gone_ends_nothing() -> None:
    """There is no place left to say so."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        writer = Writer(stream, "the log")
        writer.put("nobody reads it\n")
        assert writer.flush(DEADLINE)


def test_a_full_disk_is_told_once_and_so_is_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that was cut there is ended, so that the next one can be read."""
    room = 7
    really = os.write

    def write(descriptor: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        size = really(descriptor, data[:room])
        room -= size
        return size

    monkeypatch.setattr("bide.serving.lines.os.write", write)
    writer = Writer(str(tmp_path / "log"), "the access log")

    def put(line: str) -> None:
        writer.put(line)
        assert writer.flush(DEADLINE)

    for line in ("one\n", "two and a half\n", "three\n"):
        put(line)
    assert [each.getMessage() for each in caplog.records] == [
        "cannot write the access log: No space left on device; its lines are lost until it can"
    ]
    room = 100
    put("four\n")
    put("five\n")
    assert (tmp_path / "log").read_text() == "one\ntwo\nfour\nfive\n"
    assert caplog.records[1].getMessage() == (
        "the access log is written again; lines that were lost: up to 2"
    )
    assert len(caplog.records) == 2


def test_a_place_that_is_no_file_is_written_to_as_it_is() -> None:
    """Somebody has put an object of their own in the place of standard error."""
    stream = io.StringIO()
    writer = Writer(stream, "the log")
    writer.put("a line\n")
    assert writer.flush(DEADLINE)
    assert stream.getvalue() == "a line\n"


def test_a_log_is_written_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what it may have to say."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    stream = io.StringIO()
    writer = Writer(stream, "the log")
    writer.put("a line\n")
    assert stream.getvalue() == "a line\n"
    assert writer.flush(0.0)


def test_a_forked_child_writes_its_lines_itself_and_no_others() -> None:
    """It has no thread for them, and the parent writes what was queued."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        writer = Writer(stream, "the log")
        writer._token.clear()  # the thread, as it were, is busy
        writer.put("the parent's\n")
        child = os.fork()
        if not child:
            writer.put("the child's\n")
            os._exit(0)
        os.waitpid(child, 0)
    with os.fdopen(reading) as file:
        assert file.read() == "the child's\n"
    lines._outboxes.discard(writer)


def test_a_mistake_in_a_call_of_the_log_is_a_line_too() -> None:
    """Not a traceback on a standard error that may be full."""
    stream = io.StringIO()
    writer = Writer(stream, "the log")
    handler = LineHandler(writer)
    handler.handle(logging.LogRecord("bide", logging.INFO, "", 0, "%d", ("x",), None))
    assert writer.flush(DEADLINE)
    assert stream.getvalue().startswith("a line of the log cannot be made of '%d': TypeError(")


def test_the_end_waits_for_a_slow_reader_no_longer_than_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that takes a line now and then would keep the process for hours."""
    now = 100.0
    monkeypatch.setattr(lines, "monotonic", lambda: now)
    writer = Writer(io.StringIO(), "the log")

    class Slow(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now
            assert timeout is not None
            now += timeout
            writer._done += 1  # it moves, and is not done
            return False

    assert not writer.wait(Slow(), 1.0, 105.0)
    assert now == 105.0
