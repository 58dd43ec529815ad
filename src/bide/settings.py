"""Every setting, declared once: the command line, the environment and the documentation follow.

Each field of :class:`Settings` is one setting: ``threads`` is ``--threads`` on the command line,
``BIDE_THREADS`` in the environment and ``threads=`` in Python.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bide.errors import SettingError

LOG_LEVELS = ("debug", "info", "warning", "error")
TIMES = "times"
"""The form of access lines that say where a request's time went."""


def _setting(
    group: str,
    default: Any,
    text: str,
    *,
    metavar: str = "",
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    path: bool = False,
) -> Any:
    metadata = {
        "group": group,
        "help": text,
        "metavar": metavar,
        "choices": choices,
        "minimum": minimum,
        "path": path,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve. Raises SettingError, in one line, for a value that a setting cannot have.

    Relative paths are made absolute here: an application that changes the directory moves nothing.
    """

    bind: tuple[str, ...] = _setting(
        "Serving",
        ("127.0.0.1:8000",),
        "Where to listen: HOST:PORT, [IPv6]:PORT, unix:PATH or unix:@NAME (abstract, Linux). "
        "May be repeated. Port 0 takes a free one; [::] is IPv4 too.",
        metavar="ADDRESS",
    )
    socket_mode: str = _setting(
        "Serving",
        "0666",
        "The rights of a Unix socket's file, in octal. Who connects needs the right to write.",
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
        "Where the application runs: on the event loop, in threads, or as it declares (auto).",
        choices=("auto", "loop", "threads"),
    )
    reactor: str = _setting(
        "Serving",
        "asyncio",
        "Whose event loop the server runs: asyncio's alone, or one that is Twisted's reactor too.",
        choices=("asyncio", "twisted"),
    )
    threads: int = _setting(
        "Serving",
        4,
        "Threads that begin requests at a time, those that block aside. 1: one thread in all.",
        metavar="N",
        minimum=1,
    )
    limit_threads: int = _setting(
        "Serving",
        64,
        "Threads in all, with those whose requests wait or block; threads, if that is more.",
        metavar="N",
        minimum=1,
    )
    queue: int = _setting(
        "Serving",
        1000,
        "Requests that may wait for a thread; more are answered 503.",
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
        "Answer requests for this path without the application: 200, or 503 when stopping. "
        "Never queued.",
        metavar="PATH",
    )
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
        "Seconds that a connection may be idle before it is closed: between requests, or with a "
        "client that takes nothing of its response, or sends nothing of a body that is waited for.",
        metavar="SECONDS",
        minimum=0,
    )
    min_rate: int = _setting(
        "Time",
        240,
        "Bytes a second at which a client must send a body that is waited for, or take its "
        "response; a slower one has idle-timeout seconds in all. Where much of a response waits, "
        "it is the rate that takes it in half an hour. 0: any rate.",
        metavar="BYTES",
        minimum=0,
    )
    request_timeout: float = _setting(
        "Time",
        0.0,
        "Seconds that a request may take; then its wait is ended, and it is answered 504. Running "
        "code is not interrupted but named in the log. 0: any time.",
        metavar="SECONDS",
        minimum=0,
    )
    response_timeout: float = _setting(
        "Time",
        0.0,
        "Seconds that a client may take for a response, from its first byte to its last; then the "
        "connection is reset. 0: any time.",
        metavar="SECONDS",
        minimum=0,
    )
    linger_timeout: float = _setting(
        "Time",
        2.0,
        "Seconds that a closing connection is still read, so that the client gets its last answer. "
        "While it goes on sending, as an upload that was refused, it is read for up to 15 times as "
        "long, and up to 64 MiB.",
        metavar="SECONDS",
        minimum=0,
    )
    tcp_keepalive: int = _setting(
        "Time",
        60,
        "Seconds of silence after which the system asks a TCP client whether it is there; one that "
        "does not answer for half as many again is gone. 0: nobody is asked.",
        metavar="SECONDS",
        minimum=0,
    )
    half_close: str = _setting(
        "Time",
        "cancel",
        "What becomes of a wait when the client has closed its sending side: cancel it, "
        "or go on and answer.",
        choices=("cancel", "answer"),
    )
    graceful_timeout: float = _setting(
        "Time",
        30.0,
        "Seconds that requests have to finish when the server stops.",
        metavar="SECONDS",
        minimum=0,
    )
    limit_connections: int = _setting(
        "Space",
        10_000,
        "Connections at one time; new ones wait to be accepted.",
        metavar="N",
        minimum=1,
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
        "Chunks of a request's body, and one more for each 64 bytes of it, else 400.",
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
        "Bytes of a request's body that wait for the application; the client waits with more.",
        metavar="BYTES",
        minimum=1024,
    )
    limit_unread_total: int = _setting(
        "Space",
        128 * 1024**2,
        "Bytes of all requests' bodies together that wait for the application. With more, each "
        "client waits until what it has sent is read. 0: any number.",
        metavar="BYTES",
        minimum=0,
    )
    limit_discard: int = _setting(
        "Space",
        256 * 1024,
        "Bytes of a body that the application left unread that are taken to keep the connection.",
        metavar="BYTES",
        minimum=0,
    )
    limit_unsent: int = _setting(
        "Space",
        64 * 1024,
        "Bytes of a response that wait for the client; the application waits with more.",
        metavar="BYTES",
        minimum=1024,
    )
    limit_unsent_total: int = _setting(
        "Space",
        256 * 1024**2,
        "Bytes of all responses together that wait for clients. With more, the application waits "
        "until its client has taken all, and slow clients are given up, those for which most waits "
        "first. 0: any number.",
        metavar="BYTES",
        minimum=0,
    )
    limit_pipeline: int = _setting(
        "Space",
        16,
        "Requests that wait on one connection; the client waits with more.",
        metavar="N",
        minimum=1,
    )
    log_level: str = _setting("Log", "info", "What is written to the log.", choices=LOG_LEVELS)
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
        "What a line of the access log has; times: also for how many seconds the request was "
        "queued, ran, waited, and waited for its client (sending).",
        choices=("plain", TIMES),
    )
    log_config: str = _setting(
        "Log",
        "",
        "Configure Python's logging by this file, a dictConfig in JSON, or in TOML (.toml). "
        "Handlers of bide and bide.access in it take the place of Bide's own.",
        metavar="FILE",
    )
    blocked_loop: float = _setting(
        "Log",
        0.1,
        "Seconds after which a blocked event loop is named in the log.",
        metavar="SECONDS",
        minimum=0.01,
    )
    blocked_lane: float = _setting(
        "Log",
        1.0,
        "Seconds after which a blocked thread is named in the log.",
        metavar="SECONDS",
        minimum=0.01,
    )

    def __post_init__(self) -> None:
        given: Any = self.bind  # one address or several
        if isinstance(given, str):
            object.__setattr__(self, "bind", (given,))
        elif isinstance(given, Iterable):
            object.__setattr__(self, "bind", tuple(given))
        if not self.bind:
            raise SettingError("bind is empty: name at least one address, like 127.0.0.1:8000")
        for each in dataclasses.fields(self):
            self._check(each)
        mode: Any = self.socket_mode
        if not isinstance(mode, str) or not re.fullmatch("(0o?)?[0-7]{3}", mode):
            raise SettingError(
                f"socket_mode is {mode!r}: it must be three octal digits, like 0660, as text"
            )
        self._locate()
        if self.health and not self.health.startswith("/"):
            raise SettingError(f"health is {self.health!r}: it must be a path, like /health")

    def _check(self, setting: dataclasses.Field[Any]) -> None:
        value = getattr(self, setting.name)
        choices = setting.metadata["choices"]
        minimum = setting.metadata["minimum"]
        if choices and value not in choices:
            raise SettingError(
                f"{setting.name} is {value!r}: it may be {', '.join(choices[:-1])} or {choices[-1]}"
            )
        if minimum is None:
            return
        whole = isinstance(setting.default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise SettingError(f"{setting.name} is {value!r}: it must be a number")
        if not value >= minimum:
            raise SettingError(f"{setting.name} is {value!r}: it must be {minimum:g} or more")

    def _locate(self) -> None:
        """Make relative paths absolute."""
        bind = tuple(
            f"unix:{_located(each.removeprefix('unix:'))}" if each.startswith("unix:") else each
            for each in self.bind
        )
        object.__setattr__(self, "bind", bind)
        for each in dataclasses.fields(self):
            if each.metadata["path"]:
                object.__setattr__(self, each.name, _located(getattr(self, each.name)))

    @property
    def level(self) -> int:
        """``log_level`` as the logging module counts it."""
        return int(getattr(logging, self.log_level.upper()))


def _located(path: str) -> str:
    if path in ("", "-") or path.startswith(("/", "@")):  # nothing, standard output, abstract
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except FileNotFoundError:
        raise SettingError(
            f"{path} is a relative path, and the current directory does not exist"
        ) from None


DEFAULTS: Final = Settings()
"""The defaults of all settings. Whoever needs one takes it from here."""


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that ``BIDE_…`` variables give; for programs without the command line.

    Raises:
        SettingError: a variable is not the number that it should be.
    """
    found: dict[str, Any] = {}
    for each in dataclasses.fields(Settings):
        text = environ.get(variable(each.name))
        if not text:
            continue
        if isinstance(each.default, tuple):
            found[each.name] = tuple(text.split())
        elif isinstance(each.default, (int, float)):
            try:
                found[each.name] = type(each.default)(text)
            except ValueError:
                raise SettingError(
                    f"{variable(each.name)} is {text!r}: it must be a number"
                ) from None
        else:
            found[each.name] = text
    return found


def flag(name: str) -> str:
    """Return a setting's option on the command line."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return a setting's variable in the environment."""
    return f"BIDE_{name.upper()}"
