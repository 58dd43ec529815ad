"""``twist bide MODULE:NAME``: a web server of Twisted's with one application; its plugin's module.

Imported by Twisted when the command is used.
"""

from __future__ import annotations

import logging
from typing import Any

from twisted.application.service import MultiService
from twisted.application.strports import service
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.usage import Options as Usage
from twisted.python.usage import UsageError
from twisted.web.server import Site

from bide.applications.interfaces import check
from bide.applications.loading import load
from bide.errors import LoadError
from bide.hosts.twisted.resource import Resource

PORT = "tcp:8000"


class Options(Usage):
    """What ``twist bide --help`` lists."""

    synopsis = "[options] MODULE:NAME"
    optParameters = (
        ("app", "a", None, "The WSGI application: MODULE:NAME. Or give it without --app."),
        ("executor", "e", "auto", "Where it runs: auto, loop (the reactor's thread) or threads."),
        ("threads", "t", 4, "Threads that run the application, at most.", int),
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["ports"] = []

    def opt_port(self, description: str) -> None:
        """Where to listen, as Twisted writes it; may be repeated. [default: tcp:8000]."""
        self["ports"].append(description)

    opt_p = opt_port

    def parseArgs(self, app: str | None = None, *rest: str) -> None:
        """Take the application."""
        if rest:
            raise UsageError(f"options go before the application, not behind it: {' '.join(rest)}")
        if app is not None:
            self["app"] = app

    def postOptions(self) -> None:
        """Import the application, and refuse in one line what cannot be served."""
        from twisted.internet import reactor

        if self["app"] is None:
            raise UsageError("name the application: twist bide MODULE:NAME")
        if self["executor"] not in ("auto", "loop", "threads"):
            raise UsageError(f"--executor is {self['executor']!r}: auto, loop or threads")
        if self["threads"] < 1:
            raise UsageError(f"--threads is {self['threads']}: it must be 1 or more")
        self["ports"] = self["ports"] or [PORT]
        for each in self["ports"]:
            try:
                serverFromString(reactor, each)  # type: ignore[no-untyped-call]
            except Exception as error:  # noqa: BLE001 - whatever a parser of Twisted's raises
                raise UsageError(f"--port is {each!r}: {error or type(error).__name__}") from None
        try:
            self["application"] = load(self["app"])
            check(self["application"], self["app"])
        except LoadError as error:
            raise UsageError(str(error)) from error


def makeService(options: Options) -> MultiService:
    """Make the service that listens and serves."""
    from twisted.internet import reactor

    log = logging.getLogger("bide")
    if not log.handlers:
        log.addHandler(_Forwarding())
        log.setLevel(logging.INFO)
        log.propagate = False
    resource = Resource(
        reactor,
        options["application"],
        executor=options["executor"],
        threads=options["threads"],
    )
    site: Any = Site(resource)  # type: ignore[no-untyped-call]
    services = MultiService()  # type: ignore[no-untyped-call]
    for each in options["ports"]:
        services.addService(service(each, site))  # type: ignore[no-untyped-call]
    return services


class _Forwarding(logging.Handler):
    """Writes Bide's log into Twisted's."""

    _log = Logger("bide")
    _levels = (
        (logging.ERROR, LogLevel.error),
        (logging.WARNING, LogLevel.warn),
        (logging.INFO, LogLevel.info),
    )

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, with its traceback; from any thread."""
        level: Any = LogLevel.debug
        for number, name in self._levels:
            if record.levelno >= number:
                level = name
                break
        message = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            self._log.emit(level, "{message}", message=message)
        else:
            failure = Failure(error)  # type: ignore[no-untyped-call]
            self._log.failure("{message}", failure, level, message=message)
