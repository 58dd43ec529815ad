"""Locks, semaphores, events, conditions and queues whose waits park."""

import gc
import queue
import random
import threading
from collections import deque
from typing import Any

import greenlet
import pytest

import bide
from bide.errors import ClientDisconnected, WaitError
from bide.waiting.cleanups import cleanup_time
from bide.waiting.stores import NOTHING, Exclusive, Store
from tests.conftest import Serve
from tests.fakes import Lane
from tests.served import DEADLINE, Environ, Gate, until

GONE = ClientDisconnected("the client has left")


def test_a_lock_is_handed_on_in_turn(lane: Lane) -> None:
    """Each request parks until it has it, and the thread runs others meanwhile."""
    lock, told = bide.Lock(), list[str]()
    gates = [bide.Event() for _ in range(3)]

    def view(number: int) -> None:
        with lock:
            told.append(f"{number} in")
            gates[number].wait()
            told.append(f"{number} out")

    runs = [lane.begin(lambda number=number: view(number)) for number in range(3)]  # type: ignore[misc]
    assert told == ["0 in"]
    assert lock.locked()
    assert not lock.acquire(blocking=False)
    for gate in reversed(gates):
        gate.set()
    lane.settle()
    assert told == [f"{number} {what}" for number in range(3) for what in ("in", "out")]
    assert all(run.ended and run.raised is None for run in runs)
    assert not lock.locked()
    with pytest.raises(RuntimeError, match="not locked"):
        lock.release()
    lane.end()


def test_a_time_out_ends_the_wait_and_leaves_the_others_in_turn(lane: Lane) -> None:
    """And one that comes as late as the release has the lock."""
    lock = bide.Lock()
    assert lock.acquire()
    first = lane.begin(lambda: lock.acquire(timeout=1))
    second = lane.begin(lambda: lock.acquire(timeout=100))
    lane.loop.advance(2)
    lane.settle()
    assert first.value is False
    assert not second.ended
    lock.release()
    lane.settle()
    assert second.value is True
    assert lock.locked()
    lane.end()


def test_one_that_is_cancelled_takes_nothing_with_it(lane: Lane) -> None:
    """Whether it is cancelled before it is given the lock, or after that."""
    for given_first in (False, True):
        lock = bide.Lock()
        lock.acquire()
        left: list[bool] = []

        def view(lock: bide.Lock = lock, left: list[bool] = left) -> None:
            with lock:
                left.append(True)

        gone = lane.begin(view)
        other = lane.begin(view)
        if given_first:
            lock.release()
        gone.waiter.cancel(GONE)
        if not given_first:
            lane.settle()
            lock.release()
        lane.settle()
        assert other.ended
        assert other.raised is None
        assert gone.ended
        # What was there first counts.
        assert left == [True] * (2 if given_first else 1)
        assert not lock.locked()
    lane.end()


def test_one_that_is_ended_when_it_has_its_item_gives_it_to_the_next(lane: Lane) -> None:
    """By force, while it is parked; and where waiting is refused."""
    store: Store[str] = Store(deque())
    parked: list[greenlet.greenlet] = []

    def view() -> str:
        parked.append(greenlet.getcurrent())
        return store.take(None)

    killed, other = lane.begin(view), lane.begin(view)
    store.give("a")
    lane.hub.main = greenlet.getcurrent()
    parked[0].throw(greenlet.GreenletExit)
    assert isinstance(killed.error, greenlet.GreenletExit)
    lane.settle()
    assert other.value == "a"

    class Late(Store[str]):
        def take_now(self) -> str:
            super().take_now()
            self.give("b")  # comes between the look and the wait
            return NOTHING  # type: ignore[no-any-return]

    late = Late(deque())

    async def refused() -> None:
        with pytest.raises(WaitError):
            late.take(None)

    lane.loop.run_until_complete(refused())
    assert list(late.items) == ["b"]
    lane.end()


