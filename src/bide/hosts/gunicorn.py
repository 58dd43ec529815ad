"""Bide's own serving under gunicorn's arbiter: ``gunicorn -k bide.hosts.gunicorn.Worker app:app``.

The arbiter does what it always does: binding, starting and replacing processes, reload,
``max_requests``, its logs and its hooks. Where Bide has a setting that gunicorn has too, gunicorn's
value counts. Bide's other settings are read from ``BIDE_…`` variables.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from time import monotonic
from types import SimpleNamespace
from typing import Any, Final

from gunicorn import util
from gunicorn.errors import AppImportError
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker as Base

from bide.applications.mounts import Mounts
from bide.configuration import Configuration
from bide.environment import variable
from bide.errors import SettingError, StartError
from bide.exchange.call import Call
from bide.exchange.stream import Stream
from bide.serving.server import Server
from bide.settings import Settings
from bide.waiting.cleanups import cleanup_time
from bide.wsgi.conversation import Conversation
from bide.wsgi.environ import request_environ
from bide.wsgi.site import Site

BEAT: Final = 1.0
"""Seconds between two signs of life for the arbiter, at most."""
BOOT_ERROR: Final = 3
"""The exit code that lets the arbiter stop, in place of starting another worker that fails too."""
RELOAD: Final = 1.0
"""Seconds that requests have to finish with ``--reload``: no worker serves meanwhile."""
ARRIVAL: Final = 0.1
"""Seconds in which requests still come on connections that were accepted before a stop."""
LAST: Final = 1.0
"""Seconds for ``worker_exit`` when the worker ends at once, though a thread may still run."""

TAKEN: Final = {
    "threads": "threads",
    "limit_connections": "worker_connections",
    "graceful_timeout": "graceful_timeout",
    "limit_fields": "limit_request_fields",
    "limit_request_line": "limit_request_line",
}
"""Bide's settings that are gunicorn's, by gunicorn's names. Where gunicorn's has its default, a
``BIDE_…`` variable counts."""
_ANY: Final = {"limit_request_fields": 32768, "limit_request_line": 1024 * 1024}  # gunicorn's 0
_ABSENT: Final = {"certfile": None, "keyfile": None, "proxy_protocol": "off", "protocol": "http"}


class Worker(Base):
    """A gunicorn worker class: one process in which Bide serves; for ``gunicorn -k``."""

    @classmethod
    def setup(cls) -> None:
        """Called by gunicorn before it imports an application: refuse ``bide.mount`` by name."""
        # Gunicorn's own line for it says only that it must be callable.
        vars(util)["callable"] = _is_application

    def init_process(self) -> None:
        """Called by the arbiter: start, or exit if a setting of gunicorn's is not supported."""
        missing = [
            name
            for name, without in _ABSENT.items()
            if getattr(self.cfg, name, None) not in (None, False, without)
        ]
        if missing:
            self.log.error(
                "the worker bide.hosts.gunicorn.Worker has no %s: use a proxy in front for that, "
                "or another worker class",
                ", ".join(missing),
            )
            sys.exit(BOOT_ERROR)
        super().init_process()

    def run(self) -> None:
        """Serve until the arbiter, or ``max_requests``, ends it."""
        _route_log(self.log.error_log)
        runner = asyncio.Runner()
        try:
            runner.run(self._serve())
        except StartError as error:
            self.log.error("%s", error)
            sys.exit(BOOT_ERROR)
        _exit_within(cleanup_time.seconds)  # whatever threads of the application still do
        runner.close()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        stopping = self._stopping = asyncio.Event()
        listeners = [socket.socket(fileno=os.dup(each.fileno())) for each in self.sockets]
        front = _Front(self)
        settings = _settings(self.cfg, os.environ)
        server = Server(
            self.wsgi,
            settings,
            listeners=listeners,
            make=front.make,
            ended=front.ended,
            environ={"wsgi.multiprocess": self.cfg.workers > 1},
            strips=bool(settings.trust),
        )
        await server.start()
        for number, handler in (
            (signal.SIGTERM, self.stop),
            (signal.SIGINT, self._quit),
            (signal.SIGQUIT, self._quit),
            (signal.SIGUSR1, self.log.reopen_files),
        ):
            loop.add_signal_handler(number, handler)
        loop.add_reader(self.PIPE[0], self._look)  # the reloader writes there
        beating = loop.create_task(self._beat())
        await stopping.wait()
        loop.remove_reader(self.PIPE[0])
        server.stop_accepting()  # another worker accepts what comes now
        await asyncio.sleep(ARRIVAL)
        await server.stop()  # which may take its time: the arbiter is told of life meanwhile
        beating.cancel()

    async def _beat(self) -> None:
        seconds = min(BEAT, self.timeout / 2) if self.timeout else BEAT
        while True:
            self.notify()
            self._look()
            await asyncio.sleep(seconds)

    def _look(self) -> None:
        if not self.alive or self.ppid != os.getppid():
            self.stop()

    def stop(self) -> None:
        """Finish what is in progress, and end; on the loop."""
        self.alive = False
        self._stopping.set()

    def _quit(self) -> None:
        """End at once, as gunicorn's other workers do on SIGQUIT and SIGINT."""
        self.alive = False
        self.cfg.worker_int(self)
        _exit_within(LAST)
        sys.exit(0)  # through the loop, to the arbiter's worker_exit


