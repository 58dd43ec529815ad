"""Calls for a loop from other threads: each delivered, in order, with few wakes."""

import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide.waiting.loops import Mailbox, close_mailbox, on_loop, open_mailbox
from tests.fakes import ManualLoop
from tests.forms import needs_steps


class Counting(ManualLoop):
    """Counts how often another thread wakes it."""

    wakes = 0

    def _write_to_self(self) -> None:
        self.wakes += 1


@pytest.fixture
def loop() -> Iterator[Counting]:
    """Return a loop that runs when the test says so."""
    loop = Counting()
    yield loop
    close_mailbox(loop)
    loop.close()


def test_several_calls_wake_the_loop_once(loop: Counting) -> None:
    """Until they are delivered; then the next one wakes it again."""
    called: list[int] = []
    mailbox = Mailbox(loop)
    for number in range(3):
        mailbox.post(called.append, number)
    assert loop.wakes == 1
    assert called == []
    loop.turn()
    assert called == [0, 1, 2]
    mailbox.post(called.append, 3)
    assert loop.wakes == 2
    loop.turn()
    assert called == [0, 1, 2, 3]


def test_a_call_posted_while_others_are_delivered_is_delivered_too(loop: Counting) -> None:
    """By a later turn, so that the loop's other callbacks have theirs."""
    called: list[str] = []
    mailbox = Mailbox(loop)

    def post_another() -> None:
        called.append("one")
        mailbox.post(called.append, "another")
        loop.call_soon(called.append, "the loop's own")

    mailbox.post(post_another)
    mailbox.post(called.append, "two")
    loop.turn()
    assert called == ["one", "two"]
    loop.settle()
    assert sorted(called[2:]) == ["another", "the loop's own"]


def test_a_call_that_fails_is_reported_and_the_others_are_made(loop: Counting) -> None:
    """As the loop does for its own."""
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    called: list[int] = []
    mailbox = Mailbox(loop)
    error = ValueError("no")

    def fail() -> None:
        raise error

    mailbox.post(fail)
    mailbox.post(called.append, 1)
    loop.turn()
    assert called == [1]
    assert [each["exception"] for each in reported] == [error]


def test_calls_are_not_made_in_the_context_of_who_posts(loop: Counting) -> None:
    """It would be kept, and seen by all the others."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    seen: list[str | None] = []
    mailbox = Mailbox(loop)

    def post() -> None:
        name.set("the request's")
        mailbox.post(lambda: seen.append(name.get(None)))

    contextvars.Context().run(post)
    loop.turn()
    assert seen == [None]


def test_a_mailbox_that_is_held_wakes_nobody(loop: Counting) -> None:
    """What came meanwhile is delivered at the release, in order."""
    called: list[int] = []
    mailbox = Mailbox(loop)
    mailbox.hold()
    mailbox.hold()
    mailbox.post(called.append, 1)
    mailbox.post(called.append, 2)
    loop.turn()
    assert loop.wakes == 0
    assert called == []
    mailbox.release()
    assert called == [1, 2]
    mailbox.release()
    mailbox.post(called.append, 3)
    assert loop.wakes == 1
    loop.turn()
    assert called == [1, 2, 3]


def test_a_mailbox_whose_delivery_is_on_its_way_is_not_held(loop: Counting) -> None:
    """The loop has been woken already."""
    called: list[int] = []
    mailbox = Mailbox(loop)
    mailbox.post(called.append, 1)
    mailbox.hold()
    loop.turn()
    assert called == [1]
    mailbox.post(called.append, 2)
    assert loop.wakes == 2
    mailbox.release()
    loop.turn()
    assert called == [1, 2]


class Racing(list[bool]):
    """A token that another thread takes just before one would."""

    take: Callable[[], object] | None = None

    def pop(self, *_: Any) -> bool:
        """Take it, if it is still there."""
        take, self.take = self.take, None
        if take is not None:
            thread = threading.Thread(target=take)
            thread.start()
            thread.join()
        return super().pop()


@needs_steps
def test_a_mailbox_is_held_while_another_thread_posts(loop: Counting) -> None:
    """The post takes the token just before: its delivery is on its way."""
    called: list[int] = []
    mailbox = Mailbox(loop)
    token = Racing([True])
    token.take = lambda: mailbox.post(called.append, 1)
    mailbox._token = token
    mailbox.hold()
    loop.turn()
    mailbox.post(called.append, 2)
    mailbox.release()
    loop.turn()
    assert called == [1, 2]


def test_posting_for_a_closed_loop_raises_each_time() -> None:
    """Whoever waits for it must not wait for ever."""
    loop = ManualLoop()
    mailbox = Mailbox(loop)
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            mailbox.post(print)


# on_loop ---------------------------------------------------------------------------------------


def test_on_loop_uses_the_loops_mailbox_while_there_is_one(loop: Counting) -> None:
    """One for each loop, until it is closed; then the loop's own way."""
    called: list[int] = []
    assert open_mailbox(loop) is open_mailbox(loop)
    on_loop(loop, called.append, 1)
    on_loop(loop, called.append, 2)
    assert loop.wakes == 1
    close_mailbox(loop)
    close_mailbox(loop)
    on_loop(loop, called.append, 3)
    assert loop.wakes == 2
    loop.settle()
    assert called == [1, 2, 3]


def test_on_loop_calls_at_once_on_the_loop(loop: Counting) -> None:
    """Whatever waits in its mailbox."""
    called: list[str] = []
    open_mailbox(loop)

    def here() -> None:
        on_loop(loop, called.append, "now")
        called.append("after")

    loop.call_soon(here)
    on_loop(loop, called.append, "posted")
    loop.settle()
    assert called == ["now", "after", "posted"]


def test_every_call_of_many_threads_is_made_once(loop: Counting) -> None:
    """Each thread's in the order of its posts."""
    called: list[tuple[int, int]] = []
    mailbox = open_mailbox(loop)

    def post(thread: int) -> None:
        for number in range(500):
            mailbox.post(called.append, (thread, number))

    threads = [threading.Thread(target=post, args=[each]) for each in range(4)]
    for each in threads:
        each.start()
    while any(each.is_alive() for each in threads):
        loop.turn()
    loop.settle()
    for thread in range(4):
        assert [number for whose, number in called if whose == thread] == list(range(500))
    assert len(called) == 2000
