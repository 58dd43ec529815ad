"""The same calls where there is no request of Bide's: they block the calling thread."""

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed

import bide
from bide import ServerStopping, in_thread, iterate, using, wait, wait_all
from bide.errors import RequestTimeout
from bide.waiting.cleanups import cleanup_time
from bide.waiting.parking import ThreadParking
from bide.waiting.waiter import Waiter, background_loop
from tests.conftest import Serve
from tests.contract.promised import Bare
from tests.failures import Failures
from tests.fakes import ManualLoop
from tests.served import DEADLINE, Environ, answering, happened, until


async def value(of: Any = "the value") -> Any:
    """Return a value after a turn of the loop."""
    await asyncio.sleep(0)
    return of


async def numbers() -> AsyncIterator[int]:
    """Yield some."""
    for number in range(3):
        await asyncio.sleep(0)
        yield number


@asynccontextmanager
async def managed() -> AsyncIterator[str]:
    """Manage nothing."""
    await asyncio.sleep(0)
    yield "entered"


class Awaitable:
    """An object with ``__await__``."""

    def __await__(self) -> Any:
        return value().__await__()


def test_wait_gives_the_result_of_each_kind(reactor: Any) -> None:
    """On the main thread, without a server; a Deferred is fired by its reactor."""
    deferred: Deferred[str] = Deferred()
    reactor.callFromThread(reactor.callLater, 0, deferred.callback, "the value")
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    threading.Thread(target=future.set_result, args=("the value",)).start()
    bare = Bare()
    threading.Thread(target=bare.fire, args=("the value",)).start()
    fired = Bare()
    fired.fire("the value")
    for promise in (value(), Awaitable(), future, deferred, succeed("the value"), bare, fired):
        assert wait(promise) == "the value"


def test_wait_raises_the_error_of_the_promise() -> None:
    """Here, as in a request."""

    async def failing() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        wait(failing())
    with pytest.raises(LookupError, match="no"):
        wait(fail(LookupError("no")))


def test_wait_times_out_and_cancels() -> None:
    """The coroutine gets its CancelledError."""
    cancelled = threading.Event()

    async def lasting() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(TimeoutError):
        wait(lasting(), timeout=0.01)
    assert cancelled.wait(DEADLINE)


def test_the_company_of_wait_works_too() -> None:
    """wait_all, iterate, using, in_thread."""
    assert list(wait_all(value(1), in_thread(lambda: 2), value(3))) == [1, 2, 3]
    assert list(iterate(numbers())) == [0, 1, 2]
    with using(managed()) as entered:
        assert entered == "entered"


def test_all_awaitables_run_on_one_background_loop() -> None:
    """From whatever thread: a client made once for the process can be used by all."""

    async def loop() -> Any:
        return asyncio.get_running_loop()

    loops = [wait(loop())]
    thread = threading.Thread(target=lambda: loops.append(wait(loop())))
    thread.start()
    thread.join(DEADLINE)
    assert len(loops) == 2
    assert loops[0] is loops[1]


def test_wait_on_a_thread_that_runs_a_loop_is_refused() -> None:
    """A clear error, in place of a deadlock; the coroutine is closed without a warning."""

    async def program() -> None:
        with pytest.raises(bide.WaitError, match="use `await` here"):
            wait(value())
        with pytest.raises(bide.WaitError):
            wait_all(value(), value())
        with pytest.raises(bide.WaitError):
            next(iterate(numbers()))
        with pytest.raises(bide.WaitError), using(managed()):
            pass
        assert await asyncio.to_thread(lambda: wait(value())) == "the value"

    asyncio.run(program())


def test_what_is_no_promise_is_refused() -> None:
    """TypeError names its type."""
    with pytest.raises(TypeError, match="int is not a promise"):
        wait(7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="int is not a promise"):
        wait_all(value(), 7)  # type: ignore[call-overload]


