"""Async iterables, async context managers and blocking calls, in ordinary code."""

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import bide
from bide import ClientDisconnected, in_thread, iterate, using, wait
from tests.conftest import Serve
from tests.served import Environ, Gate, Log, answering, happened, until

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


class Numbers:
    """An async generator that can be watched: 0, 1, 2, …, each after a gate opens."""

    def __init__(self, gates: list[Gate], error: Exception | None = None) -> None:
        self.closed = threading.Event()
        self.tasks: list[Any] = []
        self._gates = gates
        self._error = error

    async def __call__(self) -> AsyncIterator[bytes]:
        """Yield."""
        try:
            for number, gate in enumerate(self._gates):
                self.tasks.append(asyncio.current_task())
                await asyncio.wrap_future(gate.promise())
                yield b"%d" % number
            if self._error is not None:
                raise self._error
        finally:
            self.tasks.append(asyncio.current_task())
            await asyncio.sleep(0)
            self.closed.set()


def open_gates(number: int) -> list[Gate]:
    gates = [Gate() for _ in range(number)]
    for gate in gates:
        gate.open()
    return gates


def test_iterate_gives_the_items_in_order(serve: Serve) -> None:
    """In one task, from the first item to the end."""
    numbers = Numbers(open_gates(5))
    served = serve(answering(lambda environ: b"".join(iterate(numbers()))))
    assert served.get().body == b"01234"
    happened(numbers.closed)
    assert len(set(numbers.tasks)) == 1


def test_iterate_gives_each_item_as_it_comes(serve: Serve) -> None:
    """The request is parked between them, and its block goes out before the next is asked for."""
    gates = [Gate() for _ in range(3)]
    numbers = Numbers(gates)

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield from iterate(numbers())

    served = serve(application)
    client = served.request()
    for number, gate in enumerate(gates):
        served.until_waiting(1)
        gate.open()
        if not number:
            client.head()
        assert client.chunk() == b"%d" % number
    assert client.chunk() == b""


def test_iterate_left_early_closes_the_generator_in_its_task(serve: Serve) -> None:
    """`break` calls `aclose`, which may wait; the request does not."""
    numbers = Numbers(open_gates(5))

    def answer(environ: Environ) -> bytes:
        for item in iterate(numbers()):
            if item == b"2":
                return item
        return b"none"

    served = serve(answering(answer))
    assert served.get().body == b"2"
    happened(numbers.closed, "aclose was not called")
    assert len(set(numbers.tasks)) == 1


def test_an_error_inside_an_async_generator_is_raised_at_the_line(serve: Serve) -> None:
    """After the items before it."""
    numbers = Numbers(open_gates(2), LookupError("no more"))

    def answer(environ: Environ) -> bytes:
        items: list[bytes] = []
        try:
            items.extend(iterate(numbers()))
        except LookupError as error:
            items.append(str(error).encode())
        return b" ".join(items)

    served = serve(answering(answer))
    assert served.get().body == b"0 1 no more"
    happened(numbers.closed)


def test_iterate_is_cancelled_when_the_client_leaves(serve: Serve) -> None:
    """The generator gets its CancelledError where it waits, and is closed."""
    numbers = Numbers([Gate()])
    raised: list[type[BaseException]] = []

    def answer(environ: Environ) -> None:
        try:
            for _ in iterate(numbers()):
                pass
        except BaseException as error:
            raised.append(type(error))
            raise

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    happened(numbers.closed)
    assert raised == [ClientDisconnected]


def test_iterate_gives_up_after_its_timeout(serve: Serve) -> None:
    """For one item; the generator is cancelled, and closed."""
    gates = [*open_gates(1), Gate()]
    numbers = Numbers(gates)

    def answer(environ: Environ) -> bytes:
        items: list[bytes] = []
        try:
            items.extend(iterate(numbers(), timeout=0.02))
        except TimeoutError:
            items.append(b"timeout")
        return b" ".join(items)

    served = serve(answering(answer))
    assert served.get().body in (b"0 timeout", b"timeout")
    happened(numbers.closed)


