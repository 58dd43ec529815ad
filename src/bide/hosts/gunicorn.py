"""Bide's own serving under gunicorn's arbiter: ``gunicorn -k bide.hosts.gunicorn.Worker app:app``.

The arbiter keeps what it does: binding, starting and replacing processes, reload, ``max_requests``,
its logs and its hooks. Gunicorn's settings that a server of requests needs are taken over where
Bide has the same; Bide's other settings are read from ``BIDE_…`` variables.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
from datetime import timedelta
from time import monotonic
from types import SimpleNamespace
from typing import Any, Final

from gunicorn.workers.base import Worker as Base

from bide.conversation import Conversation
from bide.environ import request_environ
from bide.errors import StartError
from bide.server import Server
from bide.settings import Settings, from_environment
from bide.stream import Stream

BEAT: Final = 1.0
"""Seconds between two signs of life for the arbiter, whose own time-out is whole seconds."""
BOOT_ERROR: Final = 3
"""The exit code that lets the arbiter stop, in place of starting another worker that fails too."""


class Worker(Base):
    """A gunicorn worker: one process that serves by Bide, as the arbiter says."""

    def init_process(self) -> None:
        """Start, unless gunicorn is configured for what Bide has not; called by the arbiter."""
        missing = [
            name
            for name in ("certfile", "keyfile", "proxy_protocol")
            if getattr(self.cfg, name) not in (None, False, "off")
        ]
        if missing:
            self.log.error(
                "the worker bide.hosts.gunicorn.Worker has no %s: leave it to a proxy in front, or "
                "take another worker class",
                ", ".join(missing),
            )
            sys.exit(BOOT_ERROR)
        super().init_process()

    def run(self) -> None:
        """Serve until the arbiter, or ``max_requests``, ends it."""
        _route_log(self.log.error_log)
        try:
            asyncio.run(self._serve())
        except StartError as error:
            self.log.error("%s", error)
            sys.exit(BOOT_ERROR)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        stopping = self._stopping = asyncio.Event()
        listeners = [socket.socket(fileno=os.dup(each.fileno())) for each in self.sockets]
        server = _Server(self, listeners)
        await server.start()
        for number, handler in (
            (signal.SIGTERM, self.stop),
            (signal.SIGINT, self._quit),
            (signal.SIGQUIT, self._quit),
            (signal.SIGUSR1, self.log.reopen_files),
        ):
            loop.add_signal_handler(number, handler)
        try:
            while self.alive and self.ppid == os.getppid():
                self.notify()
                try:
                    await asyncio.wait_for(stopping.wait(), BEAT)
                except TimeoutError:
                    continue
                break
        finally:
            beating = loop.create_task(self._beat())  # finishing may take its time
            await server.stop()
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            self.notify()
            await asyncio.sleep(BEAT)

    def stop(self) -> None:
        """Finish what is in progress, and end; on the loop."""
        self.alive = False
        self._stopping.set()

    def _quit(self) -> None:
        """End at once, as gunicorn's other workers do on SIGQUIT and SIGINT."""
        self.alive = False
        self.cfg.worker_int(self)
        os._exit(0)


