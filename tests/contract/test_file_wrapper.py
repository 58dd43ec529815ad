"""``wsgi.file_wrapper``: a file goes from the kernel to the client, as iterating it would."""

import gzip
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest

from bide import wait
from tests.conftest import Serve
from tests.served import Environ, Gate, Log, request, until

SIZE = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a file of 10 MB in which every position shows."""
    path = tmp_path_factory.mktemp("files") / "large"
    path.write_bytes(b"".join(b"%07d\n" % number for number in range(SIZE // 8)))
    return path


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of bytes that ``os.sendfile`` sends."""
    counts: list[int] = []
    real = os.sendfile

    def sendfile(*args: Any) -> int:
        counts.append(real(*args))
        return counts[-1]

    monkeypatch.setattr(os, "sendfile", sendfile)
    return counts


def serving(
    open_file: Callable[[], Any], headers: list[tuple[str, str]] | None = None, block: int = 8192
) -> Any:
    """Make an application that sends a file."""

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", headers or [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](open_file(), block)

    return application


def test_a_file_is_sent_by_the_kernel_with_its_length(
    serve: Serve, path: Path, sent: list[int]
) -> None:
    """All of it, closed after it; the connection goes on."""
    files: list[Any] = []

    def open_file() -> Any:
        files.append(path.open("rb"))
        return files[-1]

    served = serve(serving(open_file))
    client = served.connect()
    for _ in range(2):
        client.send(request())
        response = client.response()
        assert response.header("Content-Length") == str(SIZE)
        assert response.body == path.read_bytes()
    served.until_idle()
    assert sum(sent) == 2 * SIZE
    assert all(file.closed for file in files)


def test_a_file_goes_to_a_slow_reader_without_a_thread(
    serve: Serve, path: Path, sent: list[int]
) -> None:
    """On one thread it is parked, and another request answered."""
    served = serve(serving(lambda: path.open("rb")), threads=1)
    client = served.connect(window=4096)
    client.send(request())
    served.until_waiting(1)
    assert sum(sent) < SIZE
    assert served.get(method="HEAD").complete
    assert client.response().body == path.read_bytes()