def test_iterate_refuses_what_is_no_async_iterable(serve: Serve) -> None:
    """At the call, before anything is iterated."""

    def answer(environ: Environ) -> str:
        wrong: Any = [1, 2]
        try:
            iterate(wrong)
        except TypeError as error:
            return str(error)
        return "accepted"

    served = serve(answering(answer))
    assert served.get().text == "iterate() takes an async iterable, not list: a plain for takes it"


def test_an_async_generator_sees_the_context_of_the_request(serve: Serve) -> None:
    """And keeps what it sets itself, from one item to the next."""

    async def names() -> AsyncIterator[str]:
        yield VARIABLE.get()
        VARIABLE.set("the generator's")
        yield VARIABLE.get()

    def answer(environ: Environ) -> str:
        VARIABLE.set("the request's")
        return f"{list(iterate(names()))} {VARIABLE.get()}"

    served = serve(answering(answer))
    assert served.get().text == '["the request\'s", "the generator\'s"] the request\'s'


class Manager:
    """An async context manager that can be watched."""

    def __init__(self, suppress: bool = False, entering: Gate | None = None) -> None:
        self.tasks: list[Any] = []
        self.errors: list[Any] = []
        self.left = threading.Event()
        self._suppress = suppress
        self._entering = entering

    async def __aenter__(self) -> str:
        self.tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        if self._entering is not None:
            await asyncio.wrap_future(self._entering.promise())
        return "entered"

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        await asyncio.sleep(0)
        self.tasks.append(asyncio.current_task())
        self.errors.append(error)
        self.left.set()
        return self._suppress


def refuse() -> None:
    raise LookupError("no")


def test_using_enters_and_leaves_in_one_task(serve: Serve) -> None:
    """As cancel scopes and task groups ask for; other waits run between."""
    manager = Manager()

    async def other() -> str:
        return "waited"

    def answer(environ: Environ) -> str:
        with using(manager) as entered:
            assert not manager.left.is_set()
            inside = f"{entered} {wait(other())}"
        assert manager.left.is_set()
        return inside

    served = serve(answering(answer))
    assert served.get().text == "entered waited"
    assert len(manager.tasks) == 2
    assert len(set(manager.tasks)) == 1
    assert manager.errors == [None]


def test_using_gives_the_manager_the_error_of_the_block(serve: Serve) -> None:
    """And raises it again, unless the manager suppresses it."""
    outcomes = []
    managers = [Manager(), Manager(suppress=True)]

    def answer(environ: Environ) -> None:
        for manager in managers:
            try:
                with using(manager):
                    refuse()
            except LookupError:
                outcomes.append("raised")
            else:
                outcomes.append("suppressed")

    served = serve(answering(answer))
    assert served.get().status == 200
    assert outcomes == ["raised", "suppressed"]
    for manager in managers:
        assert [str(error) for error in manager.errors] == ["no"]


def test_using_works_with_an_async_contextmanager_function(serve: Serve) -> None:
    """Which raises inside what it has yielded to."""
    seen: list[str] = []

    @asynccontextmanager
    async def manage() -> AsyncIterator[int]:
        try:
            yield 7
        except LookupError:
            seen.append("inside")
            raise

    def answer(environ: Environ) -> str:
        try:
            with using(manage()) as value:
                assert value == 7
                refuse()
        except LookupError as error:
            return str(error)
        return "nothing raised"

    served = serve(answering(answer))
    assert served.get().text == "no"
    assert seen == ["inside"]


def test_using_raises_what_entering_raises(serve: Serve) -> None:
    """The block is not run, and nothing is left."""

    @asynccontextmanager
    async def manage() -> AsyncIterator[None]:
        refuse()
        yield

    def answer(environ: Environ) -> str:
        try:
            with using(manage()):
                return "run"
        except LookupError as error:
            return str(error)

    served = serve(answering(answer))
    assert served.get().text == "no"


def test_using_is_left_when_the_client_leaves_in_the_block(serve: Serve) -> None:
    """The manager is given ClientDisconnected, in its own task."""
    manager = Manager()
    entered = threading.Event()

    def answer(environ: Environ) -> None:
        with using(manager):
            entered.set()
            wait(Gate().promise())

    served = serve(answering(answer))
    client = served.request()
    happened(entered)
    served.until_waiting(1)
    client.close()
    served.until_idle()
    happened(manager.left)
    assert [type(error) for error in manager.errors] == [ClientDisconnected]
    assert len(set(manager.tasks)) == 1