def _is_application(found: object) -> bool:
    """Return whether gunicorn may serve an object, where it asks for a callable.

    Raises:
        AppImportError: it is several applications.
    """
    if isinstance(found, Mounts):
        raise AppImportError(
            "gunicorn serves one application, and bide.mount() is several: write "
            "bide.blocking(bide.mount({...})), or start with bide in place of gunicorn"
        )
    return callable(found)


def _exit_within(seconds: float) -> None:
    """End the process after ``seconds``, even if Python still waits for threads at its end."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _settings(cfg: Any, environ: Mapping[str, str]) -> Settings:
    """Return Bide's settings, from gunicorn's settings and the variables.

    Raises:
        SettingError: a setting has a value that Bide cannot have, or not under gunicorn.
    """
    configuration = Configuration()
    configuration.take_environment(environ)
    options = configuration.values
    if options.get("reactor", "asyncio") != "asyncio":
        raise SettingError(
            f"{variable('reactor')} is {options['reactor']!r}: gunicorn's workers run asyncio's "
            "loop; start with bide --reactor twisted"
        )
    for ours, theirs in TAKEN.items():
        value = getattr(cfg, theirs)
        if ours not in options or value != cfg.settings[theirs].default:
            configuration.give(ours, value or _ANY.get(theirs, value), f"gunicorn's {theirs}")
    graceful = float(options["graceful_timeout"])
    # The arbiter kills when its time is over: what waits then is to be cancelled before.
    graceful -= min(2.0, graceful / 5)
    options["interface"] = "wsgi"
    options["graceful_timeout"] = min(graceful, RELOAD) if cfg.reload else graceful
    return configuration.settings()


class _Front:
    """Applies gunicorn's configuration to each request, and to its end.

    Attributes:
        worker: the worker that serves.
    """

    def __init__(self, worker: Worker) -> None:
        cfg, log = worker.cfg, worker.log
        self.worker = worker
        self._root = os.fsencode(os.environ.get("SCRIPT_NAME", "").rstrip("/"))
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)  # next() is atomic: requests end on many threads
        # A logger of another class may count what it does not write, as statsd's does.
        self._logs = _writes_access(cfg) or type(log).access is not Logger.access
        observed = (
            self._logs
            or log.error_log.isEnabledFor(logging.DEBUG)
            or any(
                getattr(cfg, name) is not cfg.settings[name].default
                for name in ("pre_request", "post_request")
            )
        )
        self._kind = _Observed if observed else _Behind
        self._trusts = _trusted(cfg.forwarded_allow_ips)
        self._secure = {
            f"HTTP_{name.upper().replace('-', '_')}": value
            for name, value in cfg.secure_scheme_headers.items()
        }

    def make(self, site: Site, stream: Stream, *args: Any) -> Conversation:
        """Make a stream's conversation, with gunicorn's hooks around it if it has any."""
        stream.request.mount(self._root)
        return self._kind(self, site, stream, *args)

    def ended(self, call: Call) -> None:
        """Called when a call has ended; on its thread. Logs it, and counts for ``max_requests``."""
        worker = self.worker
        if self._logs and isinstance(call, _Observed):
            call.log_access()
        worker.nr = number = next(self._numbers)
        if number == worker.max_requests and not self._loop.is_closed():
            worker.log.info("Autorestarting worker after current request.")
            self._loop.call_soon_threadsafe(worker.stop)

    def secures(self, environ: dict[str, Any]) -> bool:
        """Whether a trusted proxy says that its client came by TLS (``forwarded_allow_ips``).

        As in gunicorn, a peer on a Unix socket is trusted. If two headers disagree, gunicorn
        refuses the request; here it counts as not secure.
        """
        said = [environ[name] == value for name, value in self._secure.items() if name in environ]
        connected = environ.get("bide.proxy", environ["REMOTE_ADDR"])
        return bool(said) and all(said) and self._trusts(connected)


def _writes_access(cfg: Any) -> bool:
    """Whether gunicorn's own logger would write a line for a request."""
    configured = cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json
    return bool(configured or (cfg.syslog and not cfg.disable_redirect_access_to_syslog))