def test_nothing_is_lost_or_doubled_whatever_comes_in_between(lane: Lane) -> None:
    """Random takers with time-outs, items, departures and time, seeded; all that was put is there.

    Items leave in order.
    """
    chance = random.Random(14)
    for _ in range(200):
        items: bide.Queue[int] = bide.Queue()
        taken: list[int] = []
        runs: list[Any] = []

        def take(
            limit: float | None, items: bide.Queue[int] = items, taken: list[int] = taken
        ) -> None:
            try:
                taken.append(items.get(timeout=limit))
            except queue.Empty:
                pass

        put = 0
        for _ in range(chance.randint(1, 30)):
            what = chance.randrange(5)
            if what == 0:
                limit = chance.choice([None, 0, 1, 2])
                runs.append(lane.begin(lambda limit=limit: take(limit)))  # type: ignore[misc]
            elif what == 1:
                items.put(put)
                put += 1
            elif what == 2 and runs:
                chance.choice(runs).waiter.cancel(GONE)
            elif what == 3:
                lane.loop.advance(chance.choice([0.5, 1, 3]))
            else:
                lane.settle()
        for run in runs:
            run.waiter.cancel(GONE)
        lane.settle()
        assert all(run.ended for run in runs)
        rest = [items.get_nowait() for _ in range(items.qsize())]
        assert sorted(taken) + rest == list(range(put))
    lane.end()


def test_a_semaphore_admits_as_many_as_it_says(lane: Lane) -> None:
    """And more, once it is released more often."""
    semaphore, inside = bide.Semaphore(2), list[int]()
    gate = bide.Event()

    def view(number: int) -> None:
        with semaphore:
            inside.append(number)
            gate.wait()

    for number in range(4):
        lane.begin(lambda number=number: view(number))  # type: ignore[misc]
    assert inside == [0, 1]
    semaphore.release()
    lane.settle()
    assert inside == [0, 1, 2]
    gate.set()
    lane.settle()
    assert inside == [0, 1, 2, 3]
    assert [semaphore.acquire(blocking=False) for _ in range(4)] == [True, True, True, False]
    with pytest.raises(ValueError, match="0 or more"):
        bide.Semaphore(-1)
    with pytest.raises(ValueError, match="once or more"):
        semaphore.release(0)
    lane.end()


def test_an_event_lets_all_go_on_and_can_be_cleared(lane: Lane) -> None:
    """A time-out says that it has not happened."""
    event = bide.Event()
    runs = [lane.begin(event.wait) for _ in range(3)]
    late = lane.begin(lambda: event.wait(1))
    lane.loop.advance(2)
    lane.settle()
    assert late.value is False
    event.set()
    lane.settle()
    assert [run.value for run in runs] == [True] * 3
    assert event.wait(0)
    event.clear()
    assert not event.wait(0)
    assert not event.is_set()
    again = lane.begin(event.wait)
    assert not again.ended
    event.set()
    lane.settle()
    assert again.value is True
    lane.end()


def test_a_condition_notifies_under_its_lock(lane: Lane) -> None:
    """Who was notified goes on with the lock; a departure passes the notification on."""
    condition, ready, told = bide.Condition(), list[int](), list[str]()

    def view(name: str) -> None:
        with condition:
            condition.wait_for(lambda: ready)
            ready.pop()
            told.append(name)

    one, two, three = (lane.begin(lambda name=name: view(name)) for name in "abc")  # type: ignore[misc]
    with condition:
        ready.append(1)
        condition.notify()
        lane.settle()
        assert told == []
    lane.settle()
    assert told == ["a"]
    two.waiter.cancel(GONE)
    lane.settle()
    assert isinstance(two.error, ClientDisconnected)
    with condition:
        ready.append(2)
        condition.notify_all()
    lane.settle()
    assert told == ["a", "c"]
    assert one.ended
    assert three.ended
    timed = lane.begin(lambda: _waits(condition))
    lane.loop.advance(2)
    lane.settle()
    assert timed.value is False
    for forbidden in (condition.notify, condition.wait):
        with pytest.raises(RuntimeError, match="acquire the condition first"):
            forbidden()
    assert condition.acquire(blocking=False)
    condition.release()
    lane.end()


def _waits(condition: bide.Condition) -> bool:
    with condition:
        return condition.wait(1)


def test_a_notification_that_its_receiver_does_not_take_goes_to_another(lane: Lane) -> None:
    """It was ended while it was parked and had been notified."""
    condition, parked = bide.Condition(), list[greenlet.greenlet]()

    def view() -> bool:
        parked.append(greenlet.getcurrent())
        with condition:
            return condition.wait()

    killed, other = lane.begin(view), lane.begin(view)
    with condition:
        condition.notify()
    lane.hub.main = greenlet.getcurrent()
    parked[0].throw(greenlet.GreenletExit)
    lane.settle()
    assert isinstance(killed.error, greenlet.GreenletExit)
    assert other.value is True
    assert not condition._lock.locked()
    lane.end()


