"""The scenarios: what is served, to how many clients, by which servers, and what Bide aims at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from . import servers
from .servers import Server


@dataclass(frozen=True, slots=True)
class Load:
    """Requests as fast as the server answers them, over connections kept alive, made by wrk.

    Attributes:
        path: The path asked for, with its query.
        connections: How many clients, each with one request at a time.
    """

    path: str
    connections: int


@dataclass(frozen=True, slots=True)
class Park:
    """So many requests at once, each of which waits so many seconds.

    Attributes:
        path: The path asked for; `?seconds=` is appended.
        count_path: Answers at once with the number of requests that wait.
        requests: How many.
        seconds: How long each waits: long enough to open all and to measure.
    """

    path: str
    count_path: str
    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Beside:
    """Quick requests, one after another, and a stream of events, beside views that compute.

    Attributes:
        computing: How many views compute all the while.
    """

    computing: int


Figure = Literal[
    "requests_per_second",
    "new_client_ms",
    "cpu_us_per_request",
    "p99_ms",
    "memory_mb",
    "parked_mb",
    "kb_per_request",
    "quick_p99_ms",
    "event_p99_ms",
    "million_counts_per_second",
]


@dataclass(frozen=True, slots=True)
class Aim:
    """What Bide's figure should be: at most, or at least, so many times the peer's.

    Attributes:
        figure: The figure.
        bound: The bound: a ratio, or without a peer in the figure's own unit.
        side: Which side of the bound is wanted.
        peer: The peer's name, or `None` for an absolute bound.
    """

    figure: Figure
    bound: float
    side: Literal["at most", "at least"]
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """A server and the application that it serves."""

    server: Server
    application: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is measured in one table; the first contender is Bide."""

    name: str
    title: str
    load: Load | Park | Beside
    contenders: tuple[Contender, ...]
    aims: tuple[Aim, ...]


def _serve(module: str, *by: Server) -> Iterator[Contender]:
    return (Contender(server, f"benchmarks.applications.{module}:app") for server in by)


_PARKED = 2000

SCENARIOS = (
    Scenario(
        name="hello-threads",
        title="Hello on 4 threads",
        load=Load("/", connections=64),
        contenders=(
            *_serve(
                "hello",
                servers.bide_threads,
                servers.granian,
                servers.gunicorn_gthread,
                servers.waitress,
                servers.uwsgi_router,
                servers.uwsgi_socket,
                servers.cheroot,
            ),
        ),
        aims=(Aim("cpu_us_per_request", 1.0, "at most", "granian"),),
    ),
    Scenario(
        name="hello-loop",
        title="Hello on the event loop",
        load=Load("/", connections=64),
        contenders=(
            *_serve("hello_async", servers.bide_loop),
            *_serve("hello", servers.bjoern, servers.fastpysgi),
        ),
        aims=(Aim("cpu_us_per_request", 1.25, "at most", "bjoern"),),
    ),
    Scenario(
        name="hello-flask",
        title="Hello from a Flask view, 4 threads",
        load=Load("/", connections=64),
        contenders=(
            *_serve(
                "flask_hello",
                servers.bide_threads,
                servers.granian,
                servers.waitress,
                servers.gunicorn_gthread,
            ),
        ),
        aims=(Aim("cpu_us_per_request", 0.8, "at most", "granian"),),
    ),
    Scenario(
        name="waiting",
        title="A Flask view that waits 0.1 s, 2,000 clients",
        load=Load("/wait?seconds=0.1", connections=2000),
        contenders=(
            *_serve("flask_waiting", servers.bide_threads),
            *_serve("flask_blocking", servers.gunicorn_gevent, servers.granian_many),
            *_serve("starlette_waiting", servers.uvicorn),
        ),
        aims=(Aim("requests_per_second", 2.0, "at least", "gunicorn-gevent"),),
    ),
    Scenario(
        name="parked",
        title="Memory for each of 2,000 parked Flask requests",
        load=Park("/wait", "/parked", requests=_PARKED, seconds=10.0),
        contenders=(
            *_serve("flask_waiting", servers.bide_threads),
            *_serve("flask_blocking", servers.gunicorn_gevent, servers.granian_most),
            *_serve("starlette_waiting", servers.uvicorn),
        ),
        aims=(Aim("kb_per_request", 16.0, "at most"),),
    ),
    Scenario(
        name="beside-computing",
        title="A quick request and a stream's events beside four computing views, 8 threads",
        load=Beside(computing=4),
        contenders=(*_serve("computing", servers.bide_eight, servers.gunicorn_eight),),
        aims=(Aim("quick_p99_ms", 100.0, "at most"), Aim("event_p99_ms", 100.0, "at most")),
    ),
)
