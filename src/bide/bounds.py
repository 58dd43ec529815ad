"""The settings that bound what a client, or the application, may take: of time and of space.

They are declared as those of :mod:`bide.settings`, which inherit them.
"""

from __future__ import annotations

from dataclasses import dataclass

from bide.declarations import setting as _setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds; times in seconds, sizes in bytes."""

    head_timeout: float = _setting(
        "Time",
        15.0,
        "Seconds that the head of a request may take to arrive, else 408.",
        metavar="SECONDS",
        minimum=0,
    )
    idle_timeout: float = _setting(
        "Time",
        60.0,
        "Seconds after which an idle connection is closed: between requests, or if the client does "
        "not read its response, or does not send a body that the application waits for.",
        metavar="SECONDS",
        minimum=0,
    )
    min_rate: int = _setting(
        "Time",
        240,
        "Bytes a second at which a client must send a body that the application waits for, or read "
        "its response. A slower client has idle-timeout seconds in all. If much of a response "
        "waits, the client must be fast enough to read it in half an hour. 0: any rate.",
        metavar="BYTES",
        minimum=0,
    )
    request_timeout: float = _setting(
        "Time",
        0.0,
        "Seconds that a request may take. Then its wait is ended, and it is answered 504. Running "
        "code is not interrupted, but named in the log. 0: any time.",
        metavar="SECONDS",
        minimum=0,
    )
    response_timeout: float = _setting(
        "Time",
        0.0,
        "Seconds that a client may take for a response, from its first byte to its last. Then the "
        "connection is reset. 0: any time.",
        metavar="SECONDS",
        minimum=0,
    )
    linger_timeout: float = _setting(
        "Time",
        2.0,
        "Seconds that a closing connection is still read, so that the client gets its last answer. "
        "If the client goes on sending, as with an upload that was refused, or has not read all of "
        "the answer, it is read for up to 15 times as long, and up to 64 MiB.",
        metavar="SECONDS",
        minimum=0,
    )
    tcp_keepalive: int = _setting(
        "Time",
        60,
        "Seconds of silence after which the system asks a TCP client whether it is still there. "
        "The connection ends if there is no answer for half as many seconds more. 0: nobody is "
        "asked.",
        metavar="SECONDS",
        minimum=0,
    )
    half_close: str = _setting(
        "Time",
        "cancel",
        "What happens to a wait when the client has closed its sending side: cancel it, or go on "
        "and answer.",
        choices=("cancel", "answer"),
    )
    graceful_timeout: float = _setting(
        "Time",
        30.0,
        "Seconds that requests have to finish when the server stops.",
        metavar="SECONDS",
        minimum=0,
    )
    drain_delay: float = _setting(
        "Time",
        0.0,
        "Seconds that the server goes on accepting after SIGTERM, before it stops. Meanwhile "
        "--ready is answered 503, and each response closes its connection. Another signal ends the "
        "delay.",
        metavar="SECONDS",
        minimum=0,
    )
    limit_connections: int = _setting(
        "Space",
        10_000,
        "Connections at a time. New ones wait to be accepted.",
        metavar="N",
        minimum=1,
    )
    limit_spawned: int = _setting(
        "Space",
        100_000,
        "Functions of bide.spawn in progress at a time. One more is refused. 0: any number.",
        metavar="N",
        minimum=0,
    )
    limit_request_line: int = _setting(
        "Space", 8 * 1024, "Bytes of a request line, else 414.", metavar="BYTES", minimum=64
    )
    limit_head: int = _setting(
        "Space", 64 * 1024, "Bytes of a request's head, else 431.", metavar="BYTES", minimum=128
    )
    limit_fields: int = _setting(
        "Space", 100, "Headers of a request, else 431.", metavar="N", minimum=1
    )
    limit_body: int = _setting(
        "Space",
        1024**3,
        "Bytes of a request's body, else 413. 0: any size.",
        metavar="BYTES",
        minimum=0,
    )
    limit_chunks: int = _setting(
        "Space",
        10_000,
        "Chunks of a request's body (in HTTP/2: frames), and one more for each 64 bytes, else 400.",
        metavar="N",
        minimum=1,
    )
    limit_framing: int = _setting(
        "Space",
        4 * 1024,
        "Bytes that the sizes, extensions and trailers of a chunked body may take beyond what its "
        "data needs, else 400.",
        metavar="BYTES",
        minimum=64,
    )
    limit_unread: int = _setting(
        "Space",
        64 * 1024,
        "Bytes of a request's body that wait for the application. The client has to wait before it "
        "sends more.",
        metavar="BYTES",
        minimum=1024,
    )
    limit_unread_total: int = _setting(
        "Space",
        128 * 1024**2,
        "Bytes of all requests' bodies and all messages of WebSockets together that wait for the "
        "application. With more, each client has to wait until the application has read what it "
        "sent. 0: any number.",
        metavar="BYTES",
        minimum=0,
    )
    limit_discard: int = _setting(
        "Space",
        256 * 1024,
        "Bytes of a body that the server reads and drops to keep the connection, if the "
        "application has not read them.",
        metavar="BYTES",
        minimum=0,
    )
    limit_unsent: int = _setting(
        "Space",
        64 * 1024,
        "Bytes of a response that wait for the client. The application has to wait before it sends "
        "more.",
        metavar="BYTES",
        minimum=1024,
    )
    limit_unsent_total: int = _setting(
        "Space",
        256 * 1024**2,
        "Bytes of all responses together that wait for clients. With more, the application has to "
        "wait until its client has read everything, and slow clients are disconnected, those with "
        "the most waiting bytes first. 0: any number.",
        metavar="BYTES",
        minimum=0,
    )
    limit_pipeline: int = _setting(
        "Space",
        16,
        "Requests that wait on one connection. The client has to wait before it sends more.",
        metavar="N",
        minimum=1,
    )
    websocket_max_size: int = _setting(
        "Space",
        1024**2,
        "Bytes of a message that a client of a WebSocket sends, else it is closed with 1009. Each "
        "fragment of a message counts 64 more.",
        metavar="BYTES",
        minimum=64,
    )
    websocket_deflate: str = _setting(
        "Space",
        "on",
        "Whether to compress messages of WebSockets if the client offers it. That costs up to 44 "
        "KiB for each WebSocket.",
        choices=("on", "off"),
    )
    http2: str = _setting(
        "Serving",
        "auto",
        "Whether to serve HTTP/2, which needs the package h2. Clients get it if they offer it over "
        "TLS, or begin with it without TLS.",
        choices=("auto", "off"),
    )
    processes: int = _setting(
        "Serving",
        4,
        "Child processes of an application that runs in processes. Each makes one request at a "
        "time.",
        metavar="N",
        minimum=1,
    )
    process_pool: int = _setting(
        "Space",
        0,
        "Processes that make the calls of bide.in_process, started when they are needed. 0: one "
        "for each processor.",
        metavar="N",
        minimum=0,
    )
    process_queue: int = _setting(
        "Space",
        100,
        "Calls of bide.in_process that may wait for a process. A request with one more is answered "
        "503.",
        metavar="N",
        minimum=0,
    )
