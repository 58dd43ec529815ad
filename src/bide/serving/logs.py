"""Log lines for people: the server's own, and one for each request."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final, TextIO

from bide.errors import RemoteProtocolError, SettingError
from bide.exchange.call import Call
from bide.serving.lines import LineHandler, Writer
from bide.serving.loggers import access, hear_python, log, relay_handlers
from bide.settings import TIMES, Settings
from bide.waiting.times import Sums

_OFF: Final = logging.CRITICAL + 1
_SHOWN: Final = 200
"""Bytes of a refused request's first line that are shown."""
_NO_TIME: Final = Sums(0.0, 0.0, 0.0, 0.0)

# What would let a client write lines of its own, or steer a terminal (CVE-2020-7694).
_CONTROLS: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_NOT_PLAIN: Final = re.compile(r'["\\]|[^\x20-\x7e]')
_UNSAFE: Final = re.compile(r'["\\\x00-\x1f\x7f-\x9f]')


class LineFormatter(logging.Formatter):
    """Writes a record's first line at the margin, and indents the others, such as a traceback.

    Control characters are escaped. An application's error may quote its client, who could write
    log lines of its own with them, or steer a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's lines."""
        first, *rest = super().format(record).split("\n")
        lines = [first, *(each if each[:1] == " " else f"  {each}" for each in rest)]
        return "\n".join(_CONTROLS.sub(_escape, each) for each in lines)


def configure(settings: Settings) -> Callable[[], None]:
    """Send Bide's log to standard error, and the access log where the settings say.

    Handlers that somebody else has given to these loggers stay, and Bide's own are left out. Call
    this where the server is the whole program; in anybody else's program logging is theirs.

    Returns:
        A function to call when the application has been imported, since it may have configured
        logging.

    Raises:
        SettingError: the access log cannot be written, or the log configuration is wrong.
    """
    named: frozenset[str] = frozenset()
    if settings.log_config:
        from bide.serving.log_config import (
            apply,  # what it imports takes 20 ms, and is seldom needed
        )

        named = apply(settings.log_config)
    writer = Writer(sys.stderr, "the log")
    handler = LineHandler(writer)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    lines = _access_handler(settings.access_log) if settings.access_log else None
    hear_python(writer)

    def settle() -> None:
        _settle_log(settings, handler)
        _settle_access(lines, "bide.access" in named)
        relay_handlers(writer)

    settle()
    return settle


def _settle_log(settings: Settings, handler: LineHandler) -> None:
    theirs = [each for each in log.handlers if not isinstance(each, LineHandler)]
    if theirs or (settings.log_config and log.propagate and logging.getLogger().handlers):
        log.handlers = theirs
        if log.level == logging.NOTSET:
            log.setLevel(settings.level)
        return
    log.handlers = [handler]
    log.setLevel(settings.level)
    log.propagate = False


def _settle_access(handler: LineHandler | None, named: bool) -> None:
    theirs = [each for each in access.handlers if not isinstance(each, LineHandler)]
    access.handlers = theirs if handler is None else [*theirs, handler]
    if not theirs and not named:
        access.propagate = False
        # Configuring a parent resets what a logger's level was.
        access.setLevel(logging.INFO if handler is not None else _OFF)
    elif access.level in (logging.NOTSET, _OFF):
        access.setLevel(logging.INFO)


def _access_handler(path: str) -> LineHandler:
    stream: TextIO = sys.stdout
    if path != "-":
        try:
            stream = open(path, "a", encoding="utf-8")  # noqa: SIM115 - for the process's life
        except OSError as error:
            raise SettingError(f"cannot write the access log {path}: {error.strerror}") from error
    handler = LineHandler(Writer(stream, "the access log"))
    formatter = logging.Formatter("%(message)s [%(asctime)s]")
    handler.setFormatter(formatter)
    return handler


def say(level: int, message: str, *args: object) -> None:
    """Write to Bide's own log without calling any handler of the application's on this thread.

    For threads that must not be held up.
    """
    if log.isEnabledFor(level):
        record = log.makeRecord(log.name, level, __file__, 0, message, args, None)
        if log.queue_lines(record) and log.relay is not None:
            log.relay.put(partial(logging.Logger.callHandlers, log, record))


def log_access(form: str, call: Call) -> None:
    """Write a call's line to the access log; on its thread, when it has ended.

    Args:
        form: the setting ``access_format``.
        call: the one that has ended.
    """
    stream = call.stream
    request = stream.request
    sums = call.times.look(call.started)[1] if form == TIMES else None
    access.info(
        "%s",
        access_line(
            stream.peer.client_host,
            request.method,
            request.target.decode("latin-1"),
            request.version,
            str(stream.head.code) if stream.head is not None and stream.head_sent else "-",
            stream.sent,
            monotonic() - call.started if sums is None else sum(sums),
            sums,
        ),
    )


def access_line(
    client: str,
    method: str,
    target: str,
    version: str,
    code: str,
    size: int,
    seconds: float,
    sums: Sums | None = None,
) -> str:
    """Return one request's line: client, request, status (``-``: none was sent), bytes, seconds.

    With ``sums`` it says where the seconds went.
    """
    request = escaped(f"{method} {target} HTTP/{version}")
    return f'{client or "-"} "{request}" {code} {size} {seconds:.3f}s{_shown(sums)}'


def _shown(sums: Sums | None) -> str:
    if sums is None:
        return ""
    return "".join(
        f" {name}={seconds:.3f}" for name, seconds in zip(sums._fields, sums, strict=True)
    )


def log_refusal(error: RemoteProtocolError, client: str, form: str) -> None:
    """Write why a request was refused, and its line in the access log.

    Its bytes may be anything.

    Args:
        error: why, with what came.
        client: its address; empty on a Unix socket.
        form: the setting ``access_format``; empty where the server writes no access log.
    """
    first, end, _ = error.head.partition(b"\r\n")
    text = _NOT_PLAIN.sub(_escape, first[:_SHOWN].decode("latin-1"))
    if len(first) > _SHOWN or not (end or not first):
        text += "..."
    log.debug('refused with %d: %s: %s "%s"', error.status, error, client or "-", text or "-")
    if form:
        size = len(f"{error}\n".encode())  # the answer's text
        shown = _shown(_NO_TIME if form == TIMES else None)
        access.info("%s", f'{client or "-"} "{text or "-"}" {error.status} {size} 0.000s{shown}')


def log_broken_off(call: Call, error: RemoteProtocolError) -> None:
    """Write why a request's body was refused; its line in the access log comes with its end."""
    described = call.describe()
    log.debug("refused with %d: %s: the body of %s", error.status, error, described)


def escaped(text: str) -> str:
    """Return a text in which controls, quotes and backslashes are escaped: it breaks no line."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"
