"""What becomes of each worker: every move, by a clock of our own and without a process."""

import logging
import random
from collections.abc import Callable
from functools import partial

import pytest

from bide.process import fleet as fleets
from bide.process import slots
from bide.process.fleet import ALL_TOLD, RELOAD, Fleet
from bide.process.slots import MOVES, START, Hands, Slot, Worker
from tests.failures import Failures, same

PATIENCE = 50.0


class Recorder(Hands):
    """Does nothing, and keeps what it was told, in words."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.booted: list[Worker] = []

    def boot(self, slot: int) -> Worker:
        """Make a worker that has no process; its name is the order in which it was booted."""
        worker = Worker(slot, 0.0)
        self.booted.append(worker)
        self.did.append(f"boot {slot}")
        return worker

    def _did(self, what: str, worker: Worker, *more: int) -> None:
        self.did.append(" ".join([what, f"#{self.booted.index(worker)}", *map(str, more)]))

    def accept(self, worker: Worker, slot: int) -> None:
        """Keep it."""
        self._did("accept", worker, slot)

    def leave(self, worker: Worker, slot: int) -> None:
        """Keep it."""
        self._did("leave", worker, slot)

    def retire(self, worker: Worker) -> None:
        """Keep it."""
        self._did("retire", worker)

    def stop(self, worker: Worker) -> None:
        """Keep it."""
        self._did("stop", worker)

    def kill(self, worker: Worker) -> None:
        """Keep it."""
        self._did("kill", worker)


class Play:
    """A fleet, its hands and its clock.

    Args:
        size: how many workers there are to be.
        ready: whether they are all ready.
    """

    def __init__(self, size: int, ready: bool = True) -> None:
        self.now = 1000.0
        self.hands = Recorder()
        self.fleet = Fleet(size, self.hands, lambda: self.now, PATIENCE)
        self.fleet.tick()
        for number in range(size if ready else 0):
            self.ready(number)
        if ready:
            assert self.fleet.completed() == START
        self.did()

    def did(self) -> list[str]:
        """Return what was done since the last call."""
        did, self.hands.did = self.hands.did, []
        return did

    def ready(self, number: int) -> None:
        """The worker with this number is ready."""
        self.fleet.ready(self.hands.booted[number])

    def left(self, number: int) -> None:
        """The worker with this number accepts no more connections."""
        self.hands.booted[number].accepting = False

    def ended(self, number: int) -> None:
        """The process of the worker with this number has ended."""
        self.fleet.ended(self.hands.booted[number])

    def renew(self, number: int) -> None:
        """The worker with this number is worn out."""
        self.fleet.renew(self.hands.booted[number], "it is worn out")

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.fleet.tick()

    @property
    def states(self) -> list[str]:
        """Of all slots."""
        return [each.state for each in self.fleet.slots]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep the lines for tests that look at them."""
    caplog.set_level(logging.DEBUG, "bide")


def test_each_state_has_a_worker_or_not() -> None:
    """Every move keeps what its state promises: who serves, and who boots."""
    has = {
        slots.EMPTY: (False, False),
        slots.BOOTING: (False, True),
        slots.SERVING: (True, False),
        slots.REPLACING: (True, True),
        slots.UNUSED: (False, False),
    }
    with Failures() as failures:
        for (state, event), (after, actions) in MOVES.items():
            with failures.of(f"{state}, {event}"):
                play = Play(1)
                fleet, slot = play.fleet, Slot(state)
                fleet.slots = [slot]
                serves, boots = has[state]
                slot.worker = play.hands.boot(0) if serves else None
                slot.coming = play.hands.boot(0) if boots else None
                fleet._move(0, event)
                same(slot.state, after)
                same((slot.worker is not None, slot.coming is not None), has[after], actions)


def test_every_action_is_taken_by_a_move_and_every_state_can_be_left() -> None:
    """Else the table would have what nothing leads to."""
    actions = {action for _, each in MOVES.values() for action in each}
    assert actions == set(fleets._ACTIONS)
    assert {state for state, _ in MOVES} == {after for after, _ in MOVES.values()}


def test_the_first_worker_boots_alone_and_takes_all_clients_meanwhile() -> None:
    """A mistake in the application is told once, and nobody waits for the others."""
    play = Play(3, ready=False)
    same(play.hands.booted, [play.fleet.slots[0].coming])
    play.did()
    play.ready(0)
    same(
        play.did(),
        [
            *("accept #0 1", "accept #0 2"),
            *("boot 1", "accept #1 1", "boot 2", "accept #2 2"),
        ],
    )
    play.ready(2)
    same(play.did(), ["leave #0 2"])
    assert not play.fleet.completed()
    play.ready(1)
    same(play.did(), ["leave #0 1"])
    assert play.fleet.completed() == START
    assert not play.fleet.completed()  # it is said once


