"""How records of the log become lines: for people, or in JSON."""

from __future__ import annotations

import json
import logging
import os
import re
from typing import Any, Final

from bide.exchange.identity import current
from bide.serving.stamps import stamp

# What would let a client write lines of its own, or steer a terminal (CVE-2020-7694).
_CONTROLS: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_NOT_PLAIN: Final = re.compile(r'["\\]|[^\x20-\x7e]')
_UNSAFE: Final = re.compile(r'["\\\x00-\x1f\x7f-\x9f]')


_worker = [0]


def name_worker(number: int) -> None:
    """Name this process, which is a worker, in each line of the log."""
    _worker[0] = number


class Formatter(logging.Formatter):
    """Has times with their zones."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's
        """Return a record's time."""
        return stamp(record.created)


class LineFormatter(Formatter):
    """Writes a record's first line at the margin, and indents the others, such as a traceback.

    Control characters are escaped. An application's error may quote its client, who could write
    log lines of its own with them, or steer a terminal. Lines of a request that has an
    id, or a trace, end with it. Lines of a worker begin with its number and its process's.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        """Return a record's first lines, before a traceback."""
        if _worker[0]:
            record.message = f"[worker {_worker[0]}, {os.getpid()}] {record.message}"
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's lines."""
        first, *rest = super().format(record).split("\n")
        identity = current.get()
        if identity is not None:
            first = f"{first} [{identity.id or identity.trace}]"
        lines = [first, *(each if each[:1] == " " else f"  {each}" for each in rest)]
        return "\n".join(_CONTROLS.sub(_escape, each) for each in lines)


class JSONFormatter(Formatter):
    """Writes a record as one line of JSON, in ASCII: what came from a client is escaped.

    It has ``time`` (RFC 3339), ``level``, ``logger``, ``message`` and, where there is one,
    ``error`` (a traceback), ``worker`` and ``pid`` (of a worker), ``request_id`` and ``trace_id``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line."""
        fields: dict[str, Any] = {
            "time": stamp(record.created, "T"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if _worker[0]:
            fields["worker"], fields["pid"] = _worker[0], os.getpid()
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        identity = current.get()
        if identity is not None:
            if identity.id:
                fields["request_id"] = identity.id
            if identity.trace:
                fields["trace_id"] = identity.trace
        return json.dumps(fields)


def escaped(text: str) -> str:
    """Return a text in which controls, quotes and backslashes are escaped: it breaks no line."""
    return _UNSAFE.sub(_escape, text)


def escaped_lines(text: str) -> str:
    """Return a text of several lines in which controls are escaped."""
    return _CONTROLS.sub(_escape, text)


def plain(data: bytes) -> str:
    """Return bytes of any kind as printable ASCII, the rest escaped."""
    return _NOT_PLAIN.sub(_escape, data.decode("latin-1"))


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"
