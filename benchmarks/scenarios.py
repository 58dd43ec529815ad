"""The scenarios: what is served, to how many clients, by which servers, and what Bide aims at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from . import figures, servers
from .figures import Figure
from .forms import Form
from .loads.beside import Beside
from .loads.echoing import Echo
from .loads.fan_out import FanOut
from .loads.http2 import HTTP2Requests
from .loads.idling import IdleSockets
from .loads.kind import Load
from .loads.parking import Park
from .loads.requests import BROWSER, Requests
from .loads.start_up import StartUp
from .loads.streaming import Stream
from .loads.transfers import Blocks, Upload
from .servers import BIDE, Server


@dataclass(frozen=True, slots=True)
class Aim:
    """What Bide's figure should be: at most, or at least, so many times the peer's.

    Attributes:
        figure: The figure.
        bound: The bound: a ratio, or without a peer in the figure's own unit.
        side: Which side of the bound is wanted.
        peer: The peer's name, or `None` for an absolute bound.
        bide: Which server of Bide's is meant, or `None` for its first form.
    """

    figure: Figure
    bound: float
    side: Literal["at most", "at least"]
    peer: str | None = None
    bide: str | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """A server and the application that it serves."""

    server: Server
    application: str

    @property
    def is_bide(self) -> bool:
        """Whether it is Bide, in whichever form."""
        return self.server.distributions[0] == BIDE


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is measured in one table; the first contenders are Bide in its set-ups.

    Attributes:
        name: What `--only` calls it; it may also name any of its words.
        title: What the report calls it.
        headline: The figure that the short table and the plot show.
        load: What is done to each server.
        contenders: The servers and what each serves.
        aims: What Bide is to reach.
        workers: How many worker processes each server has.
    """

    name: str
    title: str
    headline: Figure
    load: Load
    contenders: tuple[Contender, ...]
    aims: tuple[Aim, ...] = ()
    workers: int = 1

    def in_forms(self, forms: Iterable[Form]) -> Scenario:
        """Return the scenario with each of Bide's set-ups in each of these forms, in its place."""
        setups = [each for each in self.contenders if each.is_bide]
        peers = [each for each in self.contenders if not each.is_bide]
        ours = [
            Contender(each.server.in_form(form), each.application)
            for each, form in product(setups, forms)
        ]
        return replace(self, contenders=(*ours, *peers))


def _serve(module: str, *by: Server) -> Iterator[Contender]:
    return (Contender(server, f"benchmarks.applications.{module}:app") for server in by)


def _hello(
    name: str,
    title: str,
    contenders: Iterable[Contender],
    aims: dict[int, tuple[str, float]],
) -> Iterator[Scenario]:
    """Make a scenario with one header and one with a browser's.

    `aims` has the peer and the bound by the number of headers; without any for the browser's there
    is no such scenario.
    """
    for headers in ((), BROWSER):
        count = len(headers) + 1
        if count not in aims:
            continue
        peer, bound = aims[count]
        yield Scenario(
            name=f"{name}-{count}" if headers else name,
            title=f"{title}, {count} headers" if headers else f"{title}, 1 header",
            headline=figures.CPU_REQUEST,
            load=Requests("/", connections=64, headers=headers),
            contenders=tuple(contenders),
            aims=(
                Aim(figures.CPU_REQUEST, bound, "at most", peer),
                Aim(figures.CPU_REQUEST, 1.0, "at most", "bide-before", bide="bide-pure"),
            ),
        )


