"""The types of all settings as keywords of ``bide.run`` and ``bide.Server``, for type checkers.

Made by docs/make_settings.py from src/bide/settings.py: edit that.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import TypedDict


class Keywords(TypedDict, total=False):
    """All settings, each of which may be given."""

    http2: str
    processes: int
    bind: str | Iterable[str]
    socket_mode: str
    backlog: int
    executor: str
    interface: str
    lifespan: str
    reactor: str
    threads: int
    limit_threads: int
    queue: int
    queue_timeout: float
    health: str
    ready: str
    pid_file: str | PathLike[str]
    app_dir: str | PathLike[str]
    workers: str
    preload: bool
    worker_timeout: float
    max_requests: int
    max_requests_jitter: int
    max_rss: int
    certificate: str | PathLike[str] | Iterable[str | PathLike[str]]
    key: str | PathLike[str] | Iterable[str | PathLike[str]]
    key_password_file: str | PathLike[str]
    client_ca: str | PathLike[str]
    client_certificate: str
    tls_minimum: str
    trust: str | Iterable[str]
    trust_headers: str | Iterable[str]
    proxy_protocol: bool
    root_path: str
    client_connections: int
    client_requests: int
    head_timeout: float
    idle_timeout: float
    min_rate: int
    request_timeout: float
    response_timeout: float
    linger_timeout: float
    tcp_keepalive: int
    half_close: str
    graceful_timeout: float
    drain_delay: float
    asgi_cancel: float
    limit_connections: int
    limit_spawned: int
    limit_request_line: int
    limit_head: int
    limit_fields: int
    limit_body: int
    limit_chunks: int
    limit_framing: int
    limit_unread: int
    limit_unread_total: int
    limit_discard: int
    limit_unsent: int
    limit_unsent_total: int
    limit_pipeline: int
    websocket_max_size: int
    websocket_deflate: str
    process_pool: int
    process_queue: int
    log_level: str
    access_log: str | PathLike[str]
    access_format: str
    log_format: str
    request_id: str
    server_timing: bool
    log_config: str
    blocked_loop: float
    blocked_thread: float
    control: str
    status: str
    status_token: str
    opentelemetry: bool
