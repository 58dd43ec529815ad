"""The access log: a line for each request, in one of several forms.

A form is ``plain``, ``times``, ``json``, or a text with the names of fields in braces. What came
from a client is escaped in each of them.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable
from string import Formatter as Template
from time import time
from typing import Any, Final

from bide.errors import RemoteProtocolError, SettingError
from bide.exchange.call import Call
from bide.exchange.identity import trace_of
from bide.serving.formatters import escaped, plain
from bide.serving.loggers import access, log
from bide.serving.stamps import stamp
from bide.settings import TIMES
from bide.waiting.times import Sums

_SHOWN: Final = 200
"""Bytes of a refused request's first line that are shown."""
_NO_TIME: Final = Sums(0.0, 0.0, 0.0, 0.0)


class Entry:
    """What the access log has of one request that has ended.

    Attributes:
        client: the client's address; empty on a Unix socket.
        method, target, version: as sent; a refused request has none of these.
        request: these three, escaped; of a refused request its first line, as far as it came.
        status: the status code; None if none was sent.
        size: bytes of the response's body that were sent.
        sums: where the time went.
        call: the request's; None of a refused one.
    """

    __slots__ = (
        "call",
        "client",
        "method",
        "request",
        "size",
        "status",
        "sums",
        "target",
        "version",
    )

    def __init__(self, client: str, request: str, status: int | None, size: int) -> None:
        self.client = client
        self.method = self.target = self.version = ""
        self.request = request
        self.status = status
        self.size = size
        self.sums = _NO_TIME
        self.call: Call | None = None

    @classmethod
    def of(cls, call: Call) -> Entry:
        """Return the entry of a call that has ended."""
        stream = call.stream
        asked = stream.request
        target = asked.target.decode("latin-1")
        code = stream.head.code if stream.head is not None and stream.head_sent else None
        request = escaped(f"{asked.method} {target} HTTP/{asked.version}")
        entry = cls(stream.peer.client_host, request, code, stream.sent)
        entry.method, entry.target, entry.version = asked.method, target, asked.version
        entry.sums = call.times.sums(call.started)[1]
        entry.call = call
        return entry

    @property
    def seconds(self) -> float:
        """Seconds from the end of the request's head to the end of the request."""
        return sum(self.sums)

    @property
    def request_id(self) -> str:
        """The request's id; empty where requests have none."""
        identity = None if self.call is None else self.call.stream.identity
        return "" if identity is None else identity.id

    @property
    def trace_id(self) -> str:
        """The id of the request's trace; empty if it has none."""
        return "" if self.call is None else trace_of(self.call.stream.request)

    @property
    def scheme(self) -> str:
        """``http`` or ``https``; empty of a refused request."""
        return "" if self.call is None else self.call.stream.peer.scheme

    @property
    def thread(self) -> str:
        """Where it ran; empty if it has not begun."""
        return "" if self.call is None else self.call.thread_name

    def header(self, name: bytes) -> str:
        """Return a header of the request; empty if it has none. Repeated ones are joined."""
        if self.call is None:
            return ""
        headers = self.call.stream.request.headers
        return ", ".join(value.decode("latin-1") for each, value in headers if each.lower() == name)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _text(text: str) -> str:
    return escaped(text) or "-"


FIELDS: Final[dict[str, Callable[[Entry], str]]] = {
    "time": lambda _: stamp(time()),
    "client": lambda entry: entry.client or "-",
    "request": lambda entry: entry.request or "-",
    "method": lambda entry: _text(entry.method),
    "target": lambda entry: _text(entry.target),
    "path": lambda entry: _text(entry.target.partition("?")[0]),
    "version": lambda entry: entry.version or "-",
    "status": lambda entry: "-" if entry.status is None else str(entry.status),
    "bytes": lambda entry: str(entry.size),
    "seconds": lambda entry: _seconds(entry.seconds),
    "queued": lambda entry: _seconds(entry.sums.queued),
    "running": lambda entry: _seconds(entry.sums.running),
    "waiting": lambda entry: _seconds(entry.sums.waiting),
    "sending": lambda entry: _seconds(entry.sums.sending),
    "scheme": lambda entry: entry.scheme or "-",
    "host": lambda entry: _text(entry.header(b"host")),
    "agent": lambda entry: _text(entry.header(b"user-agent")),
    "referer": lambda entry: _text(entry.header(b"referer")),
    "request_id": lambda entry: entry.request_id or "-",
    "trace_id": lambda entry: entry.trace_id or "-",
    "thread": lambda entry: entry.thread or "-",
    "process": lambda _: str(os.getpid()),
}
"""The fields of a form, and how each is written."""


