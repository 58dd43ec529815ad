"""Every setting, declared once: the command line, the environment and the documentation follow.

Those that bound time and space are in :mod:`bide.bounds`, those by which a server is looked at in
:mod:`bide.monitoring`.

Each field of :class:`Settings` is one setting: ``threads`` is ``--threads`` on the command line,
``BIDE_THREADS`` in the environment and ``threads=`` in Python; see :mod:`bide.environment`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass
from typing import Any, Final

from bide.declarations import located, taken
from bide.declarations import setting as _setting
from bide.errors import SettingError
from bide.monitoring import Monitoring

LOG_LEVELS = ("debug", "info", "warning", "error")
GROUPS: Final = ("Serving", "Workers", "TLS", "Proxies", "Time", "Space", "Log", "Monitoring")
"""The headings under which settings are listed, in their order."""
DEFAULT_ADDRESS: Final = "127.0.0.1:8000"
TIMES = "times"
"""The value of ``access_format`` for lines that say where a request's time went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Monitoring):
    """All settings of a server, immutable; times in seconds, sizes in bytes.

    Raises SettingError for a value that is not allowed. Relative paths are made absolute, so
    that they stay valid when the application changes the current directory.
    """

    bind: tuple[str, ...] = _setting(
        "Serving",
        (),
        "Where to listen: HOST:PORT, [IPv6]:PORT, unix:PATH or unix:@NAME (abstract, Linux). May "
        "be repeated. Port 0 takes a free port; [::] includes IPv4. Without this option: the "
        "sockets of systemd; else the port in the variable PORT, at all addresses; else "
        "127.0.0.1:8000.",
        metavar="ADDRESS",
        short="b",
    )
    socket_mode: str = _setting(
        "Serving",
        "0666",
        "The mode of a Unix socket's file, in octal. Clients need the right to write to it.",
        metavar="MODE",
    )
    backlog: int = _setting(
        "Serving",
        2048,
        "Connections that may wait to be accepted, as far as the system allows.",
        metavar="N",
        minimum=1,
    )
    executor: str = _setting(
        "Serving",
        "auto",
        "Where the application runs: on the event loop, in threads, in child processes, or as it "
        "declares (auto).",
        choices=("auto", "loop", "threads", "processes"),
    )
    interface: str = _setting(
        "Serving",
        "auto",
        "What the application is: WSGI, ASGI, or decided by its arguments (auto). With several "
        "applications, write wsgi: or asgi: before a name.",
        choices=("auto", "wsgi", "asgi"),
    )
    lifespan: str = _setting(
        "Serving",
        "auto",
        "Whether ASGI applications get lifespan events when the server starts and stops: those "
        "that support them (auto), none (off), or all (on). With on, an application without "
        "support is an error.",
        choices=("auto", "on", "off"),
    )
    asgi_cancel: float = _setting(
        "Time",
        3.0,
        "Seconds from a client's departure until its request is cancelled, in an ASGI application; "
        "inf: never. A request whose response is complete is not cancelled.",
        metavar="SECONDS",
        minimum=0,
    )
    reactor: str = _setting(
        "Serving",
        "asyncio",
        "The server's event loop: asyncio's own, or Twisted's asyncio reactor.",
        choices=("asyncio", "twisted"),
    )
    threads: int = _setting(
        "Serving",
        4,
        "Threads that may begin requests at a time. Blocked ones do not count. 1: one in all.",
        metavar="N",
        short="t",
        minimum=1,
    )
    limit_threads: int = _setting(
        "Serving",
        64,
        "Threads in all, including those whose requests wait or block. At least threads.",
        metavar="N",
        minimum=1,
    )
    queue: int = _setting(
        "Serving",
        1000,
        "Requests that may wait for a thread, or a child process; more are answered 503.",
        metavar="N",
        minimum=0,
    )
    queue_timeout: float = _setting(
        "Serving",
        30.0,
        "Seconds that a request may wait for a thread before it is answered 503.",
        metavar="SECONDS",
        minimum=0,
    )
    health: str = _setting(
        "Serving",
        "",
        "Answer requests for this path without the application: 200 as long as the server lives, "
        "even while it stops; 503 if no thread can be started. Never queued.",
        metavar="PATH",
    )
    ready: str = _setting(
        "Serving",
        "",
        "Answer requests for this path as for --health, but with 503 as soon as the server begins "
        "to stop: for load balancers.",
        metavar="PATH",
    )
    pid_file: str = _setting(
        "Serving",
        "",
        "Write the server's process ID to this file when it listens, and remove the file at the "
        "end. If the file names a running process, the server does not start.",
        metavar="FILE",
        path=True,
    )
    app_dir: str = _setting(
        "Serving",
        "",
        "Import the application from this directory. Without it, from the current one.",
        metavar="PATH",
        path=True,
    )
    certificate: tuple[str, ...] = _setting(
        "TLS",
        (),
        "Serve HTTPS with the certificate in this PEM file. The server's own certificate is first, "
        "then those that verify it. The key may be in it, too: see --key. May be repeated: the "
        "host name that the client asks for decides, and an unknown name gets the first.",
        metavar="FILE",
        path=True,
    )
    key: tuple[str, ...] = _setting(
        "TLS",
        (),
        "The private key, PEM. With several certificates, one for each, in the same order.",
        metavar="FILE",
        path=True,
    )
    key_password_file: str = _setting(
        "TLS", "", "The file with the password of an encrypted key.", metavar="FILE", path=True
    )
    client_ca: str = _setting(
        "TLS",
        "",
        "Ask clients for a certificate that is signed by one in this PEM file. This applies to all "
        "addresses and names.",
        metavar="FILE",
        path=True,
    )
    client_certificate: str = _setting(
        "TLS",
        "required",
        "With --client-ca: whether a client without a certificate is refused, or served.",
        choices=("required", "optional"),
    )
    tls_minimum: str = _setting(
        "TLS", "1.2", "The oldest version of TLS that is allowed.", choices=("1.2", "1.3")
    )
    workers: str = _setting(
        "Workers",
        "",
        "How many worker processes serve: a number, or auto for one per processor. A supervisor "
        "starts and replaces them. Without this option there is one process, and no supervisor. "
        "The variable WEB_CONCURRENCY does the same. For the command line only.",
        metavar="N",
        short="w",
        also="WEB_CONCURRENCY",
    )
    preload: bool = _setting(
        "Workers",
        False,
        "Import the application once, and fork the workers, which then share its memory. The "
        "import must not start threads. Linux only.",
    )
    worker_timeout: float = _setting(
        "Workers",
        30.0,
        "Seconds after which a worker with a blocked event loop is killed and replaced. What its "
        "threads do is logged first. A blocked thread does not count. 0: never.",
        metavar="SECONDS",
        minimum=0,
    )
    max_requests: int = _setting(
        "Workers",
        0,
        "Requests after which a worker is replaced. 0: any number.",
        metavar="N",
        minimum=0,
    )
    max_requests_jitter: int = _setting(
        "Workers",
        -1,
        "Vary max-requests from worker to worker, by up to this number more or less. -1: a tenth "
        "of max-requests.",
        metavar="N",
        minimum=-1,
    )
    max_rss: int = _setting(
        "Workers",
        0,
        "Replace a worker that uses more than this many bytes of memory (resident set) for three "
        "seconds. 0: any number. Linux only.",
        metavar="BYTES",
        minimum=0,
    )
    trust: tuple[str, ...] = _setting(
        "Proxies",
        (),
        "Believe what proxies in this network say about their clients: an address, a network like "
        "10.0.0.0/8, or unix: for all Unix sockets. May be repeated. From anybody else, such "
        "headers do not reach the application.",
        metavar="NETWORK",
    )
    trust_headers: tuple[str, ...] = _setting(
        "Proxies",
        (
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-prefix",
        ),
        "Believe only these headers from trusted proxies, which must set or remove them in every "
        "request. May be repeated.",
        metavar="HEADER",
    )
    proxy_protocol: bool = _setting(
        "Proxies",
        False,
        "Each connection of a trusted proxy begins with a PROXY header, version 1 or 2.",
    )
    root_path: str = _setting(
        "Proxies",
        "",
        "The part of the path that a proxy removes. The application gets it as SCRIPT_NAME.",
        metavar="PREFIX",
    )
    client_connections: int = _setting(
        "Proxies",
        0,
        "Connections of one client (an address, or a /64 of IPv6); more are reset. 0: any number.",
        metavar="N",
        minimum=0,
    )
    client_requests: int = _setting(
        "Proxies",
        0,
        "Requests in progress of one client; more are answered 429. 0: any number.",
        metavar="N",
        minimum=0,
    )
    log_level: str = _setting("Log", "info", "The lowest level that is logged.", choices=LOG_LEVELS)
    access_log: str = _setting(
        "Log",
        "",
        "Write a line for each request to this file; - is standard output.",
        metavar="FILE",
        path=True,
    )
    access_format: str = _setting(
        "Log",
        "plain",
        "The form of a line in the access log. plain. times: also the seconds that the request was "
        "queued, ran, waited, and waited for its client (sending). json: everything, as JSON. Or a "
        "text with fields, like '{client} {request} {status}'.",
        metavar="FORM",
    )
    log_format: str = _setting(
        "Log",
        "plain",
        "The form of a line in the log: plain, for people, or JSON.",
        choices=("plain", "json"),
    )
    request_id: str = _setting(
        "Log",
        "",
        "Give each request an id, in this header, such as X-Request-ID. The id is sent with the "
        "response, and is in the environ and in every record of the log.",
        metavar="HEADER",
    )
    server_timing: bool = _setting(
        "Log",
        False,
        "Send the header Server-Timing with each response: for how many milliseconds its request "
        "was queued, ran, waited, and waited for its client, until the head was sent.",
    )
    log_config: str = _setting(
        "Log",
        "",
        "Configure Python's logging by this file, a dictConfig in JSON, or in TOML (.toml). "
        "Handlers of bide and bide.access in it replace Bide's own.",
        metavar="FILE",
    )
    blocked_loop: float = _setting(
        "Log",
        0.1,
        "Seconds after which a blocked event loop is named in the log.",
        metavar="SECONDS",
        minimum=0.01,
    )
    blocked_thread: float = _setting(
        "Log",
        1.0,
        "Seconds after which a blocked thread is named in the log.",
        metavar="SECONDS",
        minimum=0.01,
    )

    def __post_init__(self) -> None:
        # A message begins with the name of its setting, for which the command line puts its own.
        mode: Any = self.socket_mode
        if not isinstance(mode, str) or not re.fullmatch("(0o?)?[0-7]{3}", mode):
            raise SettingError(
                f"socket_mode is {mode!r}: it must be three octal digits, like 0660, as text"
            )
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.name == "workers" and isinstance(value, int):
                value = str(value)
            object.__setattr__(self, each.name, taken(each, value))
        if not re.fullmatch(r"auto|[1-9]\d{0,2}|", self.workers):
            raise SettingError(
                f"workers is {self.workers!r}: it must be a number from 1 to 999, or auto"
            )
        bind = tuple(
            f"unix:{located(each.removeprefix('unix:'))}" if each.startswith("unix:") else each
            for each in self.bind
        )
        object.__setattr__(self, "bind", bind)
        self.check_monitoring()
        if not re.fullmatch("([A-Za-z0-9]+-)*[A-Za-z0-9]+|", self.request_id):
            raise SettingError(
                f"request_id is {self.request_id!r}: it must be a header's name, like X-Request-ID"
            )
        for name in ("health", "ready"):
            path = getattr(self, name)
            if path and not path.startswith("/"):
                raise SettingError(f"{name} is {path!r}: it must be a path, like /{name}")
        if self.root_path and not self.root_path.startswith("/"):
            raise SettingError(f"root_path is {self.root_path!r}: it must be a path, like /shop")
        if self.proxy_protocol and not self.trust:
            raise SettingError(
                "proxy_protocol is on, but trust is empty: name the networks of your proxies"
            )
        if self.health and self.health == self.ready:
            raise SettingError(
                f"ready is {self.ready!r}, and so is health: while the server stops, they have "
                "different answers"
            )
        if self.key and len(self.key) != len(self.certificate):
            raise SettingError(
                f"key has {len(self.key)} files, and certificate {len(self.certificate)}: give one "
                "key for each certificate, in their order, or none where each file has both"
            )
        for name in ("key_password_file", "client_ca"):
            if getattr(self, name) and not self.certificate:
                raise SettingError(f"{name} is given without a certificate: it would do nothing")

    @property
    def level(self) -> int:
        """``log_level`` as a number of the logging module."""
        return int(getattr(logging, self.log_level.upper()))


DEFAULTS: Final = Settings()
"""The defaults of all settings, for every module that needs one."""
