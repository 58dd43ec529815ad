"""Where the log's lines go: the server's own, and one for each request."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from bide.errors import SettingError
from bide.exchange.identity import current
from bide.serving.access_log import form_of, stamped
from bide.serving.formatters import Formatter, JSONFormatter, LineFormatter
from bide.serving.lines import LineHandler, Writer
from bide.serving.loggers import access, hear_python, log, relay_handlers
from bide.settings import Settings

_OFF: Final = logging.CRITICAL + 1


def configure(settings: Settings) -> Callable[[], None]:
    """Send Bide's log to standard error, and the access log where the settings say.

    Where these loggers have handlers already, those stay, and Bide adds none. Call this only where
    the server is the whole program.

    Returns:
        A function to call when the application has been imported, since it may have configured
        logging.

    Raises:
        SettingError: the access log cannot be written, or has no such form, or the log
            configuration is wrong.
    """
    form_of(settings.access_format)
    named: frozenset[str] = frozenset()
    if settings.log_config:
        from bide.serving.log_config import (
            apply,  # what it imports takes 20 ms, and is seldom needed
        )

        named = apply(settings.log_config)
    writer = Writer(sys.stderr, "the log")
    handler = LineHandler(writer)
    if settings.log_format == "json":
        handler.setFormatter(JSONFormatter())
    else:
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    lines = _access_handler(settings) if settings.access_log else None
    hear_python(writer)
    if settings.request_id or settings.opentelemetry:
        _mark_records()

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


def _access_handler(settings: Settings) -> LineHandler:
    path = settings.access_log
    try:
        writer = Writer(sys.stdout if path == "-" else path, "the access log")
    except OSError as error:
        raise SettingError(f"cannot write the access log {path}: {error.strerror}") from error
    handler = LineHandler(writer)
    timed = stamped(settings.access_format)
    handler.setFormatter(Formatter("%(message)s" if timed else "%(message)s [%(asctime)s]"))
    return handler


class MarkedRecords:
    """Makes each record of logging with ``request_id`` and ``trace_id``: "-" where there is none.

    Args:
        make: what makes records so far.
    """

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: Any, **more: Any) -> logging.LogRecord:
        """Make a record."""
        record = self._make(*args, **more)
        identity = current.get()
        record.request_id = (identity and identity.id) or "-"
        record.trace_id = (identity and identity.trace) or "-"
        return record


def _mark_records() -> None:
    make = logging.getLogRecordFactory()
    if not isinstance(make, MarkedRecords):
        logging.setLogRecordFactory(MarkedRecords(make))


def say(level: int, message: str, *args: object) -> None:
    """Write to Bide's own log without calling any handler of the application's on this thread.

    For threads that must not be held up.
    """
    if log.isEnabledFor(level):
        record = log.makeRecord(log.name, level, __file__, 0, message, args, None)
        if log.queue_lines(record) and log.relay is not None:
            log.relay.put(partial(logging.Logger.callHandlers, log, record))