def test_a_server_whose_first_worker_does_not_start_stops() -> None:
    """Whatever it would try again fails again."""
    play = Play(2, ready=False)
    play.ended(0)
    assert play.fleet.failed
    assert play.fleet.stopping
    assert play.fleet.workers == []
    play.later(100.0)
    same(play.did(), [])


def test_a_worker_that_takes_long_to_be_ready_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may have much to load; or its import hangs."""
    play = Play(1, ready=False)
    same(play.fleet.next_due, play.now + fleets.LATE)
    play.later(fleets.LATE)
    play.later(fleets.LATE)
    assert caplog.text.count("worker 1 has not been ready for 60 s: waiting for it") == 1
    play.ready(0)
    assert play.fleet.completed() == START


def test_a_worker_that_is_lost_is_started_again_at_once_and_another_has_its_clients() -> None:
    """Until the new one is ready."""
    play = Play(2)
    play.later(60.0)
    play.ended(1)
    same(play.did(), ["accept #0 1", "boot 1", "accept #2 1"])
    play.ready(2)
    same(play.did(), ["leave #0 1"])


def test_a_worker_that_fails_again_and_again_is_tried_again_later_and_later() -> None:
    """1, 2, 4 … 30 s, whether it fails to boot or soon after."""
    play = Play(2)
    play.later(60.0)
    play.ended(1)
    pauses = []
    for attempt in range(7):
        play.ended(2 + attempt)
        same(play.states, [slots.SERVING, slots.EMPTY])
        pauses.append(play.fleet.next_due - play.now)
        play.later(pauses[-1] - 0.01)
        same(play.states[1], slots.EMPTY)
        play.later(0.02)
        same(play.states[1], slots.BOOTING)
    same([round(each, 6) for each in pauses], [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0])


def test_a_worker_that_ends_soon_after_it_was_ready_is_not_tried_without_a_pause() -> None:
    """The first time it is: it may have been killed. Later it counts as one that cannot start."""
    play = Play(2)
    play.ended(1)
    same(play.states[1], slots.BOOTING)
    play.ready(2)
    play.ended(2)
    same(play.states[1], slots.EMPTY)
    play.later(1.0)
    same(play.states[1], slots.BOOTING)
    play.ready(3)
    play.later(fleets.SETTLED)
    play.ended(3)
    same(play.states[1], slots.BOOTING)


def test_a_reload_replaces_one_worker_after_the_other() -> None:
    """Each old one is told to end when the new one is ready, and not before."""
    play = Play(2)
    play.fleet.reload()
    same(play.did(), ["boot 0", "accept #2 0"])
    play.ready(2)
    same(play.did(), ["retire #0", "boot 1", "accept #3 1"])
    assert not play.fleet.completed()
    play.ready(3)
    same(play.did(), ["retire #1"])
    play.left(0)
    play.left(1)
    assert play.fleet.completed() == RELOAD
    play.ended(0)
    play.ended(1)
    same(play.fleet.workers, play.hands.booted[2:])


def test_a_reload_is_complete_when_no_old_worker_accepts_any_more() -> None:
    """Else who asks when it is told may have an answer of the old application."""

    def left(play: Play, number: int) -> None:
        play.left(number)

    def ended(play: Play, number: int) -> None:
        play.ended(number)

    with Failures() as failures:
        for order in ((0, 1), (1, 0)):
            for first in (left, ended):
                for second in (left, ended):
                    play = Play(2)
                    play.fleet.reload()
                    play.ready(2)
                    play.ready(3)
                    with failures.of((order, first.__name__, second.__name__)):
                        same(play.fleet.completed(), "")
                        first(play, order[0])
                        same(play.fleet.completed(), "")
                        second(play, order[1])
                        same(play.fleet.completed(), RELOAD)


def test_a_reload_that_fails_keeps_the_old_workers_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The others are not tried: it is the same application."""
    play = Play(2)
    play.fleet.reload()
    play.ended(2)
    same(play.did(), ["boot 0", "accept #2 0"])
    same(play.states, [slots.SERVING, slots.SERVING])
    assert play.fleet.completed() == fleets.KEPT
    assert "the old workers go on: the new worker 1 did not start" in caplog.text
    play.later(1000.0)
    same(play.did(), [])
    play.fleet.reload()
    same(play.did(), ["boot 0", "accept #3 0"])


