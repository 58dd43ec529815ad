"""Bide's loggers: what an application does to logging neither silences nor blocks them.

They are ``bide`` and ``bide.access``, the same for every module that asks logging for them.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any, TextIO, TypeVar

from bide.serving.lines import RELAYED, LineHandler, Relay, Stream, Writer

T = TypeVar("T", bound="ServerLogger")


class RelayedLogger(logging.Logger):
    """A logger that, once it has a relay, calls its handlers on a thread of its own.

    Handlers that only queue are called at once.
    """

    relay: Relay | None = None

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        """Call the handlers here, or through the relay."""
        if self.relay is None or self.only_queues():
            super().callHandlers(record)
        elif self.queue_lines(record):
            self.relay.put(partial(copy_context().run, super().callHandlers, record))

    def only_queues(self) -> bool:
        """Whether its only handler is one of Bide's, which queues."""
        handlers = self.handlers
        return len(handlers) == 1 and type(handlers[0]) is LineHandler and not self.propagate

    def queue_lines(self, record: logging.LogRecord) -> bool:
        """Call those handlers that only queue.

        Returns:
            Whether the relay must call the others. It must also where there is no handler at all:
            then logging's last resort is called.
        """
        found = others = False
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in list(logger.handlers):
                if not isinstance(handler, LineHandler):
                    others = True
                elif record.levelno >= handler.level:
                    handler.handle(record)
                found = True
            logger = logger.parent if logger.propagate else None
        record.__dict__[RELAYED] = True
        return others or not found


class ServerLogger(RelayedLogger):
    """A logger that only its level can silence.

    ``logging.config`` disables all loggers that a configuration does not name, unless it is told
    otherwise. So Django's LOGGING and Flask's recipes would disable Bide's.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "disabled":
            super().__setattr__(name, value)


class AccessLogger(ServerLogger):
    """The access log's logger, called for every request.

    It does not call logging's own ``callHandlers``, which Sentry and the like replace.
    """

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        """Queue the line at once, if no handler needs the relay."""
        if self.only_queues():
            self.handlers[0].handle(record)
        else:
            super().callHandlers(record)


def _make(name: str, kind: type[T]) -> T:
    logger = logging.getLogger(name)
    logger.__class__ = kind
    assert isinstance(logger, kind)
    vars(logger)["disabled"] = False
    return logger


log = _make("bide", ServerLogger)
access = _make("bide.access", AccessLogger)


_CALLED_ON_THE_LOOP = ("asyncio", "concurrent.futures")
"""Python's loggers that are called on the event loop's thread."""


def relay_handlers(writer: Writer) -> None:
    """Set a relay on each logger that the event loop's thread calls, so that it never waits.

    Call it again when handlers have been added. Handlers of these loggers that write to standard
    error or output queue their lines from now on: a thread that hangs in one of these streams
    would hold its lock at the end of the process.

    Args:
        writer: that of standard error.
    """
    loggers: list[RelayedLogger] = [log, access]
    for name in _CALLED_ON_THE_LOOP:
        logger = logging.getLogger(name)
        if not isinstance(logger, RelayedLogger):
            logger.__class__ = RelayedLogger
        assert isinstance(logger, RelayedLogger)
        loggers.append(logger)
    for each in loggers:
        if each.relay is None:
            each.relay = Relay(f"the logger {each.name}", writer)
    handlers = {id(each): each for logger in loggers for each in _reached(logger)}
    if logging.lastResort is not None:
        last = logging.lastResort = logging.StreamHandler(sys.stderr)
        last.setLevel(logging.WARNING)
        handlers[id(last)] = last
    for handler in handlers.values():
        if isinstance(handler, logging.StreamHandler):
            if handler.stream is sys.stderr:
                handler.setStream(Stream(sys.stderr, writer))
            elif handler.stream is sys.stdout:
                handler.setStream(Stream(sys.stdout, Writer(sys.stdout, "standard output")))


def _reached(logger: logging.Logger) -> Iterator[logging.Handler]:
    above: logging.Logger | None = logger
    while above is not None:
        yield from above.handlers
        above = above.parent if above.propagate else None


def hear_python(writer: Writer) -> None:
    """Queue what Python itself writes to standard error: warnings, and exceptions it ignores.

    A hook that other code has set for one of them stays.
    """
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = partial(_tell_ignored, writer)
    if getattr(warnings.showwarning, "__module__", "") == "warnings":
        warnings.showwarning = partial(_tell_warning, writer, warnings.showwarning)


def _tell_ignored(writer: Writer, ignored: sys.UnraisableHookArgs) -> None:
    where = f"{ignored.err_msg or 'Exception ignored in'}: {ignored.object!r}\n"
    error = ignored.exc_value
    told = traceback.format_exception(ignored.exc_type, error, ignored.exc_traceback)
    writer.put(where + "".join(told))


def _tell_warning(
    writer: Writer,
    show: Callable[..., None],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if file is None:
        writer.put(warnings.formatwarning(message, category, filename, lineno, line))
    else:
        show(message, category, filename, lineno, file, line)
