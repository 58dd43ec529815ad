"""The servers, each with the command line that starts it.

A command is a template: `{python}` is this interpreter, `{scripts}` its directory of console
scripts, `{prefix}` its environment, `{application}` the `module:name` to serve and `{port}` a free
port on 127.0.0.1. Every server gets one process that runs the application, no access log and room
for every client of its scenario. What is set beyond that has its reason beside it.
"""

from __future__ import annotations

import shlex
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True, slots=True)
class Server:
    """One server in one set-up.

    Attributes:
        name: What `--peers` calls it.
        setup: The set-up, in the words of the table.
        distributions: What must be installed; the first one's version is the server's.
        command: The template of its command line.
    """

    name: str
    setup: str
    distributions: tuple[str, ...]
    command: str

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
        }
        return [word.format_map(values) for word in shlex.split(self.command)]

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


_BIDE = (
    "{scripts}/bide {application} --bind 127.0.0.1:{port} --threads 4 --log-level warning"
    " --executor "
)
# --no-ws spares granian the upgrade check; WSGI has no use for it.
_GRANIAN = (
    "{python} -m granian --interface wsgi --http 1 --no-ws --workers 1 --host 127.0.0.1"
    " --port {port} --log-level warning {application}"
)
_GUNICORN = (
    "{python} -m gunicorn --workers 1 --bind 127.0.0.1:{port} --log-level warning"
    " --no-control-socket {application}"
)
_UWSGI = (
    "{scripts}/uwsgi --home {prefix} --module {application} --master --die-on-term --threads 4"
    " --listen 1024 --disable-logging"
)

bide_threads = Server("bide", "4 threads", ("bide", "greenlet", "httptools"), _BIDE + "threads")
bide_eight = Server(
    "bide",
    "8 threads",
    ("bide", "greenlet", "httptools"),
    _BIDE.replace("--threads 4", "--threads 8") + "threads",
)
bide_loop = Server("bide", "event loop", ("bide", "greenlet", "httptools"), _BIDE + "loop")

granian = Server("granian", "4 threads", ("granian",), _GRANIAN + " --blocking-threads 4")
gunicorn_gthread = Server(
    "gunicorn",
    "gthread, 4 threads",
    ("gunicorn",),
    _GUNICORN + " --worker-class gthread --threads 4",
)
gunicorn_eight = Server(
    "gunicorn",
    "gthread, 8 threads",
    ("gunicorn",),
    _GUNICORN + " --worker-class gthread --threads 8",
)
waitress = Server(
    "waitress",
    "4 threads",
    ("waitress",),
    "{python} -m waitress --listen 127.0.0.1:{port} --threads 4 {application}",
)
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

# The default of 1,000 connections, and of 1,024 waiting to be accepted, would turn clients away.
gunicorn_gevent = Server(
    "gunicorn-gevent",
    "1 process",
    ("gunicorn", "gevent", "greenlet"),
    _GUNICORN + " --worker-class gevent --worker-connections 4096 --backlog 4096",
)
granian_many = Server(
    "granian",
    "512 threads",
    ("granian",),
    _GRANIAN + " --blocking-threads 512 --backlog 4096 --backpressure 4096",
)
# One thread for each parked request, and some to count them.
granian_most = Server(
    "granian",
    "2,048 threads",
    ("granian",),
    _GRANIAN + " --blocking-threads 2048 --backlog 4096 --backpressure 4096",
)
uvicorn = Server(
    "uvicorn",
    "Starlette",
    ("uvicorn", "starlette", "httptools", "uvloop"),
    "{python} -m uvicorn --host 127.0.0.1 --port {port} --backlog 4096 --loop uvloop"
    " --http httptools --log-level warning --no-access-log {application}",
)