def test_a_reload_that_cannot_be_made_leaves_one_before_it_to_go_on() -> None:
    """Else some workers would have the new application, and some the old one."""
    play = Play(2)
    play.fleet.reload()
    play.ready(2)
    play.fleet.refuse_reload("the certificate is not there")
    play.ended(0)
    assert not play.fleet.completed()
    play.ready(3)
    play.ended(1)
    assert play.fleet.completed() == RELOAD
    play.renew(2)
    play.renew(3)
    play.fleet.refuse_reload("the certificate is not there")  # worn-out workers are replaced
    play.ready(4)
    play.ready(5)
    same([each.slot for each in play.hands.booted[2:]], [0, 1, 0, 1])


def test_reloads_that_come_faster_than_requests_end_do_not_pile_up() -> None:
    """A slot has one process that ends, at most: the next waits for its end."""
    play = Play(1)
    play.fleet.reload()
    play.ready(1)
    for _ in range(5):
        play.fleet.reload()
    same(play.did(), ["boot 0", "accept #1 0", "retire #0"])
    play.ended(0)
    play.ready(2)
    play.ended(1)
    same(play.did(), ["boot 0", "accept #2 0", "retire #1"])
    assert play.fleet.completed() == RELOAD


def test_a_worker_that_boots_while_a_reload_is_asked_for_is_replaced_too() -> None:
    """It may have imported the application before that was changed."""
    play = Play(2)
    play.ended(1)
    play.fleet.reload()
    play.did()
    play.ready(2)
    play.ready(3)
    play.ready(4)
    same([each.slot for each in play.hands.booted], [0, 1, 1, 0, 1])
    play.left(0)
    play.left(2)
    assert play.fleet.completed() == RELOAD


def test_a_reload_that_is_asked_for_while_the_first_workers_boot_hides_no_start() -> None:
    """Whether it is made or given up: systemd, the PID file and a version before wait for that."""
    for given_up in (False, True):
        play = Play(1, ready=False)
        play.fleet.reload()
        if given_up:
            play.fleet.refuse_reload("the certificate is not there")
        for number in range(3):
            if number < len(play.hands.booted):
                play.ready(number)
        for worker in play.fleet.workers:
            worker.accepting = not worker.ending
        assert play.fleet.completed() == START


def test_the_worker_that_serves_is_lost_while_its_replacement_boots() -> None:
    """Then that one takes its place; in both orders nothing is left behind."""
    play = Play(1)
    play.renew(0)
    play.ended(0)
    same(play.states, [slots.BOOTING])
    play.ready(1)
    same(play.states, [slots.SERVING])
    play.renew(1)
    play.ready(2)
    play.ended(1)
    same(play.fleet.workers, [play.hands.booted[2]])


def test_a_worker_that_was_sent_a_signal_is_replaced_once_no_other_had_it() -> None:
    """Not at once: one for all processes may come to the supervisor later than to a worker."""
    play = Play(2)
    play.fleet.signalled(play.hands.booted[0])
    same(play.fleet.next_due, play.now + ALL_TOLD)
    play.later(ALL_TOLD / 2)
    play.fleet.signalled(play.hands.booted[0])
    same(play.did(), [])
    play.later(ALL_TOLD / 2)
    same(play.did(), ["boot 0", "accept #2 0"])
    play.later(ALL_TOLD)
    same(play.did(), [])