def test_a_condition_is_left_with_its_lock_also_when_the_time_to_clean_up_is_over(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the end of its block would release another's, and a notification would go nowhere."""
    monkeypatch.setattr(cleanup_time, "seconds", 0.0)
    monkeypatch.setattr(cleanup_time, "share", 0.0)
    condition = bide.Condition()

    def view() -> bool:
        with condition:
            return condition.wait()

    gone, other = lane.begin(view), lane.begin(view)
    assert condition.acquire(blocking=False)
    gone.waiter.cancel(GONE)
    for _ in range(5):
        lane.settle()
        lane.loop.advance(0.1)
    assert not gone.ended
    condition.release()
    lane.settle()
    lane.loop.advance(0.1)
    lane.settle()
    assert isinstance(gone.error, ClientDisconnected)
    with condition:
        condition.notify()
    lane.settle()
    assert other.value is True
    assert condition.acquire(blocking=False)
    lane.end()


def test_a_queue_holds_as_much_as_it_may(lane: Lane) -> None:
    """Who puts more waits for room; ``join`` waits until all has been dealt with."""
    items: bide.Queue[int] = bide.Queue(2)

    def put_all() -> None:
        for number in range(3):
            items.put(number)

    putting = lane.begin(put_all)
    assert [putting.ended] == [False]
    assert (items.qsize(), items.full(), items.empty()) == (2, True, False)
    with pytest.raises(queue.Full):
        items.put_nowait(9)
    late = lane.begin(lambda: items.put(9, timeout=1))
    lane.loop.advance(2)
    lane.settle()
    assert isinstance(late.error, queue.Full)
    joined = lane.begin(items.join)
    assert items.get() == 0
    lane.settle()
    assert [putting.ended] == [True]
    assert [items.get(), items.get()] == [1, 2]
    with pytest.raises(queue.Empty):
        items.get_nowait()
    for _ in range(3):
        assert not joined.ended
        items.task_done()
        lane.settle()
    assert joined.ended
    with pytest.raises(ValueError, match="more often"):
        items.task_done()
    lane.end()


def test_a_step_that_is_asked_for_within_a_step_is_taken_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As by a destructor, which runs in the midst of it. What it may not do is told by the log."""
    told: list[str] = []
    exclusive = Exclusive()

    def fails() -> None:
        raise ValueError("wrong")

    def outer() -> str:
        assert exclusive.take_step(told.append, "inner") is NOTHING
        exclusive.take_step(fails)
        told.append("outer")
        return "result"

    assert exclusive.take_step(outer) == "result"
    assert told == ["outer", "inner"]
    assert "that has interrupted a lock or a queue" in caplog.text
    items: bide.Queue[int] = bide.Queue()

    class Waiter:
        def __del__(self) -> None:
            items.put(1)
            with pytest.raises(queue.Empty):
                items.get_nowait()
            told.append("destroyed")

    def destroys(waiters: list[Waiter]) -> None:
        waiters.clear()

    gc.disable()
    try:
        items._items.take_step(destroys, [Waiter()])
    finally:
        gc.enable()
    assert told[-1] == "destroyed"
    assert items.get_nowait() == 1


def test_threads_outside_a_request_block(lane: Lane) -> None:
    """As with threading's own: each item arrives once, those of each producer in order."""
    items: bide.Queue[tuple[int, int]] = bide.Queue(3)
    taken: list[list[tuple[int, int]]] = [[], []]

    def produce(who: int) -> None:
        for number in range(500):
            items.put((who, number), timeout=DEADLINE)

    def consume(into: list[tuple[int, int]]) -> None:
        into.extend(items.get(timeout=DEADLINE) for _ in range(500))

    threads = [
        *(threading.Thread(target=produce, args=(who,)) for who in range(2)),
        *(threading.Thread(target=consume, args=(each,)) for each in taken),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert sorted(taken[0] + taken[1]) == [(who, n) for who in range(2) for n in range(500)]
    for each in taken:
        for who in range(2):
            numbers = [number for producer, number in each if producer == who]
            assert numbers == sorted(numbers)
    lane.end()


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_a_request_that_waits_for_a_lock_holds_no_thread(serve: Serve, executor: str) -> None:
    """With one thread: the one that has the lock waits, another waits for it, a third is quick."""
    lock, gate = bide.Lock(), Gate()

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/quick":
            return [b"quick"]
        with lock:
            bide.wait(gate.promise())
            return [b"had it"]

    served = serve(application, executor=executor, threads=1)
    clients = [served.request("/") for _ in range(3)]
    served.until_waiting(3)
    assert served.get("/quick").body == b"quick"
    gate.open()
    assert [client.response().body for client in clients] == [b"had it"] * 3
    until(lambda: not lock.locked())