def _trusted(allowed: Any) -> Any:
    """Return a function that tells whether an address is in gunicorn's ``forwarded_allow_ips``."""
    if isinstance(allowed, str):
        allowed = allowed.split(",")
    if "*" in allowed:
        return lambda _: True
    networks = [ipaddress.ip_network(each.strip(), strict=False) for each in allowed if each]

    @lru_cache(1024)
    def trusts(address: str) -> bool:
        if not address:  # a Unix socket's peer
            return True
        host = ipaddress.ip_address(address.partition("%")[0])
        return any(host in network for network in networks)

    return trusts


class _Behind(Conversation):
    """A conversation behind gunicorn's proxies."""

    __slots__ = ("_front",)

    def __init__(self, front: _Front, *args: Any) -> None:
        super().__init__(*args)
        self._front = front

    def environ(self) -> dict[str, Any]:
        """Make the application's environ."""
        environ = super().environ()
        if self._front.secures(environ):
            environ["wsgi.url_scheme"] = "https"
        return environ


class _Observed(_Behind):
    """A conversation with gunicorn's ``pre_request``, ``post_request`` and access log around it."""

    __slots__ = ("_environ", "_request", "_seen", "_worker")

    def __init__(self, front: _Front, *args: Any) -> None:
        super().__init__(front, *args)
        self._worker = front.worker
        self._request = _request(self)
        self._environ: dict[str, Any] | None = None
        self._seen: dict[str, Any] | None = None

    def environ(self) -> dict[str, Any]:
        """Call ``pre_request``, and make the application's environ."""
        self.waiter.ends += (self._after,)
        self._worker.cfg.pre_request(self._worker, self._request)
        self._environ = super().environ()
        return self._environ

    def start_response(self, *args: Any, **options: Any) -> Any:
        """Keep a copy of the environ for the log, with what middleware has added, and go on."""
        # From here on the environ may hold finish, which must not be kept here: see bide.wsgi.push.
        environ, self._environ = self._environ, None
        if environ is not None:
            self._seen = {k: v for k, v in environ.items() if isinstance(v, (str, int))}
        return super().start_response(*args, **options)

    def _after(self) -> None:
        worker = self._worker
        try:
            worker.cfg.post_request(worker, self._request, self._logged(), _response(self))
        except Exception:  # a deployer's hook; gunicorn's own workers log it in these words
            worker.log.exception("Exception in post_request hook")

    def _logged(self) -> dict[str, Any]:
        stream, base = self.stream, self.site.environ
        return self._seen or self._environ or request_environ(base, stream.peer, stream.request)

    def log_access(self) -> None:
        """Write gunicorn's line."""
        taken = timedelta(seconds=monotonic() - self.started)
        log: Any = self._worker.log  # it reads attributes, whatever the type
        try:
            log.access(_response(self), self._request, self._logged(), taken)
        except Exception:  # an error of a deployer's logger must not end a connection
            log.exception("the access log failed")


def _request(conversation: Conversation) -> SimpleNamespace:
    """Return what gunicorn's hooks and log read of a request."""
    request = conversation.stream.request
    return SimpleNamespace(
        method=request.method,
        uri=request.target.decode("latin-1"),
        path=request.raw_path.decode("latin-1"),
        query=request.query.decode("latin-1"),
        version=tuple(int(each) for each in request.version.split(".")),
        headers=[
            (name.decode("latin-1").upper(), value.decode("latin-1"))
            for name, value in request.headers
        ],
        remote_addr=conversation.stream.peer.client_host,
    )


def _response(conversation: Conversation) -> SimpleNamespace:
    """Return what gunicorn's hooks and log read of a response; 499, as nginx, where none began."""
    stream = conversation.stream
    head = stream.head if stream.head_sent else None
    return SimpleNamespace(
        status="499 Client Closed Request" if head is None else f"{head.code} {head.reason}",
        status_code=499 if head is None else head.code,
        headers=[] if head is None else head.headers,
        sent=stream.sent,
        response_length=None if head is None else head.length,
    )


def _route_log(log: logging.Logger) -> None:
    """Write Bide's log where gunicorn's error log goes."""
    ours = logging.getLogger("bide")
    if not ours.handlers:  # else the deployer has configured it (``logconfig``)
        ours.handlers = list(log.handlers)
        ours.setLevel(log.level)
        ours.propagate = log.propagate