_THREADS = (
    servers.bide_threads,
    servers.granian,
    servers.gunicorn_gthread,
    servers.waitress,
    servers.uwsgi_router,
    servers.uwsgi_socket,
    servers.cheroot,
)
_FRAMEWORK = (
    servers.bide_threads,
    servers.granian,
    servers.waitress,
    servers.gunicorn_gthread,
)
_BODIES = (
    servers.granian,
    servers.gunicorn_gthread,
    servers.waitress,
    servers.cheroot,
)
_FAN_OUT = (
    *_serve("events_asgi", servers.uvicorn_asyncio),
    *_serve("events_blocking", servers.gunicorn_gevent),
)
_FAN_OUT_AIMS = (Aim(figures.CPU_EVENT, 1.0, "at most", "uvicorn"),)
_BLOCKS_AIMS = (Aim(figures.CPU_STREAM, 0.8, "at most", "gunicorn"),)
_BESIDE = tuple(
    _serve(
        "computing",
        servers.bide_eight,
        servers.granian_eight,
        servers.gunicorn_eight,
        servers.waitress_eight,
    )
)
_MANY = 2000
_MORE = 5000
# Each connects within the round: so few that their handshakes are a small part of it.
_MANY_OVER_TLS = 200
_SOCKETS = 10_000


def _in_workers(name: str, title: str, load: Load, contenders: tuple[Contender, ...]) -> Scenario:
    """Make a scenario of servers with several workers."""
    return Scenario(
        name=f"workers-{name}",
        title=f"{title}, {servers.WORKERS} workers",
        headline=figures.REQUESTS,
        load=load,
        contenders=contenders,
        workers=servers.WORKERS,
    )


def _echo(name: str, what: str, module: str, bide: Server) -> Scenario:
    """Make a scenario of small messages on WebSockets that come back."""
    return Scenario(
        name=name,
        title=f"An echo on 64 WebSockets, {what}",
        headline=figures.CPU_MESSAGE,
        load=Echo(clients=64, size=32),
        contenders=(
            *_serve(module, bide),
            *_serve("echo_asgi", servers.uvicorn_echo, servers.granian_sockets),
        ),
        aims=(Aim(figures.CPU_MESSAGE, 0.8, "at most", "uvicorn"),),
    )


def _idle_sockets(name: str, title: str, deflate: bool, bound: float) -> Scenario:
    """Make a scenario of WebSockets on which nothing comes."""
    return Scenario(
        name=name,
        title=title,
        headline=figures.KB_SOCKET,
        load=IdleSockets(_SOCKETS, deflate),
        contenders=(
            *_serve("flask_sockets", servers.bide_sockets),
            *_serve("starlette_sockets", servers.uvicorn_sockets),
        ),
        aims=(
            Aim(figures.KB_SOCKET, bound, "at most"),
            Aim(figures.KB_SOCKET, 1.0, "at most", "uvicorn"),
        ),
    )


def _over_tls(contenders: Iterable[Contender]) -> tuple[Contender, ...]:
    return tuple(replace(each, server=each.server.over_tls()) for each in contenders)


_HELLO_IN_WORKERS = (
    *_serve(
        "hello",
        servers.bide_workers,
        servers.bide_preloaded,
        servers.granian_workers,
        servers.gunicorn_workers,
    ),
    *_serve("hello_asgi", servers.uvicorn_workers),
)
_WAITING_IN_WORKERS = (
    *_serve("flask_waiting", servers.bide_many_workers, servers.bide_many_preloaded),
    *_serve("flask_blocking", servers.granian_many_workers, servers.gunicorn_many_workers),
    *_serve("starlette_waiting", servers.uvicorn_starlette_workers),
)

