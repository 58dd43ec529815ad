"""``bide.hosts.twisted``: what is its own beside the contract, on both kinds of reactor."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("twisted")

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

import bide
from bide.errors import LoadError
from bide.hosts.twisted import Resource
from bide.waiting.cleanups import cleanup_time
from tests.contract.under_twisted import UnderTwisted
from tests.served import (
    DEADLINE,
    Application,
    Environ,
    Gate,
    Log,
    answering,
    happened,
    request,
    until,
)

PLAIN = [("Content-Type", "text/plain")]
FOUND: contextvars.ContextVar[str] = contextvars.ContextVar("FOUND", default="nothing")
Start = Callable[..., UnderTwisted]


@pytest.fixture(params=["installed", "asyncio"])
def start(request: pytest.FixtureRequest, reactor: Any, log: Log) -> Iterator[Start]:
    """Return what starts sites: on the reactor that is installed (epoll's), and on asyncio's."""
    started: list[UnderTwisted] = []
    chosen = reactor if request.param == "installed" else None

    def starting(
        application: Application, kind: type[UnderTwisted] = UnderTwisted, **options: Any
    ) -> UnderTwisted:
        started.append(kind(application, reactor=chosen, **options))
        return started[-1]

    yield starting
    for each in started:
        each.stop()


EXECUTORS = pytest.mark.parametrize("executor", ["threads", "loop"])


@EXECUTORS
def test_a_deferred_is_waited_for_on_its_reactor(start: Start, executor: str) -> None:
    """Yielded, waited for, failed: made and fired on the reactor's thread."""
    served: UnderTwisted

    def later(value: Any) -> Any:
        deferred: Deferred[Any] = Deferred()
        served.reactor.callFromThread(served.reactor.callLater, 0, deferred.callback, value)
        return deferred

    def application(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", PLAIN)
        yield later(b"first ")
        yield bide.wait(later(b"second"))
        failing = later(None)
        failing.addCallback(lambda _: 1 / 0)
        try:
            bide.wait(failing)
        except ZeroDivisionError:
            yield b" third"

    served = start(application, executor=executor)
    assert served.get().text == "first second third"


def test_an_async_capable_application_runs_on_the_reactors_thread(start: Start) -> None:
    """It may use the reactor as any code of Twisted's does; waiting stops nobody there."""
    gate = Gate()

    @bide.capable("async")
    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/wait":
            bide.wait(gate.promise())
        return [str(threading.get_ident()).encode()]

    served = start(application)
    waiting = [served.request("/wait") for _ in range(20)]
    served.until_waiting(20)
    assert served.get().text == str(served.thread)
    gate.open()
    assert {each.response().text for each in waiting} == {str(served.thread)}
    assert served.status.threads == 0


@EXECUTORS
def test_a_coroutine_may_await_deferreds(start: Start, executor: str, log: Log) -> None:
    """On either reactor; a failure is raised where it is awaited."""
    served: UnderTwisted

    async def application(environ: Environ, start_response: Any) -> list[bytes]:
        text = await deferLater(served.reactor, 0, lambda: b"later")
        try:
            await deferLater(served.reactor, 0, lambda: 1 / 0)
        except ZeroDivisionError:
            text += b", and an error"
        done: Deferred[bytes] = Deferred()
        done.callback(b", and one that has fired")
        text += await done
        start_response("200 OK", PLAIN)
        return [text]

    served = start(application, executor=executor)
    assert served.get().text == "later, and an error, and one that has fired"


@EXECUTORS
def test_a_coroutine_may_await_asyncios_things_on_asyncios_reactor(
    start: Start, executor: str, log: Log
) -> None:
    """Both kinds in turn, and tasks of its own too; elsewhere asyncio's own error says why not."""
    served: UnderTwisted

    async def both() -> bytes:
        await asyncio.sleep(0)
        first: bytes = await deferLater(served.reactor, 0, lambda: b"both ")
        await asyncio.sleep(0.001)
        return first

    async def application(environ: Environ, start_response: Any) -> list[bytes]:
        asyncio.get_running_loop()
        texts = await asyncio.gather(both(), asyncio.create_task(both()))
        start_response("200 OK", PLAIN)
        return [b"".join(texts)]

    served = start(application, executor=executor)
    response = served.get()
    if hasattr(served.reactor, "_asyncioEventloop"):
        assert response.text == "both both "
    else:
        assert response.status == 500
        record = log.failure()
        assert record.exc_info is not None
        assert "no running event loop" in str(record.exc_info[1])


@EXECUTORS
def test_what_a_coroutine_awaits_is_cancelled_when_the_client_leaves(
    start: Start, executor: str
) -> None:
    """Twisted's way: the ``Deferred`` is, and its canceller called."""
    cancelled = threading.Event()
    awaited = threading.Event()

    async def awaiting() -> None:
        deferred: Deferred[None] = Deferred(lambda _: cancelled.set())
        awaited.set()
        await deferred

    served = start(answering(lambda environ: bide.wait(awaiting())), executor=executor)
    client = served.request()
    happened(awaited)
    client.close()
    happened(cancelled)
    served.until_idle()


@EXECUTORS
def test_a_slow_client_holds_up_its_own_response_only(start: Start, executor: str) -> None:
    """The transport says that it is full, and the application waits, in bounded memory."""
    sent: list[int] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/quick":
            yield b"quick"
            return
        for number in range(256):
            sent.append(number)
            yield b"x" * 65536

    served = start(application, executor=executor)
    client = served.connect(window=4096)
    client.send(request("/slow"))
    served.until_waiting(1)
    for _ in range(300):  # turns of the reactor, each enough for another block
        served.call(lambda: None)
    assert len(sent) < 200
    assert served.get("/quick").text == "quick"
    response = client.response()
    assert response.complete
    assert len(response.body) == 256 * 65536


@EXECUTORS
def test_whoever_pushes_from_the_reactor_is_never_blocked(start: Start, executor: str) -> None:
    """To a client that is behind: an error, the block not taken; and a wait there is refused."""
    served: UnderTwisted
    raised: list[BaseException] = []
    told = threading.Event()
    writes: list[Any] = []

    def push() -> None:
        try:
            while len(raised) < 1:
                writes[0][0](b"x" * 65536)
        except bide.WriteWouldBlock as error:
            raised.append(error)
        try:
            bide.wait(Gate().promise())
        except bide.WaitError as error:
            raised.append(error)
        told.set()

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)
        writes.append((write, finish))
        served.reactor.callFromThread(push)

    served = start(application, executor=executor)
    client = served.connect(window=4096)
    client.send(request())
    happened(told)
    assert [type(each) for each in raised] == [bide.WriteWouldBlock, bide.WaitError]
    served.call(writes.pop()[1])
    response = client.response()
    assert response.complete
    assert len(response.body) % 65536 == 0


class Tree(UnderTwisted):
    """A site with the resource at /app, and at / for that alone."""

    def root(self, resource: Any) -> Any:
        """Make the root."""
        from twisted.web.resource import Resource as Node

        root: Any = Node()  # type: ignore[no-untyped-call]
        below: Any = Node()  # type: ignore[no-untyped-call]
        below.putChild(b"", resource)
        root.putChild(b"app", resource)
        root.putChild(b"below", below)
        root.putChild(b"", resource)
        return root


@pytest.mark.parametrize(
    ("path", "script", "info"),
    [
        ("/", "", "/"),
        ("/app", "/app", ""),
        ("/app/", "/app", "/"),
        ("/app/a%2Fb/c%20d?e=f", "/app", "/a/b/c d"),
        ("/below/", "/below", "/"),
        ("/app/100%2525", "/app", "/100%25"),
    ],
)
def test_the_way_through_the_tree_is_the_scripts_name(
    start: Start, path: str, script: str, info: str
) -> None:
    """As PEP 3333 has it: SCRIPT_NAME and PATH_INFO together are the path, decoded."""
    served = start(
        answering(lambda environ: repr((environ["SCRIPT_NAME"], environ["PATH_INFO"]))), Tree
    )
    assert served.get(path).text == repr((script, info))


def test_an_upload_is_read_in_pieces(start: Start) -> None:
    """Twisted has taken it in, perhaps into a file; the application has a window of it."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        sizes = []
        while block := environ["wsgi.input"].read(100_000):
            sizes.append(len(block))
        start_response("200 OK", PLAIN)
        return [repr(sizes).encode()]

    served = start(application)
    response = served.get(method="POST", body=b"x" * 1_050_000)
    assert response.text == repr([100_000] * 10 + [50_000])


def test_heads_are_the_applications(start: Start) -> None:
    """No Content-Type is added, no header comes twice, a HEAD's length is kept, 1.0 is closed."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Server", "mine"), ("Set-Cookie", "a"), ("Set-Cookie", "b")])
        return [b"four"]

    served = start(application)
    response = served.get()
    assert (response.all("Server"), response.all("Set-Cookie")) == (["mine"], ["a", "b"])
    assert (response.header("Content-Type"), response.header("Content-Length")) == (None, "4")
    head = served.get(method="HEAD")
    assert (head.body, head.complete) == (b"", True)
    old = served.get(version="1.0")
    assert (old.body, old.header("Transfer-Encoding")) == (b"four", None)


def test_a_view_that_asks_for_a_websocket_gets_an_error_that_says_where_there_is_one(
    start: Start,
) -> None:
    """An ordinary request is told of its own fault, as everywhere."""

    def ask(environ: Environ) -> str:
        try:
            bide.websocket(environ)
        except bide.BideError as error:
            return f"{type(error).__name__}: {error}"
        raise AssertionError

    served = start(answering(ask))
    opening = [
        *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    said = served.get(headers=opening).text
    assert said.startswith("BideError: bide.websocket() does not work on Twisted's web server")
    assert "--reactor twisted" in said
    assert served.get().text.startswith("RemoteProtocolError: ")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_response_that_fails_does_not_look_complete(start: Start, log: Log, version: str) -> None:
    """No last chunk; and a reset, where the connection's end would be the response's."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"some"
        raise ValueError

    served = start(application)
    client = served.request(version=version)
    try:
        complete = client.response().complete
    except (AssertionError, ConnectionResetError):  # before the head was read
        complete = False
    assert not complete
    log.failure()


def test_what_cannot_be_a_site_is_refused(reactor: Any) -> None:
    """An ASGI application, with Bide's line; children, for it is a leaf."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        pass

    with pytest.raises(LoadError, match="ASGI"):
        Resource(reactor, asgi)
    several: Any = bide.mount({"/": answering(lambda environ: "")})
    with pytest.raises(LoadError, match="Twisted's own tree"):
        Resource(reactor, several)
    resource = Resource(reactor, answering(lambda environ: ""))
    for refused in (
        lambda: resource.putChild(b"a", resource),
        lambda: resource.getChildWithDefault(b"a", None),
    ):
        with pytest.raises(RuntimeError, match="leaf"):
            refused()
    ended = threading.Event()
    reactor.callFromThread(lambda: resource.stop().addCallback(lambda _: ended.set()))
    happened(ended)


@EXECUTORS
def test_functions_run_around_all_requests_which_wait_for_the_start(
    start: Start, executor: str
) -> None:
    """Coroutines on the reactor's thread, others in threads; in one context, with one state."""
    events: list[str] = []
    begun, opened = threading.Event(), threading.Event()
    served: UnderTwisted

    @bide.on_start
    async def client(state: dict[str, Any]) -> None:
        await deferLater(served.reactor, 0, lambda: None)
        state["thread"] = threading.get_ident()
        FOUND.set("the first one's")

    @bide.on_start
    def database() -> None:
        begun.set()
        happened(opened)
        events.append(f"database {FOUND.get()}")

    @bide.on_stop
    async def close(state: dict[str, Any]) -> None:
        await deferLater(served.reactor, 0, lambda: None)
        events.append(f"close {state['thread'] == threading.get_ident()}")

    @bide.on_stop
    def last() -> None:
        events.append(f"last {FOUND.get()}")

    def view(environ: Environ) -> str:
        events.append("view")
        return str(environ["bide.state"]["thread"])

    served = start(answering(view), executor=executor)
    clients = [served.request() for _ in range(2)]
    happened(begun)
    until(lambda: served.early == 2)
    assert events == []
    opened.set()
    assert [each.response().text for each in clients] == [str(served.thread)] * 2
    assert served.get().text == str(served.thread)
    served.release()
    assert events == [
        "database the first one's",
        *["view"] * 3,
        "last the first one's",
        "close True",
    ]


def test_a_start_that_fails_is_answered_500_and_tried_again(start: Start, log: Log) -> None:
    """One line for all who waited; the function for the stop is called for the start that held."""
    failing, events = [True], []
    served: UnderTwisted

    @bide.on_start
    async def first() -> None:
        await deferLater(served.reactor, 0, lambda: None)
        if failing:
            failing.pop()
            raise ValueError("not yet")

    bide.on_stop(lambda: events.append("stopped"))
    served = start(answering(lambda _: "served"))
    assert served.get().status == 500
    record = log.take("registered with on_start, failed: ValueError: not yet")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert served.get().text == "served"
    served.release()
    assert events == ["stopped"]


def test_a_stop_during_the_start_answers_503_and_lets_the_start_end(start: Start) -> None:
    """What the start has opened is closed."""
    events: list[str] = []
    begun, opened = threading.Event(), threading.Event()

    @bide.on_start
    def database() -> None:
        begun.set()
        happened(opened)
        events.append("opened")

    bide.on_stop(lambda: events.append("closed"))
    served = start(answering(lambda _: "never"))
    client = served.request()
    happened(begun)
    stopping = bide.in_thread(served.release)
    assert client.response().status == 503
    opened.set()
    stopping.result(DEADLINE)
    assert events == ["opened", "closed"]


def test_a_function_for_the_stop_that_hangs_is_named(
    start: Start, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the others are called."""
    events: list[str] = []
    bide.on_stop(lambda: events.append("closed"))

    @bide.on_stop
    async def hangs() -> None:
        await Deferred()

    served = start(answering(lambda _: "served"))
    dispatcher = served.resource.dispatcher
    dispatcher.lifetime.moment = 0.01
    monkeypatch.setattr(cleanup_time, "seconds", 0.0)
    assert served.get().text == "served"
    served.release()
    log.take("hangs, registered with on_stop, has not ended in time")
    assert events == ["closed"]


def test_tasks_of_a_loop_that_has_a_factory_are_left_alone() -> None:
    """A loop's task factory is its owner's."""
    from bide.hosts.twisted.reactor import await_both_kinds

    loop = asyncio.new_event_loop()
    try:
        factory: Any = asyncio.Task
        loop.set_task_factory(factory)
        await_both_kinds(loop)
        assert loop.get_task_factory() is factory
    finally:
        loop.close()


def test_a_task_that_is_cancelled_before_it_began_leaves_no_warning() -> None:
    """As asyncio's own; warnings are errors here."""
    from bide.hosts.twisted.reactor import await_both_kinds

    async def never() -> None:
        raise AssertionError

    async def main() -> None:
        await_both_kinds(asyncio.get_running_loop())
        task = asyncio.create_task(never())
        assert "never" in repr(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_what_was_answered_last_is_sent_before_the_reactor_stops(start: Start) -> None:
    """A thread may have answered, and be no longer busy, just before the stop looks at that."""
    site = start(answering(lambda _: "served"))
    order: list[str] = []
    over = threading.Event()

    def stop() -> None:
        resource = Resource(site.reactor, answering(lambda _: "served"))
        ended = resource.stop()
        ended.addCallback(lambda _: order.append("connections are closed"))
        ended.addCallback(lambda _: over.set())
        site.loop.call_soon_threadsafe(order.append, "the answer is sent")

    site.call(stop)
    happened(over)
    assert order == ["the answer is sent", "connections are closed"]
