"""What is called on a conversation's thread while that waits, and when it has ended.

A parking that is put in the place of the hub's may make calls between going to sleep and going on:
that is how an integration runs a library's blocking code on the request's own thread.
"""

from typing import Any

import pytest

from bide import wait
from bide.errors import ClientDisconnected
from bide.exchange.call import Call
from bide.waiting.outcome import Signal
from bide.waiting.waiter import Waiter, current_waiter
from bide.wsgi.conversation import Conversation
from bide.wsgi.site import Site
from tests.conftest import Serve
from tests.fakes import Calling, Lane, Line, a_stream, waiting_with_calls
from tests.served import Application, Environ, Log, answering

GONE = ClientDisconnected("the client has left")


def test_a_call_is_made_in_the_midst_of_a_wait(lane: Lane) -> None:
    """The wait goes on after it, and has its own outcome."""
    callings: list[Calling] = []
    signal = Signal()
    run = lane.begin(lambda: waiting_with_calls(callings, signal))
    made: list[Any] = []
    callings[0].call(lambda: made.append(current_waiter()))
    lane.settle()
    assert made == [run.waiter]
    assert not run.ended
    signal.fire("result")
    lane.settle()
    assert run.value == "result"


def test_a_call_may_wait_itself(lane: Lane) -> None:
    """Its wait is another one, and the outer one may be settled meanwhile."""
    callings: list[Calling] = []
    outer, inner = Signal(), Signal()
    made: list[Any] = []
    run = lane.begin(lambda: waiting_with_calls(callings, outer))
    callings[0].call(lambda: made.append(wait(inner)))
    lane.settle()
    outer.fire("outer")
    lane.settle()
    assert not run.ended, "the call comes first: it is on the same stack"
    inner.fire("inner")
    lane.settle()
    assert (made, run.value) == (["inner"], "outer")


def test_leaving_during_a_call_ends_its_wait_and_the_one_that_it_is_made_in(lane: Lane) -> None:
    """Else the outer wait would go on for a client that has left."""
    callings: list[Calling] = []
    raised: list[BaseException] = []

    def call() -> None:
        try:
            wait(Signal())
        except ClientDisconnected as gone:
            raised.append(gone)

    run = lane.begin(lambda: waiting_with_calls(callings, Signal()))
    callings[0].call(call)
    lane.settle()
    run.waiter.cancel(GONE)
    lane.settle()
    assert [type(each) for each in raised] == [ClientDisconnected]
    assert type(run.error) is ClientDisconnected


def test_leaving_after_a_call_ends_the_wait(lane: Lane) -> None:
    """The wait in progress is known again."""
    callings: list[Calling] = []
    inner = Signal()
    run = lane.begin(lambda: waiting_with_calls(callings, Signal()))
    callings[0].call(lambda: wait(inner))
    lane.settle()
    inner.fire()
    lane.settle()
    run.waiter.cancel(GONE)
    lane.settle()
    assert type(run.error) is ClientDisconnected


def test_a_call_during_a_wait_that_cleans_up_does_not_end_it(lane: Lane) -> None:
    """The request has been cancelled before: this wait is allowed its time."""
    callings: list[Calling] = []
    clean = Signal()

    def conversation() -> Any:
        try:
            waiting_with_calls(callings, Signal())
        except ClientDisconnected:
            return wait(clean)

    run = lane.begin(conversation)
    run.waiter.cancel(GONE)
    lane.settle()
    callings[0].call(lambda: None)
    lane.settle()
    assert not run.ended
    clean.fire("clean")
    lane.settle()
    assert run.value == "clean"


def test_a_wait_for_the_client_survives_a_call_of_a_client_that_half_closed(lane: Lane) -> None:
    """As it survives without one: the client may still read."""
    callings: list[Calling] = []
    read = Signal()

    def conversation() -> Any:
        waiter = current_waiter()
        assert waiter is not None
        calling = Calling(waiter)
        waiter.parking = calling
        callings.append(calling)
        return waiter.wait_io(read)

    run = lane.begin(conversation)
    callings[0].call(lambda: run.waiter.cancel(GONE))
    lane.settle()
    assert not run.ended
    read.fire(b"read")
    lane.settle()
    assert run.value == b"read"


class Keeping(Site):
    """A site whose conversations' ends are kept."""

    name = "site"

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.state: dict[str, Any] = {}
        self.application: Application = answering(lambda environ: b"answer")

    def status(self) -> Any:
        """Return none."""

    def done(self, call: Call) -> None:
        """Keep it."""
        self.events.append("done")


class Plain(Conversation):
    """A conversation without a connection to tell of."""

    def environ(self) -> Environ:
        """Return an empty one."""
        return {}


def test_what_is_to_be_done_in_the_end_is_done_though_one_fails(log: Log, lane: Lane) -> None:
    """And before the server takes the request for ended."""
    events: list[str] = []

    def fails() -> None:
        events.append("first")
        raise ValueError("fails")

    waiter = Waiter(lane.loop, lane.hub)
    waiter.ends += (fails, lambda: events.append("second"))
    lane.hub.run(Plain(Keeping(events), a_stream(Line()), waiter))
    assert events == ["first", "second", "done"]
    log.take("cleaning up after the application failed")


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_the_end_comes_after_close_on_the_same_thread(serve: Serve, executor: str) -> None:
    """In the conversation's context, with its waiter still to be found."""
    events: list[tuple[str, Waiter | None]] = []

    class Closing(list[bytes]):
        def close(self) -> None:
            events.append(("close", current_waiter()))

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        waiter = current_waiter()
        assert waiter is not None
        waiter.ends += (lambda: events.append(("end", current_waiter())),)
        start_response("200 OK", [])
        return Closing([b"x"])

    served = serve(application, executor=executor)
    assert served.get().text == "x"
    served.until_idle()
    (close, end) = events
    assert (close[0], end[0]) == ("close", "end")
    assert close[1] is end[1] is not None