SCENARIOS = (
    *_hello(
        "hello-threads",
        "Hello on 4 threads",
        tuple(_serve("hello", *_THREADS)),
        {1: ("granian", 0.95), 14: ("granian", 0.75)},
    ),
    *_hello(
        "hello-loop",
        "Hello on the event loop",
        (
            *_serve("hello_async", servers.bide_loop),
            *_serve("hello", servers.bjoern, servers.fastpysgi),
        ),
        {1: ("bjoern", 1.6), 14: ("bjoern", 1.2)},
    ),
    *_hello(
        "hello-flask",
        "Hello from a Flask view, 4 threads",
        tuple(_serve("flask_hello", *_FRAMEWORK)),
        {1: ("granian", 0.95)},
    ),
    Scenario(
        name="hello-django",
        title="Hello from a Django view, 4 threads, 1 header",
        headline=figures.CPU_REQUEST,
        load=Requests("/", connections=64),
        contenders=tuple(_serve("django_hello", *_FRAMEWORK)),
    ),
    *_hello(
        "hello-asgi",
        "Hello, plain ASGI",
        tuple(
            _serve(
                "hello_asgi",
                servers.bide_asgi,
                servers.uvicorn_uvloop,
                servers.granian_asgi,
                servers.hypercorn,
            )
        ),
        {1: ("uvicorn", 0.85)},
    ),
    Scenario(
        name="hello-http2",
        title="Hello over HTTP/2, plain ASGI",
        headline=figures.CPU_REQUEST,
        load=HTTP2Requests("/", connections=8, streams=32),
        contenders=tuple(
            _serve("hello_asgi", servers.bide_asgi, servers.granian_http2, servers.hypercorn)
        ),
        aims=(Aim(figures.CPU_REQUEST, 0.33, "at most", "hypercorn"),),
    ),
    *_hello(
        "hello-starlette",
        "Hello from Starlette",
        tuple(
            _serve(
                "starlette_hello",
                servers.bide_asgi,
                servers.uvicorn_starlette,
                servers.granian_starlette,
            )
        ),
        {1: ("uvicorn", 0.95)},
    ),
    Scenario(
        name="waiting-flask",
        title="A Flask view that waits 0.1 s, 2,000 clients",
        headline=figures.REQUESTS,
        load=Requests("/wait?seconds=0.1", connections=_MANY),
        contenders=(
            *_serve("flask_waiting", servers.bide_many),
            *_serve("flask_blocking", servers.gunicorn_gevent, servers.granian_many),
            *_serve("starlette_waiting", servers.uvicorn_starlette),
        ),
        aims=(
            Aim(figures.REQUESTS, 1.0, "at least", "uvicorn"),
            Aim(figures.REQUESTS, 2.0, "at least", "gunicorn-gevent"),
        ),
    ),
    Scenario(
        name="parked-flask",
        title="Memory for each of 2,000 parked Flask requests",
        headline=figures.KB_REQUEST,
        load=Park("/wait", "/parked", requests=_MANY, seconds=10.0),
        contenders=(
            *_serve("flask_waiting", servers.bide_threads),
            *_serve("flask_blocking", servers.gunicorn_gevent, servers.granian_most),
            *_serve("starlette_waiting", servers.uvicorn_starlette),
        ),
        aims=(Aim(figures.KB_REQUEST, 12.0, "at most"),),
    ),
    Scenario(
        name="parked-plain",
        title="Memory for each of 2,000 parked plain WSGI requests",
        headline=figures.KB_REQUEST,
        load=Park("/wait", "/parked", requests=_MANY, seconds=10.0),
        contenders=(
            *_serve("plain_waiting", servers.bide_threads),
            *_serve("plain_blocking", servers.gunicorn_gevent, servers.granian_most),
        ),
        aims=(Aim(figures.KB_REQUEST, 9.0, "at most"),),
    ),
    _idle_sockets("idle-websockets", f"{_SOCKETS:,} idle WebSockets in a Flask view", False, 12.0),
    _idle_sockets(
        "idle-websockets-deflate",
        f"{_SOCKETS:,} idle WebSockets in a Flask view, which may compress",
        True,
        45.0,
    ),
    Scenario(
        name="blocks-small",
        title="A stream of 100,000 blocks of 1 KB",
        headline=figures.CPU_STREAM,
        load=Blocks(count=100_000, size=1000, length=False),
        contenders=tuple(_serve("transfers", servers.bide_threads, *_BODIES)),
        aims=_BLOCKS_AIMS,
    ),
    Scenario(
        name="blocks-large",
        title="A stream of 6,000 blocks of 64 KiB",
        headline=figures.CPU_STREAM,
        load=Blocks(count=6000, size=65536, length=True),
        contenders=tuple(_serve("transfers", servers.bide_threads, *_BODIES)),
        aims=_BLOCKS_AIMS,
    ),
    Scenario(
        name="events-loop",
        title="Server-sent events to 2,000 clients, on the event loop",
        headline=figures.CPU_EVENT,
        load=FanOut(clients=_MANY),
        contenders=(*_serve("events_waiting_async", servers.bide_loop), *_FAN_OUT),
        aims=_FAN_OUT_AIMS,
    ),
    Scenario(
        name="events-threads",
        title="Server-sent events to 2,000 clients, on 4 threads",
        headline=figures.CPU_EVENT,
        load=FanOut(clients=_MANY),
        contenders=(*_serve("events_waiting", servers.bide_threads), *_FAN_OUT),
        aims=_FAN_OUT_AIMS,
    ),
    Scenario(
        name="events-asgi",
        title=f"Server-sent events to {_MORE:,} clients, ASGI and WSGI",
        headline=figures.CPU_EVENT,
        load=FanOut(clients=_MORE),
        contenders=(
            *_serve("events_asgi", servers.bide_asgi),
            *_serve("events_waiting", servers.bide_wsgi),
            *_serve("events_asgi", servers.uvicorn_asyncio),
        ),
        aims=(
            *_FAN_OUT_AIMS,
            Aim(figures.CPU_EVENT, 1.0, "at most", "uvicorn", bide="bide-compiled-wsgi"),
        ),
    ),
    _echo("websocket-echo", "ASGI", "echo_asgi", servers.bide_asgi_sockets),
    _echo("websocket-view", "a WSGI view", "echo_view", servers.bide_view_sockets),
    Scenario(
        name="upload-plain",
        title="An upload of 150 MB with Content-Length",
        headline=figures.CPU_UPLOAD,
        load=Upload(size=150_000_000, chunked=False),
        contenders=tuple(_serve("transfers", servers.bide_threads, *_BODIES)),
    ),
    Scenario(
        name="upload-chunked",
        title="An upload of 150 MB in chunks",
        headline=figures.CPU_UPLOAD,
        load=Upload(size=150_000_000, chunked=True),
        contenders=tuple(_serve("transfers", servers.bide_threads, *_BODIES)),
    ),
    Scenario(
        name="beside-computing",
        title="A quick request beside four views that compute, 8 threads",
        headline=figures.QUICK_P99,
        load=Beside("/compute", views=4),
        contenders=_BESIDE,
        aims=(
            Aim(figures.QUICK_P99, 100.0, "at most"),
            Aim(figures.EVENT_P99, 100.0, "at most"),
        ),
    ),
    Scenario(
        name="beside-sleeping",
        title="A quick request beside four views that sleep, 8 threads",
        headline=figures.QUICK_P99,
        load=Beside("/sleep", views=4),
        contenders=_BESIDE,
    ),
    Scenario(
        name="beside-asgi",
        title="An ASGI stream beside a Flask view that blocks, in one process",
        headline=figures.EVENT_P99,
        load=Stream("/live/events", "/slow", clients=16),
        contenders=(
            *_serve("both", servers.bide_both),
            *_serve("both_adapted", servers.uvicorn_adapted),
        ),
    ),
    Scenario(
        name="start-up",
        title="From the start to the first answer",
        headline=figures.START,
        load=StartUp("/"),
        contenders=tuple(_serve("hello", *_THREADS, servers.bjoern, servers.fastpysgi)),
    ),
    _in_workers("hello", "Hello", Requests("/", connections=64), _HELLO_IN_WORKERS),
    _in_workers(
        "hello-tls",
        "Hello over TLS",
        Requests("/", connections=64),
        _over_tls(_HELLO_IN_WORKERS),
    ),
    _in_workers(
        "waiting",
        "A Flask view that waits 0.1 s, 2,000 clients",
        Requests("/wait?seconds=0.1", connections=_MANY),
        _WAITING_IN_WORKERS,
    ),
    _in_workers(
        "waiting-tls",
        "A Flask view that waits 0.02 s, 200 clients over TLS",
        Requests("/wait?seconds=0.02", connections=_MANY_OVER_TLS),
        _over_tls(_WAITING_IN_WORKERS),
    ),
)