def test_an_asyncio_future_is_waited_for_on_its_own_loop() -> None:
    """Which may be another one than the background loop."""
    made: concurrent.futures.Future[Any] = concurrent.futures.Future()
    stop: list[Any] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        stopping = asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        made.set_result(future)
        loop.call_later(0, future.set_result, "the value")
        await stopping.wait()

    thread = threading.Thread(target=lambda: asyncio.run(program()))
    thread.start()
    assert wait(made.result(DEADLINE)) == "the value"
    stop[0]()
    thread.join(DEADLINE)


@pytest.mark.parametrize("executor", ["threads"])
def test_a_thread_of_the_application_waits_by_the_running_server_s_loop(serve: Serve) -> None:
    """A server lends its loop for as long as it runs."""

    async def loop() -> Any:
        return asyncio.get_running_loop()

    found: list[Any] = []

    def answer(environ: Environ) -> None:
        thread = threading.Thread(target=lambda: found.append(wait(loop())))
        thread.start()
        thread.join(DEADLINE)

    served = serve(answering(answer))
    assert served.get().complete
    assert found == [served.loop]
    served.stop()
    assert wait(loop()) is not served.loop


SCRIPT = """
import asyncio, os, threading, bide

async def value():
    await asyncio.sleep(0)
    return "the value"

assert bide.wait(value()) == "the value"
assert bide.wait(bide.in_thread(lambda: "thread")) == "thread"
child = os.fork()
if not child:
    try:
        assert bide.wait(value()) == "the value"
        assert bide.wait(bide.in_thread(lambda: "thread")) == "thread"
        assert threading.active_count() < 4, threading.enumerate()
        print("child", flush=True)
    finally:
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert bide.wait(value()) == "the value"
print("parent")
"""


def test_a_script_waits_and_so_does_its_forked_child() -> None:
    """The child has none of the parent's threads: it starts a loop of its own. Both end."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["child", "parent"]


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_a_wait_of_another_thread_ends_with_the_server_whose_loop_it_needs(
    serve: Serve, executor: str
) -> None:
    """Nothing else could end it: its time-out, too, is that loop's."""
    ended: concurrent.futures.Future[BaseException] = concurrent.futures.Future()
    promise: concurrent.futures.Future[None] = concurrent.futures.Future()

    def block() -> None:
        try:
            wait(promise, timeout=3600)
        except BaseException as error:
            ended.set_result(error)

    def answer(_: Environ) -> str:
        threading.Thread(target=block).start()
        return "started"

    served = serve(answering(answer), executor=executor)
    assert served.get().text == "started"
    until(lambda: promise._done_callbacks, "the thread does not wait")  # type: ignore[attr-defined]
    served.begin_stop()
    assert repr(ended.result(DEADLINE)) == "ServerStopping('the server stops')"
    assert promise.cancelled()
    served.join()


def test_a_thread_that_waits_when_the_loop_has_just_been_taken_back_is_ended_too() -> None:
    """The other order: it found the loop when that still turned."""
    loop = asyncio.new_event_loop()
    background_loop.lend(loop)
    waiter = Waiter(loop)
    background_loop.take_back(loop)
    promise: concurrent.futures.Future[None] = concurrent.futures.Future()
    with pytest.raises(ServerStopping, match="the server stops"):
        waiter.wait(promise)
    assert promise.cancelled()
    loop.close()


