"""``on_start`` and ``on_stop``: when they run and where, and the state that views reach."""

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bide
from bide import in_thread, wait
from bide.applications.loading import ApplicationFailed
from bide.hosts.asgi import asgi
from bide.hosts.wsgi import blocking
from bide.serving import lifetime
from bide.testing import Client, LiveServer
from tests.failures import Failures, same
from tests.served import DEADLINE, Log, answering, happened

FOUND: contextvars.ContextVar[str] = contextvars.ContextVar("FOUND", default="nothing")


@pytest.fixture
def log() -> Iterator[Log]:
    """Return what Bide logs."""
    log = Log()
    log.open()
    yield log
    log.close()


async def here() -> Any:
    """Return the running loop."""
    return asyncio.get_running_loop()


def register(events: list[str]) -> None:
    """Register two functions of each kind; they note their order, and what they find."""

    @bide.on_start
    async def client(state: dict[str, Any]) -> None:
        state["loop"] = asyncio.get_running_loop()
        FOUND.set("the first one's")
        events.append("client")

    @bide.on_start
    def database(state: dict[str, Any]) -> None:
        assert wait(here(), timeout=DEADLINE) is state["loop"]
        state["thread"] = threading.get_ident()
        events.append(f"database {FOUND.get()}")

    @bide.on_stop
    async def close(state: dict[str, Any]) -> None:
        events.append(f"close {state['loop'] is asyncio.get_running_loop()}")

    @bide.on_stop
    def last() -> None:
        assert wait(here(), timeout=DEADLINE) is not None
        events.append(f"last {FOUND.get()}")


ORDER = ["client", "database the first one's", "view True", "last the first one's", "close True"]


def view(events: list[str]) -> Callable[..., Any]:
    """Return an application that looks at the state."""

    def look(environ: dict[str, Any]) -> str:
        state = environ["bide.state"]
        assert state["thread"] is not None
        events.append(f"view {wait(here()) is state['loop']}")
        return "seen"

    return answering(look)


def by_server(application: Any, executor: str) -> None:
    """Ask a real server."""
    with LiveServer(application, executor=executor) as server:
        import httpx

        assert httpx.get(server.url, trust_env=False).text == "seen"


def by_client(application: Any, executor: str) -> None:
    """Ask as tests do."""
    with Client(application, executor=executor) as client:
        assert client.get("/").text == "seen"


def ask_asgi(lifespan: bool) -> Callable[[Any, str], None]:
    """Ask under an ASGI server, which has a lifespan, or not."""

    def ask(application: Any, executor: str) -> None:
        hosted = asgi(application, executor=executor)
        asyncio.run(asked(hosted, lifespan))

    ask.__name__ = f"by_asgi lifespan={lifespan}"
    return ask


async def asked(hosted: Any, lifespan: bool) -> None:
    """Make one request of an ASGI application, and stop it."""
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    living = None
    if lifespan:
        living = asyncio.create_task(hosted({"type": "lifespan"}, told.get, sent.put))
        await told.put({"type": "lifespan.startup"})
        assert (await sent.get())["type"] == "lifespan.startup.complete"
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "http_version": "1.1"}
    requested: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    await requested.put({"type": "http.request"})
    answers: list[Any] = []

    async def answer(message: Any) -> None:
        answers.append(message)

    await hosted(scope, requested.get, answer)
    assert answers[0]["status"] == 200
    if living is not None:
        await told.put({"type": "lifespan.shutdown"})
        assert (await sent.get())["type"] == "lifespan.shutdown.complete"
        await living
    else:
        await hosted.stop()


WAYS = [by_server, by_client, ask_asgi(lifespan=True), ask_asgi(lifespan=False)]


def test_functions_run_around_all_requests_and_views_reach_their_state() -> None:
    """In order, and in the reverse one; with each executor, in tests and under an ASGI server."""
    with Failures() as failures:
        for ask in WAYS:
            for executor in ("threads", "loop"):
                with failures.of((ask.__name__, executor)):
                    lifetime._starts.clear()
                    lifetime._stops.clear()
                    events: list[str] = []
                    register(events)
                    ask(view(events), executor)
                    same(events, ORDER)


