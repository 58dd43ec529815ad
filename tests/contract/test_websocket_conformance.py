"""RFC 6455 and RFC 7692 against an echo over real sockets.

What is tried is what the Autobahn test suite's fuzzing client tries in its sections 1 to 7, 9, 10,
12 and 13, whose numbers the names have.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask import request as flask_request

import bide
from tests.asgi.sites import echo_messages, opening
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.protocols.websocket.cases import CASES, Case, fragments
from tests.protocols.websocket.peers import Peer, read_frame, upgraded
from tests.protocols.websocket.wires import (
    BINARY,
    CLOSE,
    FIN,
    PONG,
    TEXT,
    closing,
    frame,
    frames_of,
)
from tests.served import Client, Served

MEBIBYTE = 1024 * 1024


def flask_echo() -> Any:
    """Make an application of Flask whose view echoes."""
    app = Flask("echo")

    @app.route("/", websocket=True)
    def echo() -> str:
        socket = bide.websocket(flask_request.environ)
        try:
            for message in socket:
                socket.send(message)
        except bide.WebSocketClosed:
            pass  # by a client that has broken the protocol
        return ""

    return app


APPLICATIONS: dict[str, Callable[[], Any]] = {
    "flask": flask_echo,
    "asgi": lambda: opening(echo_messages),
}
"""What makes an application whose WebSockets echo; another one is another line."""


@pytest.fixture(params=APPLICATIONS)
def served(request: pytest.FixtureRequest, serve: Serve) -> Served:
    """Serve an application that echoes, also messages that are long."""
    return serve(APPLICATIONS[request.param](), websocket_max_size=16 * MEBIBYTE)


def code_of(data: bytes) -> int:
    """Return the code in a close frame; 0 without one."""
    return int.from_bytes(data[:2])


def check_case(client: Client, case: Case, pieces: list[bytes]) -> None:
    """Send a case, and check all that comes back up to the end of the connection.

    Where the WebSocket stays open, each message is echoed. Where the client ends it, or breaks the
    protocol, the end may overtake echoes.
    """
    for piece in pieces:
        client.send(piece)
    got: list[tuple[int, bytes]] = []
    if case.code is None:
        got += [read_frame(client) for _ in range(len(case.messages) + len(case.pongs))]
        client.send(closing(1000))
    got += frames_of(client.rest())
    first, data = got.pop()
    same((first, code_of(data)), (FIN | CLOSE, 1000 if case.code is None else case.code))
    same([data for first, data in got if first == FIN | PONG], list(case.pongs))
    echoes = [
        data.decode() if first == FIN | TEXT else data for first, data in got if first != FIN | PONG
    ]
    expected = list(case.messages)
    same(echoes, expected if case.code is None else expected[: len(echoes)])


def test_frames(served: Served) -> None:
    """Sections 1 to 7: whole, and byte by byte."""
    with Failures() as failures:
        for name, case in CASES.items():
            splits = {"whole": [case.data]}
            if len(case.data) < 300:
                splits["in bytes"] = [bytes((byte,)) for byte in case.data]
            for how, pieces in splits.items():
                with failures.of(f"{name}, {how}"):
                    client = upgraded(served)
                    # Else a byte waits until the one before it is acknowledged.
                    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    check_case(client, case, pieces)
                    client.close()


def parts(data: bytes, size: int) -> list[bytes]:
    """Cut bytes into pieces of a size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def long_messages() -> Iterator[tuple[str, int, bytes, int, list[bytes]]]:
    """Yield a name, an opcode, a message, how often it is sent, and in which pieces."""
    for opcode, data in (
        (TEXT, b"*" * 4 * MEBIBYTE),
        (BINARY, random.Random(9).randbytes(4 * MEBIBYTE)),
    ):
        one = data[:MEBIBYTE]
        for size in (65536, 262144, MEBIBYTE, 4 * MEBIBYTE):
            yield f"9.{opcode} {size} bytes", opcode, data[:size], 1, [frame(opcode, data[:size])]
        for size in (256, 4096, 65536, 262144):
            pieces = [fragments(opcode, *parts(one, size))]
            yield f"9.{opcode + 2} fragments of {size} bytes", opcode, one, 1, pieces
        for size in (512, 2048, 65536):
            pieces = parts(frame(opcode, one), size)
            yield f"9.{opcode + 4} chops of {size} bytes", opcode, one, 1, pieces
        for size in (0, 16, 64, 256, 1024, 4096, 16384):
            message = data[:size]
            pieces = [frame(opcode, message)]
            yield f"9.{opcode + 6} messages of {size} bytes", opcode, message, 100, pieces
        pieces = [fragments(opcode, *parts(data[:65536], 1300))]
        yield f"10 fragments of 1300 bytes, {opcode}", opcode, data[:65536], 1, pieces