def _plain(entry: Entry) -> str:
    size, seconds = entry.size, entry.seconds
    status = "-" if entry.status is None else entry.status
    return f'{entry.client or "-"} "{entry.request or "-"}" {status} {size} {seconds:.3f}s'


def _times(entry: Entry) -> str:
    pairs = zip(entry.sums._fields, entry.sums, strict=True)
    return _plain(entry) + "".join(f" {name}={seconds:.3f}" for name, seconds in pairs)


def _json(entry: Entry) -> str:
    times = zip(entry.sums._fields, entry.sums, strict=True)
    fields: dict[str, Any] = {
        "time": stamp(time(), "T"),
        "level": "info",
        "logger": access.name,
        "client": entry.client,
        "method": entry.method,
        "target": entry.target or entry.request,
        "version": entry.version,
        "status": entry.status,
        "bytes": entry.size,
        "seconds": round(entry.seconds, 6),
        **{name: round(seconds, 6) for name, seconds in times},
        "scheme": entry.scheme,
        "host": entry.header(b"host"),
        "agent": entry.header(b"user-agent"),
        "referer": entry.header(b"referer"),
        "request_id": entry.request_id,
        "trace_id": entry.trace_id,
    }
    return json.dumps(fields)


_FORMS: Final[dict[str, Callable[[Entry], str]]] = {"plain": _plain, TIMES: _times, "json": _json}


def form_of(text: str) -> Callable[[Entry], str]:
    """Return what writes an entry in a form: the setting ``access_format``.

    Raises:
        SettingError: there is no such form, or no such field; the message is one line.
    """
    form = _FORMS.get(text)
    if form is not None:
        return form
    try:
        parts = list(Template().parse(text))
    except ValueError as error:
        raise SettingError(f"access_format is {text!r}: {error}") from None
    if all(name is None for _, name, _, _ in parts):
        raise SettingError(
            f"access_format is {text!r}: it may be {', '.join(_FORMS)}, or a text with fields like "
            "{client}, {request} and {status}"
        )
    made: list[tuple[str, Callable[[Entry], str] | None]] = []
    for literal, name, spec, conversion in parts:
        if name is not None and (name not in FIELDS or spec or conversion):
            raise SettingError(f"access_format has {{{name}}}: {_advice(name)}")
        made.append((literal, None if name is None else FIELDS[name]))

    def write(entry: Entry) -> str:
        return "".join(
            literal if field is None else literal + field(entry) for literal, field in made
        )

    return write


def _advice(name: str) -> str:
    if name in FIELDS:
        return "a field has a name and nothing else"
    near = difflib.get_close_matches(name, FIELDS, 1)
    if near:
        return f"did you mean {{{near[0]}}}?"
    return f"the fields are {', '.join(FIELDS)}"


class AccessLog:
    """Writes the access log of a server; from any thread.

    Args:
        form: the setting ``access_format``.

    Raises:
        SettingError: there is no such form.
    """

    def __init__(self, form: str) -> None:
        self._write = form_of(form)

    def ended(self, call: Call) -> None:
        """Write a call's line; on its thread, when it has ended."""
        access.info("%s", self._write(Entry.of(call)))

    def refused(self, error: RemoteProtocolError, client: str) -> None:
        """Write the line of a request that was refused; on the loop."""
        size = len(f"{error}\n".encode())  # the answer's text
        access.info("%s", self._write(Entry(client, _first_line(error), error.status, size)))


def stamped(form: str) -> bool:
    """Whether the lines of a form have their time in them; else the handler adds it."""
    return form not in ("plain", TIMES)


def log_refusal(error: RemoteProtocolError, client: str) -> None:
    """Write to the log why a request was refused. Its bytes may be anything.

    Args:
        error: why, with what came.
        client: its address; empty on a Unix socket.
    """
    text = _first_line(error) or "-"
    log.debug('refused with %d: %s: %s "%s"', error.status, error, client or "-", text)


def log_broken_off(call: Call, error: RemoteProtocolError) -> None:
    """Write why a request's body was refused; its line in the access log comes with its end."""
    described = call.describe()
    log.debug("refused with %d: %s: the body of %s", error.status, error, described)


def _first_line(error: RemoteProtocolError) -> str:
    first, end, _ = error.head.partition(b"\r\n")
    text = plain(first[:_SHOWN])
    return text if len(first) <= _SHOWN and (end or not first) else f"{text}..."
