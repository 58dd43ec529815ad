"""Sentry's middleware around requests that wait: what it reports, and whose it is."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport

from bide import ClientDisconnected, wait
from tests.conftest import Serve
from tests.served import Application, Environ, Gate, Log

PLAIN = [("Content-Type", "text/plain")]


class Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Any) -> None:
        """Keep the event of an envelope; from any thread."""
        event = envelope.get_event()
        if event is not None:
            self.events.append(event)

    def paths(self) -> list[str]:
        """Return the paths of the requests that the events are about."""
        return [event["request"]["url"].partition("test")[2] for event in self.events]


def begin(**options: Any) -> Kept:
    """Start Sentry, with the integrations that see errors twice, and the one that drops those."""
    kept = Kept()
    sentry_sdk.init(
        "http://key@127.0.0.1:9/1",
        transport=kept,
        default_integrations=False,
        integrations=[LoggingIntegration(), DedupeIntegration()],
        **options,
    )
    return kept


@pytest.fixture(autouse=True)
def ending() -> Iterator[None]:
    """Leave no client of Sentry's behind."""
    yield
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)


def noting(gates: dict[str, Gate]) -> Application:
    """Tag the scope before a wait in the view and one in the stream; report after both."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        name = environ["PATH_INFO"].strip("/")
        sentry_sdk.set_tag("name", name)
        wait(gates[name].promise())
        sentry_sdk.capture_message(f"view {name}")
        start_response("200 OK", PLAIN)

        def blocks() -> Iterator[bytes]:
            sentry_sdk.add_breadcrumb(message=name)
            yield b"begin\n"
            wait(gates[f"{name} again"].promise())
            sentry_sdk.capture_message(f"stream {name}")
            yield b"end\n"

        return blocks()

    return application


def test_scopes_do_not_leak_between_requests_of_one_thread(serve: Serve) -> None:
    """Each event has the tag, the breadcrumbs and the address of its own request."""
    kept = begin()
    gates = {f"{name}{more}": Gate() for name in "ab" for more in ("", " again")}
    served = serve(SentryWsgiMiddleware(noting(gates)), threads=1)
    clients = {}
    for number, name in enumerate("ab", 1):
        clients[name] = served.request(f"/{name}")
        served.until_waiting(number)
    for name in "ab":  # the one that parked first, while the other one is parked above it
        gates[name].open()
        clients[name].head()
        assert clients[name].chunk() == b"begin\n"
        served.until_waiting(2)
        assert clients[name].is_silent()
    for name in "ab":
        gates[f"{name} again"].open()
        assert clients[name].chunk() == b"end\n"
        assert clients[name].chunk() == b""
    served.until_idle()
    messages = [event["message"] for event in kept.events]
    assert messages == ["view a", "view b", "stream a", "stream b"]
    for event, path in zip(kept.events, kept.paths(), strict=True):
        name = event["message"][-1]
        assert event["tags"] == {"name": name}
        assert path == f"/{name}"
        crumbs = [crumb["message"] for crumb in event.get("breadcrumbs", {}).get("values", [])]
        assert crumbs == ([name] if event["message"].startswith("stream") else [])


def failing(environ: Environ, start_response: Any) -> Any:
    """Fail after a wait, in the view or in the stream."""
    gate = Gate()
    gate.open()
    if environ["PATH_INFO"] == "/view":
        wait(gate.promise())
        raise ValueError("view")
    start_response("200 OK", PLAIN)

    def blocks() -> Iterator[bytes]:
        yield b"begin\n"
        wait(gate.promise())
        raise ValueError("stream")

    return blocks()


@pytest.mark.parametrize("where", ["view", "stream"])
def test_a_failure_is_reported_once(serve: Serve, log: Log, where: str) -> None:
    """Though Bide logs it as well, and Sentry watches the log."""
    kept = begin()
    served = serve(SentryWsgiMiddleware(failing))
    served.get(f"/{where}")
    log.failure()
    served.until_idle()
    assert [event["exception"]["values"][-1]["value"] for event in kept.events] == [where]
    assert kept.events[0]["exception"]["values"][-1]["mechanism"]["type"] == "wsgi"
    assert kept.paths() == [f"/{where}"]


def waiting(environ: Environ, start_response: Any) -> Any:
    """Wait for ever, in the view or in the stream."""
    if environ["PATH_INFO"] == "/view":
        wait(Gate().promise())
    start_response("200 OK", PLAIN)

    def blocks() -> Iterator[bytes]:
        wait(Gate().promise())
        yield b""

    return blocks()


@pytest.mark.parametrize("where", ["view", "stream"])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_departure_is_reported_unless_it_is_ignored(
    serve: Serve, where: str, ignored: bool
) -> None:
    """The middleware reports every ``BaseException``; ``ignore_errors`` is Sentry's own means."""
    kept = begin(ignore_errors=[ClientDisconnected] if ignored else [])
    served = serve(SentryWsgiMiddleware(waiting))
    client = served.request(f"/{where}")
    served.until_waiting(1)
    client.close()
    served.until_idle()
    names = [event["exception"]["values"][-1]["type"] for event in kept.events]
    assert names == ([] if ignored else ["ClientDisconnected"])


def test_a_record_of_the_application_has_its_request(serve: Serve, log: Log) -> None:
    """What is logged after a wait belongs to the request that logged it."""
    kept = begin()
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        wait(gate.promise())
        logging.getLogger("bide").error("said by %s", environ["PATH_INFO"])
        start_response("200 OK", PLAIN)
        return [b"x"]

    served = serve(SentryWsgiMiddleware(application), threads=1)
    clients = [served.request(f"/{name}") for name in "ab"]
    served.until_waiting(2)
    gate.open()
    for client in clients:
        client.response()
    for name in "ab":
        log.take(f"said by /{name}")
    assert sorted(kept.paths()) == ["/a", "/b"]
    for event, path in zip(kept.events, kept.paths(), strict=True):
        assert event["logentry"]["params"] == [path]