def test_a_file_is_sent_from_where_it_stands(serve: Serve, path: Path, sent: list[int]) -> None:
    """As reading it would."""

    def open_file() -> Any:
        file = path.open("rb")
        file.seek(SIZE - 8)
        return file

    served = serve(serving(open_file))
    response = served.get()
    assert (response.header("Content-Length"), response.body) == ("8", b"%07d\n" % (SIZE // 8 - 1))
    served.until_idle()
    assert sent == [8]


def test_a_part_of_a_file_is_sent_with_the_length_given(
    serve: Serve, path: Path, sent: list[int]
) -> None:
    """A range: from where the file stands, so many bytes."""

    def open_file() -> Any:
        file = path.open("rb")
        file.seek(8)
        return file

    served = serve(serving(open_file, [("Content-Length", "16")]))
    client = served.connect()
    for _ in range(2):
        client.send(request())
        response = client.response()
        assert (response.body, response.complete) == (b"0000001\n0000002\n", True)


def test_head_of_a_file_sends_none_of_it(serve: Serve, path: Path, sent: list[int]) -> None:
    """And closes it."""
    files: list[Any] = []

    def open_file() -> Any:
        files.append(path.open("rb"))
        return files[-1]

    served = serve(serving(open_file, [("Content-Length", str(SIZE))]))
    response = served.get(method="HEAD")
    assert response.header("Content-Length") == str(SIZE)
    served.until_idle()
    assert files[0].closed
    assert sent == []


def test_a_file_that_is_shorter_than_its_length_cuts_the_response(
    serve: Serve, path: Path, log: Log
) -> None:
    """The client must not take it for all."""
    served = serve(serving(lambda: path.open("rb"), [("Content-Length", str(SIZE + 1))]))
    response = served.get()
    assert (len(response.body), response.complete) == (SIZE, False)
    log.failure()


def test_a_file_that_shrinks_meanwhile_cuts_the_response(
    serve: Serve, path: Path, tmp_path: Path, log: Log
) -> None:
    """While the client is behind, somebody truncates it."""
    shrinking = tmp_path / "shrinking"
    shrinking.write_bytes(path.read_bytes())
    served = serve(serving(lambda: shrinking.open("rb")))
    client = served.connect(window=4096)
    client.send(request())
    served.until_waiting(1)
    os.truncate(shrinking, 1000)
    response = client.response()
    assert response.header("Content-Length") == str(SIZE)
    assert not response.complete
    record = log.failure()
    assert record.exc_info is not None
    assert "shorter than it was" in str(record.exc_info[1])


def test_a_client_that_leaves_in_the_middle_closes_the_file(
    serve: Serve, path: Path, log: Log
) -> None:
    """ClientDisconnected at the server's own line: nothing is logged."""
    files: list[Any] = []

    def open_file() -> Any:
        files.append(path.open("rb"))
        return files[-1]

    served = serve(serving(open_file))
    client = served.connect(window=4096)
    client.send(request())
    served.until_waiting(1)
    client.reset()
    served.until_idle()
    assert files[0].closed


def wrapped_gzip() -> Any:
    packed = io.BytesIO(gzip.compress(b"unpacked"))
    return gzip.GzipFile(fileobj=packed)


def temporary() -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the server closes it
    file.write(b"unpacked")
    file.flush()
    file.seek(0)
    return file


def unflushed() -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    file.write(b"unpacked")
    file.seek(0)
    return file


class Reader:
    """An object with ``read`` and nothing else."""

    def __init__(self) -> None:
        self._blocks = iter([b"un", b"packed"])

    def read(self, size: int) -> bytes:
        """Return a block."""
        return next(self._blocks, b"")


@pytest.mark.parametrize(
    "open_file",
    [lambda: io.BytesIO(b"unpacked"), wrapped_gzip, temporary, unflushed, Reader],
    ids=["BytesIO", "gzip", "NamedTemporaryFile", "unflushed", "read only"],
)
def test_whatever_has_read_is_sent_as_iterating_it_would(
    serve: Serve, open_file: Callable[[], Any]
) -> None:
    """The kernel is given nothing but plain files: a gzip file, too, has a descriptor."""
    response = serve(serving(open_file)).get()
    assert (response.body, response.complete) == (b"unpacked", True)


def test_an_empty_file_and_one_under_proc_are_sent(serve: Serve, tmp_path: Path) -> None:
    """The second says that it is empty, and is not."""
    empty = tmp_path / "empty"
    empty.touch()
    response = serve(serving(lambda: empty.open("rb"))).get()
    assert (response.body, response.complete) == (b"", True)
    response = serve(serving(lambda: open("/proc/self/status", "rb"))).get()  # noqa: SIM115
    assert response.body.startswith(b"Name:")


def test_blocks_of_the_wrapper_are_of_the_size_asked_for(serve: Serve) -> None:
    """Where the kernel does not send it."""
    response = serve(serving(lambda: io.BytesIO(b"12345"), block=2)).get()
    assert response.chunks == [b"12", b"34", b"5"]


def test_a_file_after_write_is_sent_behind_it(serve: Serve, path: Path) -> None:
    """The head is out, and says nothing of a length."""

    def application(environ: Environ, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        write(b"before ")
        file = path.open("rb")
        file.seek(SIZE - 8)
        return environ["wsgi.file_wrapper"](file)

    assert serve(application).get().body == b"before %07d\n" % (SIZE // 8 - 1)


def test_a_file_wrapped_in_middleware_is_iterated(serve: Serve, path: Path) -> None:
    """It is an iterable like any other, with `close`."""
    files: list[Any] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        file = path.open("rb")
        file.seek(SIZE - 16)
        files.append(file)
        wrapper = environ["wsgi.file_wrapper"](file, 8)
        try:
            for block in wrapper:
                yield block.upper()
        finally:
            wrapper.close()

    response = serve(application).get()
    assert [len(each) for each in response.chunks] == [8, 8]
    assert files[0].closed


def test_files_and_requests_of_one_connection_come_in_order(serve: Serve, path: Path) -> None:
    """Pipelined behind a file that the client reads slowly."""
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/file":
            return environ["wsgi.file_wrapper"](path.open("rb"))
        wait(gate.promise())
        return [b"after"]

    served = serve(application)
    client = served.connect(window=4096)
    client.send(request("/file") + request("/after"))
    served.until_waiting(1)
    gate.open()
    assert client.response().body == path.read_bytes()
    assert client.response().body == b"after"


def test_a_file_that_was_moved_through_its_wrapper_is_sent_by_the_kernel(
    serve: Serve, path: Path, sent: list[int]
) -> None:
    """As Werkzeug moves it for a range that goes to the end."""

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        wrapper = environ["wsgi.file_wrapper"](path.open("rb"))
        iter(wrapper).seek(SIZE - 8)
        return wrapper

    assert serve(application).get().body == b"%07d\n" % (SIZE // 8 - 1)
    until(lambda: sent == [8])  # it is counted when it has been sent


@pytest.mark.parametrize(("first", "last"), [(SIZE - 8, SIZE - 1), (16, 23), (0, 7)])
def test_a_range_of_flask_s_is_sent_by_the_kernel(
    serve: Serve, path: Path, sent: list[int], first: int, last: int
) -> None:
    """Werkzeug wraps the wrapper, so as to give a part of it; none of it is read."""
    app = flask.Flask(__name__)
    app.add_url_rule("/", "file", lambda: flask.send_file(path, conditional=True))
    response = serve(app).get(headers=[f"Range: bytes={first}-{last}"])
    assert response.status == 206
    assert response.body == b"%07d\n" % (first // 8)
    until(lambda: sent == [8])


@pytest.mark.parametrize("opened", [open, gzip.open])
def test_a_file_that_grows_is_sent_as_long_as_it_was_said_to_be(
    serve: Serve, tmp_path: Path, opened: Any
) -> None:
    """A log: whoever writes to it comes between the look at its length and the sending."""
    log_file = tmp_path / "log"
    with opened(log_file, "wb") as file:
        file.write(b"0123456789" * 2)
    headers = [("Content-Length", "10")]
    response = serve(serving(lambda: opened(log_file, "rb"), headers, 8)).get()
    assert (response.body, response.complete) == (b"0123456789", True)