@pytest.mark.parametrize("ending", ["timed out", "cancelled", "cleaning up"])
@pytest.mark.parametrize("order", ["it blocks", "it is about to block"])
def test_a_thread_whose_wait_is_ending_when_the_loop_is_taken_back_goes_on(
    ending: str, order: str
) -> None:
    """What the loop was to do for that end may never come about: it does not turn here."""
    loop = ManualLoop()
    background_loop.lend(loop)
    blocks, raised = threading.Event(), []  # type: tuple[threading.Event, list[BaseException]]

    class Blocking(Waiter):
        __slots__ = ()

        def _place(self) -> Any:
            return Place(self)

    class Place(ThreadParking):
        def park(self, wait: Any) -> None:
            if ending == "timed out":
                wait.over = "timeout"
            elif not waiter.cancelled:
                waiter.cancel(RequestTimeout("too long"), firm=True)
            else:
                assert wait.ending == ("cancelled" if ending == "cancelled" else "allowed")
            if wait.over or wait.ending:
                if order == "it is about to block" and not blocks.is_set():
                    background_loop.take_back(loop)
                blocks.set()
            super().park(wait)

    waiter = Blocking(loop)

    def blocked() -> None:
        try:
            if ending == "cleaning up":
                waiter.raised(RequestTimeout("too long"))
            waiter.wait(asyncio.sleep(0), 3600)
        except BaseException as error:
            raised.append(error)

    if ending == "cleaning up":
        waiter.cancel(RequestTimeout("too long"), firm=True)
    thread = threading.Thread(target=blocked, daemon=True)
    thread.start()
    happened(blocks)
    if order == "it blocks":
        until(lambda: waiter in background_loop._blocked)
        background_loop.take_back(loop)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert type(raised[0]) is (TimeoutError if ending == "timed out" else RequestTimeout)
    loop.settle()
    loop.close()


def test_a_thread_that_goes_on_waiting_when_its_time_to_clean_up_is_over_needs_no_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is held up for a moment, since it may do so for ever; by itself."""
    monkeypatch.setattr(cleanup_time, "seconds", 0.0)
    loop = ManualLoop()
    waiter = Waiter(loop)
    waiter.raised(RequestTimeout("too long"))
    done = threading.Event()

    def blocked() -> None:
        with pytest.raises(RequestTimeout):
            waiter.wait(asyncio.sleep(0))
        done.set()

    threading.Thread(target=blocked, daemon=True).start()
    happened(done)
    loop.close()


def test_a_loop_that_two_have_lent_is_lent_until_both_take_it_back() -> None:
    """Two servers on one loop; and one that is lent anew is as good as new."""
    loop = asyncio.new_event_loop()
    for _ in range(2):
        background_loop.lend(loop)
        background_loop.lend(loop)
        background_loop.take_back(loop)
        blocked = Waiter(loop)
        background_loop.block(blocked)
        ended = [blocked.cancelled]
        background_loop.take_back(loop)
        ended.append(blocked.cancelled)
        assert ended == [False, True]
        background_loop.unblock(blocked)
    loop.close()


ENDING = """
import atexit, os, sys

def at_the_end():
    import bide
    print(bide.wait(value(), timeout=1000), flush=True)

async def value():
    return "waited"

atexit.register(at_the_end)
import bide

async def leave(raises):
    if raises:
        sys.exit(3)
    asyncio.get_running_loop().stop()
    return "stopped"

import asyncio, logging
logging.disable()
if "used" in sys.argv:
    assert bide.wait(value()) == "waited"
if "stopped" in sys.argv:
    bide.wait(leave(False))
if "left" in sys.argv:
    import bide.waiting.waiter
    loop = bide.waiting.waiter.background_loop.get()
    loop.call_soon_threadsafe(sys.exit, 3)
"""


def test_a_function_at_a_script_s_end_waits_whenever_it_was_registered() -> None:
    """Those registered before Bide was imported run after all of Bide's own; the loop still turns.

    Nor does an application end it that stops it, or raises SystemExit there.
    """
    with Failures() as failures:
        for way in ("used", "stopped", "left"):  # unused, it could start no thread any more
            with failures.of(way):
                done = subprocess.run(
                    [sys.executable, "-c", ENDING, way],
                    capture_output=True,
                    text=True,
                    timeout=DEADLINE,
                    check=False,
                )
                assert (done.returncode, done.stdout, done.stderr) == (0, "waited\n", "")