class _Server(Server):
    """A server whose listeners, log and hooks are gunicorn's."""

    def __init__(self, worker: Worker, listeners: list[socket.socket]) -> None:
        cfg = worker.cfg
        options = {
            "threads": cfg.threads,
            "limit_connections": cfg.worker_connections,
            "graceful_timeout": float(cfg.graceful_timeout),
            "limit_fields": cfg.limit_request_fields,
            # 0 is gunicorn's word for any length.
            "limit_request_line": cfg.limit_request_line or 1024 * 1024,
        }
        settings = Settings(**(from_environment(os.environ) | options))
        super().__init__(worker.wsgi, settings, listeners=listeners)
        self._worker = worker
        self._numbers = itertools.count(1)  # next() is atomic: requests end on many threads
        self._trusted = frozenset(
            cfg.forwarded_allow_ips
            if isinstance(cfg.forwarded_allow_ips, list)
            else cfg.forwarded_allow_ips.split(",")
        )
        self._secure = {
            f"HTTP_{name.upper().replace('-', '_')}": value
            for name, value in cfg.secure_scheme_headers.items()
        }

    async def start(self) -> None:
        """Serve on gunicorn's sockets."""
        await super().start()
        self._access = False  # gunicorn's line is written in place of Bide's
        self._environ["wsgi.multiprocess"] = self._worker.cfg.workers > 1

    def conversation(self, stream: Stream, environ: dict[str, Any]) -> Conversation:
        """Make a stream's conversation, with gunicorn's hooks around it."""
        return _Hooked(self, stream, environ, self._executor.waiter())

    def done(self, conversation: Conversation) -> None:
        """Count, for ``max_requests``, and log; from the conversation's thread."""
        worker = self._worker
        if next(self._numbers) == worker.max_requests:
            worker.log.info("Autorestarting worker after current request.")
            self.loop.call_soon_threadsafe(worker.stop)
        super().done(conversation)
        if worker.log.access_log_enabled and isinstance(conversation, _Hooked):
            conversation.log_access()

    def secures(self, environ: dict[str, Any]) -> bool:
        """Say whether a trusted proxy says that its client came by TLS (``forwarded_allow_ips``).

        As in gunicorn, a peer on a Unix socket is trusted.
        """
        if not self._trusted & {"*", environ["REMOTE_ADDR"]} and environ["REMOTE_ADDR"]:
            return False
        return any(environ.get(name) == value for name, value in self._secure.items())


class _Hooked(Conversation):
    """A conversation with gunicorn's ``pre_request`` and ``post_request`` around it."""

    __slots__ = ("_server",)

    def __init__(self, server: _Server, stream: Stream, base: dict[str, Any], waiter: Any) -> None:
        super().__init__(server, stream, base, waiter)
        self._server = server

    def run(self) -> None:
        """Run between the two hooks; what they raise is logged, as gunicorn does."""
        worker = self._server._worker
        request = _request(self)
        try:
            worker.cfg.pre_request(worker, request)
            super().run()
        finally:
            try:
                worker.cfg.post_request(worker, request, self._plain_environ(), _response(self))
            except Exception:
                worker.log.exception("Exception in post_request hook")

    def environ(self) -> dict[str, Any]:
        """Make the application's environ, with the scheme that a trusted proxy tells."""
        environ = super().environ()
        if self._server.secures(environ):
            environ["wsgi.url_scheme"] = "https"
        return environ

    def _plain_environ(self) -> dict[str, Any]:
        return request_environ(self._base, self.stream.request)

    def log_access(self) -> None:
        """Write gunicorn's line."""
        taken = timedelta(seconds=monotonic() - self.started)
        log: Any = self._server._worker.log  # it looks at attributes, not at types
        log.access(_response(self), _request(self), self._plain_environ(), taken)


def _request(conversation: Conversation) -> SimpleNamespace:
    """Give what gunicorn's hooks and log read of a request."""
    request = conversation.stream.request
    return SimpleNamespace(
        method=request.method,
        uri=request.target.decode("latin-1"),
        path=request.path.decode("latin-1"),
        query=request.query.decode("latin-1"),
        version=tuple(int(each) for each in request.version.split(".")),
        headers=[
            (name.decode("latin-1").upper(), value.decode("latin-1"))
            for name, value in request.headers
        ],
        remote_addr=conversation.client,
    )


def _response(conversation: Conversation) -> SimpleNamespace:
    """Give what gunicorn's hooks and log read of a response."""
    stream = conversation.stream
    head = stream.head if stream.head_sent else None
    return SimpleNamespace(
        status="-" if head is None else f"{head.code} {head.reason}",
        status_code=None if head is None else head.code,
        headers=[] if head is None else head.headers,
        sent=stream.sent,
        response_length=None if head is None else head.length,
    )


def _route_log(log: logging.Logger) -> None:
    """Write Bide's log where gunicorn's error log goes."""
    ours = logging.getLogger("bide")
    ours.handlers = list(log.handlers)
    ours.setLevel(log.level)
    ours.propagate = False