@pytest.mark.parametrize("supervisor_first", [False, True])
@pytest.mark.parametrize("delayed", [False, True])
def test_a_signal_for_all_processes_replaces_none(
    supervisor_first: bool, delayed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has it first; with a delay before the stop, too."""
    play = Play(2)

    def stop() -> None:
        if delayed:
            play.fleet.stops_soon = True
        else:
            play.fleet.stop()

    signalled: list[Callable[[], None]] = [
        partial(play.fleet.signalled, each) for each in play.hands.booted
    ]
    for each in [stop, *signalled] if supervisor_first else [*signalled, stop]:
        each()
    play.later(ALL_TOLD)
    same([each for each in play.did() if not each.startswith("stop")], [])
    assert "is replaced" not in caplog.text


def test_worn_out_workers_are_replaced_one_at_a_time_and_tried_again() -> None:
    """All of them may be worn out at the same time."""
    play = Play(3)
    for number in (0, 1, 2, 1):
        play.renew(number)
    same(play.did(), ["boot 0", "accept #3 0"])
    play.ended(3)  # it did not start: the next one has its turn
    same(play.did(), ["boot 1", "accept #4 1"])
    play.ready(4)
    play.ready(5)
    same(play.states, [slots.SERVING] * 3)
    play.did()
    play.later(1.0)
    same(play.did(), ["boot 0", "accept #6 0"])


def test_fewer_workers_leave_no_socket_without_one_that_accepts() -> None:
    """And with more again the slot has its own."""
    play = Play(3)
    assert play.fleet.fewer()
    same(play.did(), ["retire #2", "accept #0 2"])
    assert play.fleet.fewer()
    same(play.did(), ["retire #1", "accept #0 1"])
    assert not play.fleet.fewer()
    assert play.fleet.size == 1
    assert play.fleet.more()
    play.ready(3)
    same(play.did(), ["boot 1", "accept #3 1", "leave #0 1"])
    same(play.hands.booted[0].accepts, {0, 2})


def test_sockets_of_more_slots_than_there_are_workers_are_accepted_from() -> None:
    """The version before had more workers."""
    play = Play(1, ready=False)
    play.fleet.have_sockets(3)
    play.ready(0)
    same(play.fleet.workers[0].accepts, {0, 1, 2})
    assert play.fleet.completed() == START
    play.fleet.more()
    play.ready(1)
    same([each.accepts for each in play.fleet.workers], [{0, 2}, {1}])


def test_a_worker_that_boots_is_killed_when_there_are_to_be_fewer() -> None:
    """It has no requests."""
    play = Play(1)
    play.fleet.more()
    play.fleet.fewer()
    same(play.did()[-1], "kill #1")
    play.ended(1)
    same(play.states, [slots.SERVING, slots.UNUSED])


def test_there_are_not_more_workers_than_can_be() -> None:
    """However often more are asked for."""
    play = Play(1)
    while play.fleet.more():
        pass
    assert play.fleet.size == fleets.MOST


def test_a_stop_ends_all_and_kills_those_that_take_too_long() -> None:
    """Those that boot have nothing to finish. One that retires is told to hurry."""
    play = Play(3)
    play.renew(0)
    play.ready(3)  # worker 0 ends
    play.fleet.reload()  # and 1 would be replaced, since the first slot still has one that ends
    play.did()
    play.fleet.stop()
    same(sorted(play.did()), ["kill #4", "stop #0", "stop #1", "stop #2", "stop #3"])
    for number in (0, 2, 3, 4):
        play.ended(number)
    play.later(PATIENCE)
    same(play.did(), ["kill #1"])
    play.ended(1)
    assert play.fleet.workers == []
    assert not play.fleet.failed


def test_a_server_that_hands_over_closes_no_socket_for_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its workers are told to retire; one that had the signal too is not said to be replaced."""
    play = Play(2)
    play.fleet.stop(handing_over=True)
    play.renew(0)
    same(play.did(), ["retire #0", "retire #1"])
    assert "is replaced" not in caplog.text


def test_nothing_is_replaced_once_the_server_is_about_to_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whether a worker has asked for it before or after. One that is lost is started again."""
    play = Play(3)
    play.renew(0)
    play.renew(1)
    play.fleet.stops_soon = True
    play.did()
    play.renew(2)
    play.ready(3)  # it booted already
    play.ended(0)
    same(play.did(), ["retire #0"])
    assert "worker 3 is replaced" not in caplog.text
    play.later(60.0)
    play.ended(1)
    same(play.did(), ["accept #3 1", "boot 1", "accept #4 1"])


def test_every_order_of_what_happens_leaves_a_slot_that_is_served() -> None:
    """Random events, and then peace: each slot has one worker, each socket one that accepts."""
    with Failures() as failures:
        for seed in range(300):
            with failures.of(seed):
                random_play(random.Random(seed))


def random_play(chance: random.Random) -> None:
    """Play a long row of events, then let everything come to rest, and check it."""
    play = Play(chance.randint(1, 4))
    fleet = play.fleet
    for _ in range(60):
        workers = fleet.workers
        booting = [each.coming for each in fleet.slots if each.coming is not None]
        event = chance.randrange(8)
        if event == 0 and booting:
            fleet.ready(chance.choice(booting))
        elif event == 1 and workers:
            fleet.ended(chance.choice(workers))
        elif event == 2:
            fleet.reload()
        elif event == 3:
            fleet.more()
        elif event == 4:
            fleet.fewer()
        elif event == 5 and fleet.serving:
            fleet.renew(chance.choice(fleet.serving), "it is worn out")
        else:
            play.later(chance.choice((0.1, 1.0, 20.0)))
        check_sockets(play)
    for _ in range(200):
        play.later(31.0)
        for each in fleet.slots:
            if each.coming is not None:
                fleet.ready(each.coming)
            for worker in list(each.past):
                fleet.ended(worker)
    assert fleet.complete
    check_sockets(play)
    same(len(fleet.workers), fleet.size)


def check_sockets(play: Play) -> None:
    """Check that each socket has exactly one worker that accepts, while there is any."""
    serving = play.fleet.serving
    for index in range(len(play.fleet.slots) if serving else 0):
        same(sum(index in each.accepts for each in serving), 1, f"slot {index}")
