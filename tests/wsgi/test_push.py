"""Push: ``write`` and ``finish``, on streams whose channel is a list."""

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from bide.errors import ClientDisconnected, FinishLost, LocalProtocolError, WriteWouldBlock
from bide.executors.hub import Hub
from bide.waiting.outcome import Signal
from bide.waiting.waiter import Waiter
from bide.wsgi.push import Write
from bide.wsgi.pushing import Pushing
from tests.fakes import Line, ManualLoop, Outcomes, Wakes, Work, a_stream


class Page(Pushing):
    """A conversation, as far as push knows it."""

    def __init__(self) -> None:
        self.line = Line()
        self.stream = a_stream(self.line)
        self.loop = ManualLoop()
        self.waiter = Waiter(self.loop)
        self.finished = None
        self.guard = None

    def __del__(self) -> None:
        self.loop.close()

    def describe(self) -> str:
        """Name the page."""
        return "GET / of the page"

    def start(self) -> Write:
        """Start the response."""
        self.stream.start("200 OK", [])
        return Write(self)


def test_write_sends_each_block_at_once() -> None:
    """Blocks go out in the order of the calls; an empty one is nothing."""
    page = Page()
    write = page.start()
    write(b"one")
    write(b"")
    write(b"two")
    assert page.line.blocks == [b"one", b"two"]


def test_write_refuses_what_is_not_bytes() -> None:
    """A str is the common mistake, and nothing of it is sent."""
    page = Page()
    write: Any = page.start()
    with pytest.raises(TypeError, match="bytes, not str"):
        write("text")
    assert page.line.blocks == []


def test_unpacking_takes_finish() -> None:
    """``write, finish = start_response(...)`` takes over the end; ``write.finish`` is the same."""
    page = Page()
    write, finish = page.start()
    assert page.finished is not None
    assert not page.finished.fired
    assert write.finish == finish


def test_write_alone_does_not_take_finish() -> None:
    """PEP 3333's ``write`` leaves the end of the response to the conversation."""
    page = Page()
    page.start()(b"block")
    assert page.finished is None


def test_finish_ends_the_response_and_fires() -> None:
    """From then on ``write`` and ``finish`` raise."""
    page = Page()
    write, finish = page.start()
    write(b"block")
    finish()
    assert page.line.ends == ["ended"]
    assert page.finished is not None
    assert page.finished.fired
    assert page.finished.error is None
    with pytest.raises(LocalProtocolError, match="has ended"):
        write(b"more")
    with pytest.raises(LocalProtocolError, match="has ended"):
        finish()
    assert page.finished.error is None


def test_finish_below_content_length_fails_the_request_too() -> None:
    """Who calls ``finish`` learns it, and so does the conversation that waits for it."""
    page = Page()
    page.stream.start("200 OK", [("Content-Length", "10")])
    write, finish = Write(page)
    write(b"short")
    with pytest.raises(LocalProtocolError, match="after 5 bytes"):
        finish()
    assert page.finished is not None
    assert isinstance(page.finished.error, LocalProtocolError)


def test_a_dropped_finish_ends_the_request_with_an_error_that_names_it() -> None:
    """Nobody can call it any more: the request must not hang."""
    page = Page()
    write, finish = page.start()
    assert page.finished is not None
    del write
    gc.collect()
    assert not page.finished.fired, "finish can still be called"
    del finish
    gc.collect()
    assert isinstance(page.finished.error, FinishLost)
    assert "GET / of the page" in str(page.finished.error)


def test_a_finish_that_was_called_may_be_dropped() -> None:
    """The outcome stays what it was."""
    page = Page()
    write, finish = page.start()
    finish()
    del write, finish
    gc.collect()
    assert page.finished is not None
    assert page.finished.error is None


def test_the_write_of_a_second_start_response_shares_the_end() -> None:
    """With exc_info there are two; while one of them lives, ``finish`` can be called."""
    page = Page()
    first, first_finish = page.start()
    second = Write(page)
    assert second.finish is not None
    del first, first_finish
    gc.collect()
    assert page.finished is not None
    assert not page.finished.fired
    second.finish()
    assert page.finished.fired


