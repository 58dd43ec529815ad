"""What is registered by ``bide.per_request`` is each request's own, on a hub of this thread."""

import concurrent.futures
import threading
from collections.abc import Iterator
from typing import Any

import greenlet
import pytest

from bide import WaitError, in_thread, per_request, wait
from bide.waiting import thread_locals
from bide.waiting.outcome import Signal
from bide.waiting.thread_locals import Kept, kept
from tests.fakes import Lane
from tests.served import DEADLINE, Log


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """Take out what a test has registered."""
    before = list(kept)
    yield
    kept[:] = before


def names(local: Any) -> list[str]:
    """Return what a local has."""
    return sorted(vars(local))


def test_a_local_is_each_request_s_own_from_start_to_end(lane: Lane) -> None:
    """And what the thread had outside is there between them, whatever they did."""
    local = per_request(threading.local())
    local.outside = "the thread's"
    signals = {"a": Signal(), "b": Signal()}

    def view(name: str) -> list[Any]:
        seen: list[Any] = [names(local)]
        local.name = name
        wait(signals[name])
        seen.append(dict(vars(local)))
        local.later = name
        return seen

    one = lane.begin(lambda: view("a"))
    assert names(local) == ["outside"]
    other = lane.begin(lambda: view("b"))
    for name in "ab":
        signals[name].fire()
        lane.settle()
        assert vars(local) == {"outside": "the thread's"}
    assert one.value == [[], {"name": "a"}]
    assert other.value == [[], {"name": "b"}]
    assert lane.begin(lambda: names(local)).value == []


def test_a_request_that_does_not_wait_leaves_nothing(lane: Lane) -> None:
    """It is dropped at the request's end: neither the next nor the thread keeps it alive."""
    local = per_request(threading.local())
    dropped = threading.Event()

    class Held:
        def __del__(self) -> None:
            dropped.set()

    def view() -> None:
        local.held = Held()

    assert lane.begin(view).ended
    assert dropped.is_set()
    assert names(local) == []


def test_a_subclass_begins_as_on_a_new_thread(lane: Lane) -> None:
    """A list that ``__init__`` makes is a new one for each request, and there after a wait."""

    class Stack(threading.local):
        def __init__(self) -> None:
            self.stack: list[str] = []

    local = per_request(Stack())
    outside = local.stack
    signal = Signal()

    def view(name: str) -> list[str]:
        local.stack.append(name)
        wait(signal)
        return local.stack

    runs = [lane.begin(lambda name=name: view(name)) for name in "ab"]  # type: ignore[misc]
    signal.fire()
    lane.settle()
    assert [run.value for run in runs] == [["a"], ["b"]]
    assert local.stack is outside
    assert outside == []


def test_a_subclass_with_arguments_is_told_to_give_begin(lane: Lane) -> None:
    """They are not known: so the function says how one begins."""

    class Named(threading.local):
        def __init__(self, name: str) -> None:
            self.name = name

    local = Named("one")
    with pytest.raises(TypeError, match="a new Named needs arguments: give per_request"):
        per_request(local)
    per_request(local, begin=lambda: local.__init__("each"))  # type: ignore[misc]
    assert lane.begin(lambda: local.name).value == "each"
    assert local.name == "one"


@pytest.mark.parametrize("thing", [{}, threading.local, None])
def test_what_is_no_local_is_refused(thing: Any) -> None:
    """At the line that registers it."""
    with pytest.raises(TypeError, match=r"takes a threading\.local, or a getter and a setter"):
        per_request(thing)


def test_a_getter_and_a_setter_are_each_request_s_own(lane: Lane) -> None:
    """It begins as the thread has it."""
    state = ["the thread's"]

    def put(value: str) -> None:
        state[0] = value

    per_request(lambda: state[0], put)
    signals = {"a": Signal(), "b": Signal()}

    def view(name: str) -> tuple[str, str]:
        before = state[0]
        put(name)
        wait(signals[name])
        return before, state[0]

    runs = {name: lane.begin(lambda name=name: view(name)) for name in "ab"}  # type: ignore[misc]
    for name in "ba":
        signals[name].fire()
        lane.settle()
        assert runs[name].value == ("the thread's", name)
        assert state == ["the thread's"]


def test_one_is_registered_once(lane: Lane) -> None:
    """A module may be loaded again."""
    local = threading.local()
    assert per_request(local) is local
    assert per_request(local) is local
    assert [each.of for each in kept].count(local) == 1
    assert thread_locals.keep(thread_locals.Local(local)) is thread_locals.nothing