def test_each_server_has_a_state_of_its_own() -> None:
    """Functions are registered for the process."""
    made: list[Any] = []
    bide.on_start(made.append)
    looking = answering(lambda environ: str(id(environ["bide.state"])))
    with Client(looking) as one, Client(looking) as other:
        assert [one.get("/").text, other.get("/").text] == [str(id(each)) for each in made]
    assert made[0] is not made[1]


def fails() -> None:
    """Raise."""
    raise ValueError("no database")


async def fails_on_loop() -> None:
    """Raise, too."""
    raise ValueError("no database")


def exits() -> None:
    """Leave, as scripts do."""
    sys.exit("no database")


def test_a_start_that_fails_is_one_line_and_no_request_is_taken() -> None:
    """Whoever starts the server is told; what is registered behind it is not called."""
    with Failures() as failures:
        for function in (fails, fails_on_loop, exits):
            lifetime._starts[:] = [function, lambda: pytest.fail("called")]
            name = f"{__name__}.{function.__name__}"
            line = f"{name}, registered with on_start, failed: "
            for way in (by_server, by_client, ask_asgi(lifespan=False)):
                with failures.of((function.__name__, way.__name__)):
                    with pytest.raises(ApplicationFailed, match="no database") as raised:
                        way(answering(lambda _: "never"), "threads")
                    assert str(raised.value).startswith(line)
                    assert isinstance(raised.value.__cause__, (ValueError, SystemExit))


def test_an_asgi_server_is_told_that_the_start_has_failed() -> None:
    """By the lifespan's own message."""
    bide.on_start(fails)

    async def live() -> list[dict[str, Any]]:
        told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await told.put({"type": "lifespan.startup"})
        with pytest.raises(ApplicationFailed):
            await asgi(answering(lambda _: ""))({"type": "lifespan"}, told.get, send)
        return sent

    [failed] = asyncio.run(live())
    assert failed["type"] == "lifespan.startup.failed"
    assert "no database" in failed["message"]


def test_a_stop_that_fails_is_logged_and_the_others_run(log: Log) -> None:
    """Whatever it raises."""
    events: list[str] = []
    bide.on_stop(lambda: events.append("the first"))
    for function in (fails, fails_on_loop, exits):
        bide.on_stop(function)
    bide.on_stop(lambda: events.append("the last"))
    with Client(answering(lambda _: "")):
        pass
    assert events == ["the last", "the first"]
    assert [record.getMessage() for record in log.records] == [
        f"tests.serving.test_lifetime.{name}, registered with on_stop, failed"
        for name in ("exits", "fails_on_loop", "fails")
    ]
    log.records.clear()


def test_a_stop_that_takes_too_long_is_named_and_the_others_run(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that swallows its cancellation, or blocks a thread."""
    events: list[str] = []
    opened = threading.Event()

    async def program() -> None:
        life = lifetime.Lifetime()
        life.moment = 0.01
        await life.start()
        await life.stop(0.0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        opened.set()
        for task in tasks:
            task.cancel()

    async def stubborn() -> None:
        while not opened.is_set():
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                events.append("cancelled")

    def blocks() -> None:
        happened(opened)

    monkeypatch.setattr(lifetime, "_stops", [blocks, stubborn])
    asyncio.run(program())
    assert [record.getMessage().partition(", ")[2] for record in log.records] == [
        "registered with on_stop, has not ended in time"
    ] * 2
    assert "cancelled" in events
    log.records.clear()


def test_under_any_wsgi_server_functions_run_before_the_first_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the host's thread, once though several ask at a time; and when the process ends."""
    ended: list[Callable[[], None]] = []
    monkeypatch.setattr("bide.hosts.starting.atexit.register", ended.append)
    events: list[str] = []
    begun, opened, failing = threading.Event(), threading.Event(), [True]

    @bide.on_start
    def first() -> None:
        if failing:
            failing.pop()
            raise ValueError("not yet")
        begun.set()
        happened(opened)

    register(events)
    hosted = blocking(view(events))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}

    def ask() -> bytes:
        return b"".join(hosted(dict(environ), lambda *_: None))

    with pytest.raises(ApplicationFailed, match="not yet"):
        ask()
    asking = [in_thread(ask) for _ in range(3)]
    happened(begun)
    opened.set()
    assert [each.result(DEADLINE) for each in asking] == [b"seen"] * 3
    [stop] = ended
    stop()
    assert events[:2] == ["client", "database nothing"]
    assert events[2:] == ["view True"] * 3 + ["last nothing", "close True"]
