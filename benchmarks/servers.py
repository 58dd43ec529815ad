"""The servers, each with the command line that starts it.

A command is a template: `{python}` is this interpreter, `{scripts}` its directory of console
scripts, `{prefix}` its environment, `{application}` the `module:name` to serve, `{port}` a free
port on 127.0.0.1, and `{certificate}` and `{key}` the files of the run's certificate. Every server
gets one process that runs the application, or `WORKERS` where its set-up says so, no access log and
room for every client of its scenario. What is set beyond that has its reason beside it.
"""

from __future__ import annotations

import shlex
import sys
import sysconfig
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Final

from .certificate import CERTIFICATE, KEY
from .forms import Form


@dataclass(frozen=True, slots=True)
class Server:
    """One server in one set-up.

    Attributes:
        name: What `--peers` calls it.
        setup: The set-up, in the words of the table.
        distributions: What must be installed; the first one's version is the server's.
        command: The template of its command line.
        packages: A directory whose packages it imports before the installed ones, or `None`.
        tls: Whether it speaks TLS.
        aside: Whether the short table leaves it out, for it does not serve every client.
    """

    name: str
    setup: str
    distributions: tuple[str, ...]
    command: str
    packages: Path | None = None
    tls: bool = False
    aside: bool = False

    @property
    def label(self) -> str:
        """Name and set-up, as the table shows them."""
        return f"{self.name}, {self.setup}"

    def argv(self, application: str, port: int) -> list[str]:
        """Return the command line that serves `application` on 127.0.0.1:`port`."""
        values = {
            "python": sys.executable,
            "scripts": sysconfig.get_path("scripts"),
            "prefix": sys.prefix,
            "application": application,
            "port": str(port),
            "certificate": str(CERTIFICATE),
            "key": str(KEY),
        }
        return [word.format_map(values) for word in shlex.split(self.command)]

    def in_form(self, form: Form) -> Server:
        """Return this server of Bide's in one of its forms."""
        name = form.server + self.name.removeprefix(BIDE)
        return replace(self, name=name, packages=form.packages)

    def over_tls(self) -> Server:
        """Return this server with TLS and the run's certificate."""
        command = f"{self.command} {_TLS_OPTIONS[self.distributions[0]]}"
        return replace(self, setup=f"{self.setup}, TLS", command=command, tls=True)

    def missing(self) -> str | None:
        """Return why this server cannot be measured here, or `None` where it can."""
        for distribution in self.distributions:
            try:
                metadata.version(distribution)
            except metadata.PackageNotFoundError:
                return f"{distribution} is not installed"
        return None

    def versions(self) -> dict[str, str]:
        """Return the installed version of each of its distributions; missing ones are left out."""
        found = {}
        for distribution in self.distributions:
            try:
                found[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
        return found


BIDE: Final = "bide"
"""What the names of Bide's servers begin with before they are in a form."""
WORKERS: Final = 2
"""How many workers a server has that has several."""
_TLS_OPTIONS = {
    BIDE: "--certificate {certificate} --key {key}",
    "granian": "--ssl-certificate {certificate} --ssl-keyfile {key}",
    "gunicorn": "--certfile {certificate} --keyfile {key}",
    "uvicorn": "--ssl-certfile {certificate} --ssl-keyfile {key}",
}


def _count(workers: int, each: str) -> str:
    return each if workers == 1 else f"{workers} workers of {each}"


def _bide(executor: str, threads: int = 4, options: str = "") -> Server:
    return Server(
        BIDE,
        "event loop" if executor == "loop" else f"{threads} threads",
        ("bide", "greenlet", "httptools"),
        "{scripts}/bide {application} --bind 127.0.0.1:{port} --log-level warning"
        f" --executor {executor} --threads {threads}{options}",
    )


def _in_workers(bide: Server, preload: bool) -> Server:
    return replace(
        bide,
        name=f"{BIDE}-preload" if preload else BIDE,
        setup=_count(WORKERS, bide.setup) + (", preloaded" if preload else ""),
        command=f"{bide.command} --workers {WORKERS}" + (" --preload" if preload else ""),
    )


def _granian(threads: int, options: str = "", workers: int = 1) -> Server:
    # --no-ws spares granian the upgrade check; WSGI has no use for it.
    return Server(
        "granian",
        _count(workers, f"{threads:,} threads"),
        ("granian",),
        "{python} -m granian --interface wsgi --http 1 --no-ws --host 127.0.0.1"
        " --port {port} --log-level warning {application}"
        f" --workers {workers} --blocking-threads {threads} {options}",
    )


def _granian_asgi(setup: str, options: str = "", *distributions: str) -> Server:
    return Server(
        "granian",
        setup,
        ("granian", *distributions),
        "{python} -m granian --interface asgi --http 1 --host 127.0.0.1 --port {port}"
        f" --log-level warning {{application}} --workers 1 --loop uvloop {options}",
    )


def _gunicorn(name: str, setup: str, options: str, *distributions: str, workers: int = 1) -> Server:
    return Server(
        name,
        setup,
        ("gunicorn", *distributions),
        "{python} -m gunicorn --bind 127.0.0.1:{port} --log-level warning"
        f" --no-control-socket {{application}} --workers {workers} {options}",
    )


def _gthread(threads: int, options: str = "", workers: int = 1) -> Server:
    options = f"--worker-class gthread --threads {threads} {options}"
    setup = _count(workers, f"{threads} threads")
    return _gunicorn("gunicorn", f"gthread, {setup}", options, workers=workers)


def _waitress(threads: int) -> Server:
    return Server(
        "waitress",
        f"{threads} threads",
        ("waitress",),
        f"{{python}} -m waitress --listen 127.0.0.1:{{port}} --threads {threads} {{application}}",
    )


def _uvicorn(loop: str, setup: str, *distributions: str, workers: int = 1) -> Server:
    return Server(
        "uvicorn",
        setup if workers == 1 else f"{setup}, {workers} workers",
        ("uvicorn", "httptools", *distributions),
        "{python} -m uvicorn --host 127.0.0.1 --port {port} --backlog 4096"
        " --http httptools --log-level warning --no-access-log {application}"
        f" --loop {loop} --workers {workers}",
    )


_UWSGI = (
    "{scripts}/uwsgi --home {prefix} --module {application} --master --die-on-term --threads 4"
    " --listen 1024 --disable-logging"
)
# For every client of a scenario with 2,000 of them.
_ROOM = "--backlog 4096 --backpressure 4096"

bide_threads = _bide("threads")
# All clients begin at once; as many as its queue has no room for would be answered 503.
bide_many = _bide("threads", options=" --queue 4096")
bide_eight = _bide("threads", 8)
bide_loop = _bide("loop")
# For WebSockets; beside a name of its own, where a scenario has it in two set-ups.
bide_asgi = replace(bide_loop, setup="ASGI, event loop")
bide_asgi_sockets = replace(bide_asgi, distributions=(*bide_asgi.distributions, "websockets"))
bide_view_sockets = replace(bide_threads, distributions=bide_asgi_sockets.distributions)
bide_wsgi = replace(bide_threads, name=f"{BIDE}-wsgi", setup="WSGI, 4 threads")
bide_both = replace(bide_threads, setup="Flask on 4 threads, ASGI on the event loop")
bide_workers = _in_workers(bide_threads, preload=False)
bide_preloaded = _in_workers(bide_threads, preload=True)
# 10,000 sockets, and connections beside them.
bide_sockets = replace(
    _bide("threads", options=" --limit-connections 12000"),
    distributions=(*bide_threads.distributions, "websockets"),
)
bide_many_workers = _in_workers(bide_many, preload=False)
bide_many_preloaded = _in_workers(bide_many, preload=True)

granian = _granian(4)
granian_eight = _granian(8)
granian_many = _granian(512, _ROOM)
# One thread for each parked request, and some to count them.
granian_most = _granian(2048, _ROOM)
granian_workers = _granian(4, workers=WORKERS)
granian_many_workers = _granian(512, _ROOM, workers=WORKERS)

granian_asgi = _granian_asgi("plain ASGI, uvloop", "--no-ws", "uvloop")
granian_starlette = _granian_asgi("Starlette, uvloop", "--no-ws", "starlette", "uvloop")
granian_sockets = _granian_asgi("plain ASGI, uvloop", "", "uvloop")

gunicorn_gthread = _gthread(4)
gunicorn_eight = _gthread(8)
gunicorn_workers = _gthread(4, workers=WORKERS)
# The default of 1,000 connections, and of 1,024 waiting to be accepted, would turn clients away.
gunicorn_many_workers = _gthread(512, "--worker-connections 4096 --backlog 4096", workers=WORKERS)
gunicorn_gevent = _gunicorn(
    "gunicorn-gevent",
    "1 process",
    "--worker-class gevent --worker-connections 4096 --backlog 4096",
    "gevent",
    "greenlet",
)

waitress = _waitress(4)
waitress_eight = _waitress(8)
# The only way uWSGI keeps many idle connections open: its HTTP router, a second process.
uwsgi_router = Server(
    "uwsgi",
    "4 threads, behind its HTTP router",
    ("uwsgi",),
    _UWSGI + " --http 127.0.0.1:{port} --http-keepalive=60",
)
# Without the router each connection holds a thread for as long as it is open: four clients are
# served, the others wait, and wrk does not tell.
uwsgi_socket = Server(
    "uwsgi-direct",
    "4 threads, one for each connection",
    ("uwsgi",),
    _UWSGI + " --http11-socket 127.0.0.1:{port}",
    aside=True,
)
granian_http2 = replace(
    granian_asgi, command=granian_asgi.command.replace("--http 1", "--http auto")
)
hypercorn = Server(
    "hypercorn",
    "plain ASGI, uvloop",
    ("hypercorn", "uvloop"),
    "{python} -m hypercorn --bind 127.0.0.1:{port} --log-level warning --worker-class uvloop"
    " --backlog 4096 {application}",
)
cheroot = Server(
    "cheroot",
    "4 threads",
    ("cheroot",),
    "{python} -m cheroot --bind 127.0.0.1:{port} --threads 4 --max-threads 4 {application}",
)
bjoern = Server(
    "bjoern", "event loop", ("bjoern",), "{python} -m benchmarks.run_bjoern {application} {port}"
)
fastpysgi = Server(
    "fastpysgi",
    "event loop",
    ("fastpysgi",),
    "{scripts}/fastpysgi --host 127.0.0.1 --port {port} {application}",
)

uvicorn_starlette = _uvicorn("uvloop", "Starlette, uvloop", "starlette", "uvloop")
uvicorn_sockets = _uvicorn("uvloop", "Starlette, uvloop", "starlette", "uvloop", "websockets")
# asyncio's own loop, as Bide has it.
uvicorn_asyncio = _uvicorn("asyncio", "plain ASGI, asyncio")
uvicorn_uvloop = _uvicorn("uvloop", "plain ASGI, uvloop", "uvloop")
uvicorn_echo = _uvicorn("uvloop", "plain ASGI, uvloop, websockets", "uvloop", "websockets")
uvicorn_adapted = _uvicorn("uvloop", "Flask by a2wsgi, 4 threads, uvloop", "a2wsgi", "uvloop")
uvicorn_workers = _uvicorn("uvloop", "plain ASGI, uvloop", "uvloop", workers=WORKERS)
uvicorn_starlette_workers = _uvicorn(
    "uvloop", "Starlette, uvloop", "starlette", "uvloop", workers=WORKERS
)