def test_a_local_is_there_in_a_library_s_greenlet_below(lane: Lane) -> None:
    """That waits in it, as SQLAlchemy's bridge does; another request comes in between."""
    local = per_request(threading.local())
    signal = Signal()

    def below() -> str:
        local.deep = "deep"
        wait(signal)
        return f"{local.name} {local.deep}"

    def view() -> Any:
        local.name = "a"
        return greenlet.greenlet(below).switch()

    one = lane.begin(view)
    assert lane.begin(lambda: names(local)).value == []
    signal.fire()
    lane.settle()
    assert one.value == "a deep"


def test_what_is_registered_while_requests_wait_begins_empty_in_them(lane: Lane) -> None:
    """As a module does that a view imports: what this view leaves is not the others'."""
    local = threading.local()
    first = Signal()

    other = threading.local()

    def early() -> list[str]:
        wait(first)
        return names(local) + names(other)

    def registering(each: threading.local) -> list[str]:
        per_request(each)
        each.name = "registering"
        wait(first)
        return names(each)

    runs = [lane.begin(early), lane.begin(lambda: registering(local))]
    runs += [lane.begin(early), lane.begin(lambda: registering(other))]
    first.fire()
    lane.settle()
    assert [run.value for run in runs] == [[], ["name"], [], ["name"]]


def test_an_error_of_a_getter_or_setter_is_logged_and_harms_nobody(lane: Lane, log: Log) -> None:
    """Each is another's function: the other states are brought back all the same."""
    failing = ["take", "put", "begin"]

    class Failing(Kept):
        of = object()

        def take(self) -> Any:
            if "take" in failing:
                raise ValueError("take")

        def put(self, state: Any) -> None:
            raise ValueError("put")

        def begin(self) -> None:
            raise ValueError("begin")

        def end(self) -> None:
            raise ValueError("end")

    thread_locals.keep(Failing())
    local = per_request(threading.local())

    def view(signal: Signal) -> list[str]:
        local.name = "mine"
        wait(signal)
        return names(local)

    for _ in range(2):
        signal = Signal()
        run = lane.begin(lambda signal=signal: view(signal))  # type: ignore[misc]
        signal.fire()
        lane.settle()
        assert run.value == ["name"]
        failing.clear()
    said = [str(each.exc_info[1]) for each in log.records if each.exc_info]
    assert {*said} == {"take", "put", "begin", "end"}
    assert all("bide.per_request failed" in each.getMessage() for each in log.records)
    log.records.clear()


def test_a_call_in_a_thread_leaves_nothing_to_the_next_one() -> None:
    """The thread is kept for others; the call may wait, which blocks that thread."""
    local = per_request(threading.local())

    def call(name: str) -> list[str]:
        found = names(local)
        setattr(local, name, name)
        wait(in_thread(int))
        return [*found, *names(local)]

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(thread_locals.alone, call, "a").result(DEADLINE) == ["a"]
        assert pool.submit(thread_locals.alone, call, "b").result(DEADLINE) == ["b"]
        assert pool.submit(names, local).result(DEADLINE) == []
    for name in "ab":
        assert wait(in_thread(call, name), timeout=DEADLINE) == [name]
    with pytest.raises(ZeroDivisionError):
        wait(in_thread(lambda: 1 / 0), timeout=DEADLINE)


def test_a_getter_that_waits_is_refused(lane: Lane, log: Log) -> None:
    """It would switch in the midst of a switch; so would what begins a request, and a setter."""
    refused: list[str] = []

    def waiting(*_: object) -> None:
        try:
            wait(Signal(), timeout=0)
        except WaitError as error:
            refused.append(str(error))
            raise

    per_request(waiting, waiting, begin=waiting)
    lane.begin(lambda: None)
    assert refused
    assert all("cannot wait" in each for each in refused)
    kept.pop()
    per_request(lambda: None, waiting)
    del refused[:]
    lane.begin(lambda: None)
    assert refused
    log.records.clear()


def test_a_destructor_may_wait_when_the_request_s_state_is_dropped(lane: Lane) -> None:
    """It is still the request's, in its greenlet: another one is not disturbed."""
    local = per_request(threading.local())
    signal = Signal()
    waited: list[Any] = []

    class Closing:
        def __del__(self) -> None:
            waited.append(wait(signal))

    def view() -> None:
        local.held = Closing()

    lane.begin(view)
    assert lane.hub.parked == 1
    assert lane.begin(lambda: names(local)).value == []
    signal.fire("closed")
    lane.settle()
    assert waited == ["closed"]