def test_a_dropped_finish_fires_on_any_thread() -> None:
    """The last reference may go in a thread that knows nothing of the request."""
    page = Page()
    outcomes = Outcomes()
    held: list[Any] = [page.start().finish]
    assert page.finished is not None
    page.finished.listen(outcomes)
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert isinstance(outcomes.error, FinishLost)


def test_write_raises_when_the_client_has_left() -> None:
    """The line says so at the first block that it does not take."""
    page = Page()
    write = page.start()
    page.line.gone = True
    with pytest.raises(ClientDisconnected):
        write(b"block")


def test_write_and_finish_tell_of_the_client_after_the_response_was_cut() -> None:
    """Cut because the client left, a response is not the application's mistake."""
    page = Page()
    write, finish = page.start()
    page.stream.gone = True
    page.stream.cut()
    with pytest.raises(ClientDisconnected):
        write(b"block")
    with pytest.raises(ClientDisconnected):
        finish()


def test_write_after_a_cut_for_another_reason_is_the_applications_mistake() -> None:
    """The client is still there."""
    page = Page()
    write = page.start()
    page.stream.cut()
    with pytest.raises(LocalProtocolError, match="has been cut"):
        write(b"block")


def test_write_on_a_loop_refuses_to_wait() -> None:
    """A coroutine may push while the client keeps up; behind, the block is not taken."""
    page = Page()
    write = page.start()

    async def push() -> None:
        write(b"one")
        page.line.behind = Signal()
        with pytest.raises(WriteWouldBlock):
            write(b"two")

    asyncio.run(push())
    assert page.line.blocks == [b"one"]


def test_write_in_a_thread_waits_while_the_client_is_behind() -> None:
    """The thread blocks after its block, until there is room."""
    page = Page()
    write = page.start()
    page.line.behind = behind = Signal()
    passed = threading.Event()

    def push() -> None:
        write(b"one")
        passed.set()

    thread = threading.Thread(target=push)
    thread.start()
    assert page.line.sent.wait(20)
    assert not passed.is_set()
    behind.fire()
    assert passed.wait(20)
    thread.join()
    assert page.line.blocks == [b"one"]


class Conversation:
    """A page whose conversation runs in a hub on this thread."""

    def __init__(self, page: Page) -> None:
        self.wakes = Wakes()
        self.hub = Hub("test", self.wakes.wake)
        self.waiter = page.waiter
        self.waiter.parking = self.hub
        self.raised: list[BaseException] = []

    def run(self, function: Callable[[], object]) -> None:
        """Run a function as the conversation, until it ends or waits."""

        def keep() -> None:
            try:
                function()
            except BaseException as error:
                self.raised.append(error)

        self.hub.run(Work(self.waiter, keep))

    def go_on(self) -> None:
        """Resume it."""
        self.hub.resume(self.wakes.woken.pop())


def test_write_in_its_conversation_parks_it() -> None:
    """Its thread goes on, here with the test."""
    page = Page()
    write = page.start()
    page.line.behind = behind = Signal()
    conversation = Conversation(page)
    conversation.run(lambda: write(b"one"))
    assert conversation.hub.parked == 1
    behind.fire()
    conversation.go_on()
    assert conversation.hub.parked == 0
    assert conversation.raised == []


def test_write_in_its_conversation_outlasts_a_half_closed_connection() -> None:
    """A client that has sent everything may still read; only its going ends the wait."""
    page = Page()
    write = page.start()
    page.line.behind = behind = Signal()
    conversation = Conversation(page)
    conversation.run(lambda: write(b"one"))
    conversation.waiter.cancel(ClientDisconnected("half-closed"))
    assert conversation.wakes.woken == []
    behind.fire()
    conversation.go_on()
    assert conversation.raised == []


def test_a_request_that_pushes_to_another_ends_its_wait_with_its_own_client() -> None:
    """The other client, who is behind, may never catch up."""
    stalled, own = Page(), Page()
    write = stalled.start()
    stalled.line.behind = Signal()
    conversation = Conversation(own)
    conversation.run(lambda: write(b"one"))
    conversation.waiter.cancel(ClientDisconnected("its own client has left"))
    conversation.go_on()
    (error,) = conversation.raised
    assert str(error) == "its own client has left"