def test_using_is_given_up_when_the_client_leaves_while_it_is_entered(serve: Serve) -> None:
    """Entering is cancelled; what was not entered is not left."""
    manager = Manager(entering=Gate())
    raised: list[type[BaseException]] = []

    def answer(environ: Environ) -> None:
        try:
            with using(manager):
                raised.append(AssertionError)
        except BaseException as error:
            raised.append(type(error))
            raise

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert raised == [ClientDisconnected]
    assert served.call(lambda: [task.cancelled() or task.done() for task in manager.tasks])
    assert not manager.left.is_set()


def test_using_leaves_what_was_entered_in_spite_of_being_cancelled(serve: Serve) -> None:
    """A manager may finish entering though it is cancelled; then it is left as well."""

    class Stubborn(Manager):
        async def __aenter__(self) -> str:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                pass
            return await super().__aenter__()

    manager = Stubborn()

    def answer(environ: Environ) -> None:
        with using(manager):
            raise AssertionError

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    happened(manager.left)
    assert manager.errors == [None]


def test_in_thread_promises_the_result_of_a_blocking_call(serve: Serve) -> None:
    """With its arguments, on another thread, in a copy of the request's context."""

    def blocking(one: str, *, two: str) -> str:
        assert threading.get_ident() not in threads
        return f"{one} {two} {VARIABLE.get()}"

    threads: list[int] = []

    def answer(environ: Environ) -> str:
        threads.append(threading.get_ident())
        VARIABLE.set("the request's")
        return wait(in_thread(blocking, "1", two="2"))

    served = serve(answering(answer))
    assert served.get().text == "1 2 the request's"


def test_in_thread_raises_the_error_of_the_call(serve: Serve) -> None:
    """At the line that waits."""

    def blocking() -> None:
        raise LookupError("no")

    def answer(environ: Environ) -> str:
        try:
            wait(in_thread(blocking))
        except LookupError as error:
            return str(error)
        return "none"

    served = serve(answering(answer))
    assert served.get().text == "no"


def test_in_thread_holds_no_lane_while_it_blocks(serve: Serve) -> None:
    """On one thread another request is answered meanwhile; a departure ends the wait at once."""
    release = threading.Event()

    def answer(environ: Environ) -> None:
        if environ["PATH_INFO"] == "/block":
            wait(in_thread(happened, release))

    served = serve(answering(answer), threads=1)
    blocked = served.request("/block")
    gone = served.request("/block")
    served.until_waiting(2)
    assert served.get("/").complete
    gone.close()
    served.until_waiting(1)
    release.set()
    assert blocked.response().complete


def test_a_function_in_a_thread_may_wait(serve: Serve) -> None:
    """It blocks that thread; awaitables run on the server's loop."""

    async def loop() -> Any:
        return asyncio.get_running_loop()

    def answer(environ: Environ) -> str:
        return str(wait(in_thread(lambda: wait(loop()))) is served.loop)

    served = serve(answering(answer))
    assert served.get().text == "True"


def test_a_failure_to_close_an_async_generator_is_not_silent(serve: Serve, log: Log) -> None:
    """Nobody waits for `aclose`: asyncio reports it, when the task is dropped."""
    seen: list[dict[str, Any]] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise LookupError("closing failed")

    def answer(environ: Environ) -> None:
        for _ in iterate(numbers()):
            break

    def handle(loop: Any, context: dict[str, Any]) -> None:
        seen.append(context)

    served = serve(answering(answer))
    served.call(served.loop.set_exception_handler, handle)
    assert served.get().status == 200
    until(lambda: seen or gc.collect() < 0)
    assert isinstance(seen[0]["exception"], LookupError)


@pytest.mark.parametrize("function", [bide.wait, bide.wait_all])
def test_waiting_in_a_coroutine_is_refused(serve: Serve, function: Any) -> None:
    """It would stop the loop: the error says what to do, and the coroutine is closed."""

    async def value() -> int:
        return 1

    async def wrong() -> Any:
        return function(value())

    def answer(environ: Environ) -> str:
        try:
            wait(wrong())
        except bide.WaitError as error:
            return str(error)
        return "waited"

    served = serve(answering(answer))
    assert "use `await` here" in served.get().text
