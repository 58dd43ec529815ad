"""However much passes up or down, it takes constant memory, and so do many transfers at once.

The server is a process of its own, so that its memory is nobody else's. Each block that is sent
begins with its number: what comes twice, in another order or not at all is noticed.
"""

import contextlib
import shutil
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bide.transports.streaming import LARGE_READ
from tests.live.conftest import Start
from tests.live.processes import get
from tests.protocols.websocket.peers import ASKED, read_frame
from tests.protocols.websocket.wires import BINARY, DEFLATE, FIN, RSV1, TEXT, closing, frame
from tests.served import DEADLINE, Client, request, until

MEBIBYTE = 1024 * 1024
LITTLE = 16 * MEBIBYTE
MUCH = 128 * MEBIBYTE
GROWTH = MUCH // 256
"""Bytes that the server may take more for the one than for the other: measured are up to 72 KiB.

What is kept of each byte or block shows here as it would in a gigabyte, of which this is an eighth.
"""
BLOCK = 64 * 1024
SOURCE = """
import concurrent.futures, struct
from pathlib import Path
import bide
from bide import wait

BLOCK = 65536
gate = concurrent.futures.Future()

def blocks(size):
    for number in range(size // BLOCK):
        yield struct.pack("!Q", number) + bytes(BLOCK - 8)

def received(input):
    number = 0
    while block := input.read(BLOCK):
        if len(block) != BLOCK or struct.unpack_from("!Q", block)[0] != number:
            return b"block %d is not what was sent" % number
        number += 1
    return b"%d" % (number * BLOCK)

def counted(socket):
    count = 0
    while (message := socket.receive()) != "count":
        if message != bytes(1048576):
            return "message %d is not what was sent" % count
        count += 1
    return str(count)

def app(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/socket":
        socket = bide.websocket(environ)
        socket.accept()
        wait(gate)
        socket.send(counted(socket))
        return []
    start_response("200 OK", [])
    if path == "/down":
        return blocks(int(query))
    if path == "/file":
        return environ["wsgi.file_wrapper"](open(query, "rb"))
    if path == "/up":
        return [received(environ["wsgi.input"])]
    if path == "/held":
        wait(gate)
        return [received(environ["wsgi.input"])]
    if path == "/open":
        gate.set_result(None)
    if path == "/waiting":
        return [b"%d" % environ["bide.status"]().waiting]
    if path == "/peak":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return [line.split()[1].encode()]
    return []
"""
executors = pytest.mark.parametrize("executor", ["threads", "loop"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a directory with the files, which take no room but for the numbers in them."""
    directory = tmp_path_factory.mktemp("files")
    for size in (LITTLE, MUCH):
        with (directory / str(size)).open("wb") as file:
            file.truncate(size)
            for number in range(size // MEBIBYTE):
                file.seek(number * MEBIBYTE)
                file.write(struct.pack("!Q", number))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def address(start: Start, tmp_path: Path, files: Path, executor: str) -> str:
    """Start the server in a process of its own; give its address."""
    (tmp_path / "mysite.py").write_text(SOURCE)
    (tmp_path / "files").symlink_to(files)
    # What a thread takes by itself is not what these tests are about.
    few = ["--limit-threads", "4"]
    return start("mysite:app", "--bind", "127.0.0.1:0", "--executor", executor, *few).serving()


@pytest.fixture
def connect(address: str) -> Iterator[Callable[[], Client]]:
    """Return what connects to the server; the connections are closed with the test."""
    with contextlib.ExitStack() as clients:
        yield lambda: clients.enter_context(contextlib.closing(Client(address)))


def peak(address: str) -> int:
    """Return the most memory that the server has had, in bytes."""
    return int(get(address, "/peak").body) * 1024


def upload(address: str, size: int) -> None:
    """Send a body of so many bytes."""
    with contextlib.closing(Client(address)) as client:
        client.send(request("/up", method="POST", headers=[f"Content-Length: {size}"]))
        block = bytearray(BLOCK)
        for number in range(size // BLOCK):
            struct.pack_into("!Q", block, 0, number)
            client.send(bytes(block))
        assert client.response().text == str(size)


def check_chunk(client: Client, number: int) -> None:
    """Read one chunk: it is the block of that number."""
    chunk = client.chunk()
    assert len(chunk) == BLOCK
    assert struct.unpack_from("!Q", chunk)[0] == number


def download(address: str, size: int) -> None:
    """Take a response of so many bytes, in chunks."""
    with contextlib.closing(Client(address)) as client:
        client.send(request(f"/down?{size}"))
        assert client.head().status == 200
        for number in range(size // BLOCK):
            check_chunk(client, number)
        assert client.chunk() == b""


def download_file(address: str, size: int) -> None:
    """Take a file of so many bytes, which holds nothing but a number at each mebibyte."""
    with contextlib.closing(Client(address)) as client:
        client.send(request(f"/file?files/{size}"))
        assert client.head().header("Content-Length") == str(size)
        block = bytearray(MEBIBYTE)
        for number in range(size // MEBIBYTE):
            assert client.reader.readinto(block) == MEBIBYTE
            assert struct.unpack_from("!Q", block)[0] == number
        assert client.is_silent()


@executors
@pytest.mark.parametrize("transfer", [upload, download, download_file])
def test_any_size_passes_in_constant_memory(
    address: str, transfer: Callable[[str, int], None]
) -> None:
    """Eight times as much takes no more memory, but for what lies within the measure's error.

    What is kept of the bytes grows with each transfer. What fluctuates, such as how full the
    windows are and where the allocator puts it, has reached its most after a few.
    """
    transfer(address, LITTLE)
    grown: list[int] = []
    while not grown or (min(grown) > GROWTH and len(grown) < 4):
        before = peak(address)
        transfer(address, MUCH)
        grown.append(peak(address) - before)
    assert min(grown) <= GROWTH, grown


def send_what_goes(sock: socket.socket, data: bytes | memoryview) -> int:
    """Send what the sockets of both sides take without waiting; give the bytes."""
    sent = 0
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sent < len(data):
            sent += sock.send(memoryview(data)[sent:])
    sock.settimeout(DEADLINE)
    return sent


MANY = 50
EACH = 20 * MEBIBYTE


def bound(block: int) -> int:
    """Return what the server may hold for all clients, with blocks of that size.

    For each a window (``limit_unread`` or ``limit_unsent``), the block that went beyond it, the one
    that the application holds, the one that is being encoded or joined, and one for all the rest.
    """
    return MANY * (64 * 1024 + 4 * block)


@executors
def test_many_slow_readers_at_once_take_a_window_each(
    address: str, connect: Callable[[], Client]
) -> None:
    """They read nothing until all their applications wait, and then a little in turn."""
    download(address, EACH)
    before = peak(address)
    clients = [connect() for _ in range(MANY)]
    for client in clients:
        client.send(request(f"/down?{EACH}"))
        assert client.head().status == 200
    until(lambda: get(address, "/waiting").text == str(MANY))
    for number in range(EACH // BLOCK):
        for client in clients:
            check_chunk(client, number)
    for client in clients:
        assert client.chunk() == b""
    assert peak(address) - before <= bound(BLOCK)


@executors
def test_many_uploads_at_once_take_a_window_each(
    address: str, connect: Callable[[], Client]
) -> None:
    """None is read until all clients can send no more, and then all are."""
    upload(address, EACH)
    before = peak(address)
    clients = [connect() for _ in range(MANY)]
    head = request("/held", method="POST", headers=[f"Content-Length: {EACH}"])
    body = b"".join(struct.pack("!Q", n) + bytes(BLOCK - 8) for n in range(EACH // BLOCK))
    sent = []
    for client in clients:
        client.send(head)
        sent.append(send_what_goes(client.sock, body))
    until(lambda: get(address, "/waiting").text == str(MANY))
    sent = [
        at + send_what_goes(client.sock, memoryview(body)[at:])
        for client, at in zip(clients, sent, strict=True)
    ]
    assert max(sent) < EACH
    get(address, "/open")
    for client, at in zip(clients, sent, strict=True):
        client.send(body[at:])
    for client in clients:
        assert client.response().text == str(EACH)
    assert peak(address) - before <= bound(LARGE_READ)


SOCKETS = 8
BOMBS = 60


@executors
def test_bombs_of_many_websockets_take_a_window_and_some_messages_each(
    address: str, connect: Callable[[], Client]
) -> None:
    """Each client sends 62 KiB, which are one read, and inflate to 60 MiB."""
    asked = request("/socket", headers=[*ASKED, f"Sec-WebSocket-Extensions: {DEFLATE.decode()}"])
    encoder = zlib.compressobj(wbits=-12)
    bomb = encoder.compress(bytes(MEBIBYTE)) + encoder.flush(zlib.Z_SYNC_FLUSH)
    bombs = frame(BINARY, bomb[:-4], FIN | RSV1) * BOMBS + frame(TEXT, b"count")
    assert len(bombs) < BLOCK
    clients = [connect() for _ in range(SOCKETS)]
    before = peak(address)
    for client in clients:
        client.send(asked)
        assert client.head().status == 101
        client.send(bombs)
    until(lambda: get(address, "/waiting").text == str(SOCKETS))
    get(address, "/open")
    for client in clients:
        assert read_frame(client) == (FIN | TEXT, str(BOMBS).encode())
        client.send(closing(1000))
    # A message that waits, one that is received, and one that is being inflated, with its copies.
    assert peak(address) - before <= SOCKETS * 8 * MEBIBYTE
