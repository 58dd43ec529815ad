"""Which executor a real stack gets, and what the application is told of it."""

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

import bide
from bide import capable, wait
from tests.conftest import Serve
from tests.served import LONG, Application, Environ, Gate, Served, answering, happened, until


def where(environ: Environ) -> str:
    """Name the thread that runs this."""
    name = threading.current_thread().name
    return (
        f"{name.split('-')[1] if name.startswith('bide-') else name} {environ['wsgi.multithread']}"
    )


def flask(*capabilities: Any) -> Flask:
    """Make a Flask application that says where it runs."""
    app = Flask(__name__)
    app.get("/")(lambda: where(request.environ))
    return capable(*capabilities)(app) if capabilities else app


def undeclared(application: Application) -> Application:
    """Wrap without carrying anything over."""
    return lambda environ, start_response: application(environ, start_response)


def carrying(application: Application) -> Application:
    """Wrap by functools.wraps, which carries attributes over."""

    @functools.wraps(application)
    def wrapper(environ: Environ, start_response: Any) -> Any:
        return application(environ, start_response)

    return wrapper


def declared_function() -> Application:
    @capable("async")
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [where(environ).encode()]

    return application


@capable("async", "threads")
class DeclaredClass:
    """A class whose instances are able."""

    def __call__(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Answer."""
        start_response("200 OK", [])
        return [where(environ).encode()]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (flask, "thread True"),
        (lambda: flask("async", "threads"), "the server's loop False"),
        (lambda: flask("threads"), "thread True"),
        (declared_function, "the server's loop False"),
        (DeclaredClass, "the server's loop False"),
        (lambda: undeclared(DeclaredClass()), "thread True"),
        (lambda: carrying(declared_function()), "the server's loop False"),
        (lambda: ProxyFix(flask("async", "threads")), "thread True"),
        (lambda: capable("async")(ProxyFix(flask("async"))), "the server's loop False"),
        (lambda: capable("async", "threads")(ProxyFix(flask())), "thread True"),
        (lambda: ProxyFix(flask("async")), "thread False"),
        (lambda: DispatcherMiddleware(flask("async", "threads"), {}), "thread True"),
    ],
    ids=[
        "flask",
        "flask async",
        "flask threads",
        "function",
        "class",
        "undeclared wrapper",
        "wraps",
        "undeclared middleware",
        "declared middleware",
        "declared around undeclared",
        "nothing in common",
        "dispatcher",
    ],
)
def test_a_stack_runs_where_its_weakest_part_can(
    serve: Serve, make: Callable[[], Any], expected: str
) -> None:
    """And multithread tells the application the truth."""
    assert serve(make()).get().text == expected


@pytest.mark.parametrize(
    ("executor", "expected"), [("loop", "the server's loop False"), ("threads", "thread True")]
)
@pytest.mark.parametrize("capability", ["async", "threads", "processes"])
def test_the_deployer_overrides(
    serve: Serve, executor: str, expected: str, capability: str
) -> None:
    """Whatever is declared."""
    assert serve(flask(capability), executor=executor).get().text == expected


def serial(serve: Serve, function: Callable[[Environ], Any]) -> Served:
    """Serve a stack whose parts have nothing in common."""
    return serve(ProxyFix(capable("async")(answering(function))))


def test_a_stack_with_nothing_in_common_runs_one_request_at_a_time(serve: Serve) -> None:
    """Also while one of them waits: another would find it half done."""
    gates = {f"/{number}": Gate() for number in range(3)}
    inside: list[str] = []
    most: list[int] = []

    def answer(environ: Environ) -> str:
        path: str = environ["PATH_INFO"]
        inside.append(path)
        most.append(len(inside))
        wait(gates[path].promise())
        inside.remove(path)
        return path

    served = serial(serve, answer)
    assert served.server.dispatcher.decision.executor == "serial"
    clients = [served.request(path) for path in gates]
    until(lambda: served.status.queued == 2 and served.status.waiting == 1)
    assert served.status.threads == 1
    for client, (path, gate) in zip(clients, gates.items(), strict=True):
        until(lambda path=path: inside == [path])  # type: ignore[misc]
        gate.open()
        assert client.response().text == path
    assert most == [1, 1, 1]


def test_a_serial_application_goes_on_when_a_waiting_client_leaves(serve: Serve) -> None:
    """Its turn ends with it."""
    release = Gate()

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/wait":
            wait(release.promise())
        return "next"

    served = serial(serve, answer)
    first = served.request("/wait")
    served.until_waiting(1)
    second = served.request("/")
    until(lambda: served.status.queued == 1)
    first.close()
    assert second.response().text == "next"


def test_a_serial_application_is_called_on_one_thread(serve: Serve) -> None:
    """Always the same."""
    threads: set[int] = set()
    served = serial(serve, lambda environ: threads.add(threading.get_ident()))
    for _ in range(5):
        assert served.get().complete
    assert len(threads) == 1
    assert served.thread not in threads


def test_a_wrong_capability_is_refused_at_the_declaration() -> None:
    """ValueError names those that there are."""
    wrong: Any = "fast"
    with pytest.raises(ValueError, match="async, processes, threads"):
        bide.capable(wrong)
    with pytest.raises(ValueError, match="one or more"):
        bide.capable()


def test_a_declaration_that_lies_is_named_in_the_log(serve: Serve, log: Any) -> None:
    """Declared async, and it blocks: the monitor says who."""
    begun, release = threading.Event(), threading.Event()

    @capable("async")
    def lying(environ: Environ, start_response: Any) -> list[bytes]:
        begun.set()
        happened(release)
        start_response("200 OK", [])
        return []

    served = serve(lying, blocked_loop=LONG)
    client = served.request("/lie")
    happened(begun)
    record = served.blocked_loop(log, LONG)
    assert "GET /lie of " in record.getMessage()
    assert "lying" in record.getMessage()
    release.set()
    assert client.response().complete
    served.goes_on(log, "the event loop")
