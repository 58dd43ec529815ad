"""OpenTelemetry's middleware around requests that wait: spans, their parents and their ends."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bide import wait
from tests.conftest import Serve
from tests.served import Application, Environ, Gate, Log

PLAIN = [("Content-Type", "text/plain")]


class Tracing:
    """A provider of its own, whose spans are kept.

    Attributes:
        noted: what happened, in order: the application's words, and the spans that ended.
    """

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the application")

    def around(self, application: Application) -> Application:
        """Put the middleware around an application."""
        return OpenTelemetryMiddleware(application, tracer_provider=self.provider)

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, in order."""
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    """Return a provider, shut down after the test."""
    tracing = Tracing()
    yield tracing
    tracing.provider.shutdown()


def context_of(span: ReadableSpan) -> Any:
    """Return a span's identity."""
    context = span.get_span_context()
    assert context is not None
    return context


def test_spans_of_interleaved_requests_have_their_own_parents(
    serve: Serve, tracing: Tracing
) -> None:
    """Begun before, between and after waits of both requests on one thread; in call and stream."""
    gates = {f"{name}{step}": Gate() for name in "ab" for step in "12"}

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        name = environ["PATH_INFO"].strip("/")
        with tracing.tracer.start_as_current_span(f"view {name}"):
            wait(gates[f"{name}1"].promise())
            with tracing.tracer.start_as_current_span(f"below {name}"):
                pass
        start_response("200 OK", PLAIN)

        def blocks() -> Iterator[bytes]:
            yield b"begin\n"
            wait(gates[f"{name}2"].promise())
            with tracing.tracer.start_as_current_span(f"stream {name}"):
                yield b"end\n"

        return blocks()

    served = serve(tracing.around(application), threads=1)
    clients = {}
    for number, name in enumerate("ab", 1):
        header = f"traceparent: 00-{name * 32}-{name * 16}-01"
        clients[name] = served.request(f"/{name}", headers=[header])
        served.until_waiting(number)
    for name in "ab":
        gates[f"{name}1"].open()
        clients[name].head()
        assert clients[name].chunk() == b"begin\n"
        served.until_waiting(2)
        assert clients[name].is_silent()
    assert {span.name[:5] for span in tracing.spans()} == {"view ", "below"}, "ended too early"
    for name in "ab":
        gates[f"{name}2"].open()
        assert clients[name].chunk() == b"end\n"
        assert clients[name].chunk() == b""
    served.until_idle()

    spans = {span.name: span for span in tracing.spans() if not span.name.startswith("GET")}
    assert len(spans) == 6
    tops = [span for span in tracing.spans() if span.kind is trace.SpanKind.SERVER]
    assert len(tops) == 2
    for name, top in zip("ab", tops, strict=True):
        assert top.parent is not None
        assert top.parent.span_id == int(name * 16, 16)
        for child, parent in (
            (f"view {name}", top),
            (f"below {name}", spans[f"view {name}"]),
            (f"stream {name}", top),
        ):
            found = spans[child].parent
            assert found is not None
            assert found.span_id == context_of(parent).span_id
            assert context_of(spans[child]).trace_id == int(name * 32, 16)


def test_a_span_lasts_from_the_call_to_the_end_of_the_stream(
    serve: Serve, tracing: Tracing
) -> None:
    """All waits are in it: it begins before what the application does, and ends after."""
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        with tracing.tracer.start_as_current_span("first"):
            start_response("200 OK", PLAIN)
        yield b"begin\n"
        wait(gate.promise())
        with tracing.tracer.start_as_current_span("last"):
            yield b"end\n"

    served = serve(tracing.around(application), threads=1)
    client = served.request()
    client.head()
    assert client.chunk() == b"begin\n"
    served.until_waiting(1)
    assert [span.name for span in tracing.spans()] == ["first"]
    gate.open()
    assert client.chunk() == b"end\n"
    assert client.chunk() == b""
    served.until_idle()
    first, last, whole = tracing.spans()
    assert whole.start_time is not None
    assert first.start_time is not None
    assert last.end_time is not None
    assert whole.end_time is not None
    assert whole.start_time <= first.start_time
    assert last.end_time <= whole.end_time


@pytest.mark.parametrize("where", ["view", "stream"])
def test_a_failure_is_in_the_span(serve: Serve, log: Log, tracing: Tracing, where: str) -> None:
    """Raised after a wait, in the view or in the stream; the span is ended and has the error."""

    def application(environ: Environ, start_response: Any) -> Any:
        gate = Gate()
        gate.open()
        wait(gate.promise())
        if where == "view":
            raise ValueError("failed")
        start_response("200 OK", PLAIN)

        def blocks() -> Iterator[bytes]:
            yield b"begin\n"
            wait(gate.promise())
            raise ValueError("failed")

        return blocks()

    served = serve(tracing.around(application))
    served.get()
    log.failure()
    served.until_idle()
    (span,) = tracing.spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


@pytest.mark.parametrize("where", ["view", "stream"])
def test_a_departure_is_no_error_of_the_span(serve: Serve, tracing: Tracing, where: str) -> None:
    """One in the stream ends the span; for one in the view the middleware never ends it."""

    def application(environ: Environ, start_response: Any) -> Any:
        if where == "view":
            wait(Gate().promise())
        start_response("200 OK", PLAIN)

        def blocks() -> Iterator[bytes]:
            wait(Gate().promise())
            yield b""

        return blocks()

    served = serve(tracing.around(application), threads=1)
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    codes = [span.status.status_code for span in tracing.spans()]
    assert codes == ([] if where == "view" else [trace.StatusCode.UNSET])
    assert not trace.get_current_span().is_recording()