def test_long_messages(served: Served) -> None:
    """Sections 9 and 10: whole, in fragments, in chops of the stream, and many in turn."""
    with Failures() as failures:
        for name, opcode, message, times, pieces in long_messages():
            with failures.of(name):
                client = upgraded(served)
                for _ in range(times):
                    for piece in pieces:
                        client.send(piece)
                    same(read_frame(client), (FIN | opcode, message))
                client.close()


def offers() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what a client offers of permessage-deflate, and the parameters that are agreed."""
    ours = {"server_max_window_bits": "12", "client_max_window_bits": "12"}
    asked = "client_max_window_bits"
    forget = {"server_no_context_takeover": "", "client_no_context_takeover": ""}
    yield asked, ours
    for each in forget:
        yield f"{asked}; {each}", {**ours, each: ""}
    yield f"{asked}; {'; '.join(forget)}", {**ours, **forget}
    for bits in range(9, 16):
        least = str(min(bits, 12))
        sizes = {"server_max_window_bits": least, "client_max_window_bits": least}
        asked = f"server_max_window_bits={bits}; client_max_window_bits={bits}"
        yield asked, sizes
    yield f"{asked}; {'; '.join(forget)}", {**ours, **forget}
    yield "client_max_window_bits=8", {**ours, "client_max_window_bits": "8"}
    small = "server_max_window_bits=9; server_no_context_takeover; client_max_window_bits"
    agreed = {"server_no_context_takeover": "", **ours, "server_max_window_bits": "9"}
    yield f"{small}, permessage-deflate; client_max_window_bits", agreed
    # A window that zlib does not have: the next offer is taken.
    none = "server_max_window_bits=8; client_max_window_bits"
    yield f"{none}, permessage-deflate; client_max_window_bits", ours


SIZES = [
    *((size, 0) for size in (16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072)),
    *((size, 256) for size in (8192, 16384, 32768, 65536, 131072)),
    *((131072, size) for size in (1024, 4096, 32768)),
]
"""Of messages, and of their fragments; 0: they have none."""


def test_compression(served: Served) -> None:
    """Sections 12 and 13: with all parameters, each size, in fragments too.

    Words repeat at any distance, also beyond the windows; text that does not shrink is among them.
    """
    chosen = random.Random(12)
    words = [chosen.randbytes(chosen.randrange(2, 6)).hex() for _ in range(2000)]
    text = " ".join(chosen.choices(words, k=25_000))
    noise = chosen.randbytes(131072)
    with Failures() as failures:
        for offered, agreed in offers():
            with failures.of(offered):
                peer = Peer(served, f"permessage-deflate; {offered}")
                same(peer.agreed, agreed)
                for at, (size, fragment) in enumerate(SIZES):
                    start = at * 997
                    message: str | bytes = text[start : start + size]
                    if at % 6 == 5:
                        message = noise[:size]
                    peer.send(message, fragment)
                    same(peer.receive(), message, f"{size} bytes in fragments of {fragment}")
                peer.client.send(closing(1000))
                same(list(frames_of(peer.client.rest())), [(FIN | CLOSE, b"\x03\xe8")])
                peer.client.close()
