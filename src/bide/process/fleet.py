"""What becomes of all workers: decided here, done by others.

Nothing here forks, reads a clock or sends a signal: :class:`bide.process.slots.Hands` does, or a
test's stand-in.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Final

from bide.process.sharing import share_out
from bide.process.slots import (
    BOOTING,
    CLOSE,
    EMPTY,
    FAILED,
    LOST,
    MOVES,
    OPEN,
    READY,
    RENEW,
    REPLACING,
    SERVING,
    START,
    UNUSED,
    Hands,
    Slot,
    Worker,
    pause,
)

log = logging.getLogger("bide")

LATE: Final = 60.0
"""Seconds after which it is said that a worker is still not ready; it may go on."""
ALL_TOLD: Final = 1.0
"""Seconds within which a signal for all processes of a service has come to each."""
SETTLED: Final = 10.0
"""Seconds that a worker must have served for its end to be no failure to start."""
RELOAD: Final = "reload"
"""The reason for a replacement that is to have a new application."""
WORN: Final = "worn"
"""The name of all other reasons: requests, memory, or what the worker has asked for."""
KEPT: Final = "kept"
"""A reload that was given up: the workers that served before go on."""
MOST: Final = 999
"""How many workers there may be."""


class Fleet:
    """All slots of a server.

    Args:
        size: how many workers there are to be.
        hands: does what is decided.
        clock: returns monotonic seconds.
        patience: seconds after which a worker that was told to end is killed.
    """

    def __init__(
        self, size: int, hands: Hands, clock: Callable[[], float], patience: float
    ) -> None:
        self._hands = hands
        self._clock = clock
        self._patience = patience
        self.slots: list[Slot] = []
        self.ever_ready = False
        self.failed = False
        """Whether it stops because no worker could be started."""
        self.stopping = False
        self.stops_soon = False
        """Whether workers are no longer replaced, because all are about to be told to end."""
        self.restarts: Counter[str] = Counter()
        """How many workers have been replaced, by the reason."""
        self._pending = START  # what has not been completed
        for _ in range(size):
            self._open()

    # What is asked for --------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many workers there are to be."""
        return sum(each.state != UNUSED for each in self.slots)

    @property
    def workers(self) -> list[Worker]:
        """All processes, those that boot and those that end among them."""
        return [worker for slot in self.slots for worker in slot.workers()]

    @property
    def serving(self) -> list[Worker]:
        """Those that are ready, and were not told to end."""
        return [each.worker for each in self.slots if each.worker is not None]

    def more(self) -> bool:
        """Have one worker more, in a slot that was used before or in a new one.

        Return whether there may be one.
        """
        if self.stopping or self.size >= MOST:
            return False
        self._open()
        self._share_out()
        self.tick()
        return True

    def _open(self) -> None:
        for index, slot in enumerate(self.slots):
            if slot.state == UNUSED:
                self._move(index, OPEN)
                return
        self.slots.append(Slot())
        self._move(len(self.slots) - 1, OPEN)

    def have_sockets(self, slots: int) -> None:
        """Have at least so many slots: there are sockets of them, which somebody must accept from.

        Those beyond the number of workers are not used.
        """
        while len(self.slots) < slots:
            self.slots.append(Slot())
        self._share_out()

    def fewer(self) -> bool:
        """Have one worker less, the last one; return false if there would be none."""
        used = [index for index, each in enumerate(self.slots) if each.state != UNUSED]
        if self.stopping or len(used) < 2:
            return False
        self._move(used[-1], CLOSE)
        self._share_out()
        return True

    def reload(self) -> None:
        """Replace all workers, one after the other."""
        self._tell_later(RELOAD)
        for slot in self.slots:
            slot.due = 0.0
            if slot.state in (BOOTING, SERVING, REPLACING):
                slot.wanted = RELOAD
        self.tick()

    def renew(self, worker: Worker, reason: str) -> None:
        """Replace one worker.

        Args:
            worker: the one.
            reason: for the log.
        """
        slot = self.slots[worker.slot]
        serves = slot.worker is worker and slot.state == SERVING
        if serves and not (slot.wanted or self.stopping or self.stops_soon):
            log.info("%s is replaced: %s", worker.name, reason)
            slot.wanted = reason
            self.tick()

    def signalled(self, worker: Worker) -> None:
        """Replace one worker soon: the signal may be for all processes, and come here later."""
        worker.leaves_at = min(worker.leaves_at, self._clock() + ALL_TOLD)

    def stop(self, handing_over: bool = False) -> None:
        """Have all workers finish and end.

        Args:
            handing_over: whether another server goes on with the sockets.
        """
        if self.stopping:
            return
        self.stopping = True
        for worker in self.workers:
            if worker is self.slots[worker.slot].coming:
                self._hands.kill(worker)
            elif handing_over:
                if not worker.ending:
                    self._hands.retire(worker)
            else:
                self._hands.stop(worker)
            self._is_ending(worker)

    def refuse_reload(self, reason: str) -> None:
        """Keep the workers that there are: a reload cannot be made. One before it goes on.

        Args:
            reason: for the log.
        """
        log.error("the reload has failed, and the old workers go on: %s", reason)
        if self._pending != RELOAD:
            self._tell_later(KEPT)

    def _give_up_reload(self, reason: str) -> None:
        """Keep the workers that have not been replaced."""
        self._tell_later(KEPT)
        self.refuse_reload(reason)
        for each in self.slots:
            if each.wanted == RELOAD:
                each.wanted = ""

    def _tell_later(self, what: str) -> None:
        if self._pending != START:  # that the first workers serve is told first, and says it all
            self._pending = what

    def fail(self) -> None:
        """Stop, since no worker can be started."""
        self.failed = True
        self.stop()

    def kill(self) -> None:
        """End all workers at once."""
        self.stopping = True
        for worker in self.workers:
            worker.ending = True
            self._hands.kill(worker)

    # What happens -------------------------------------------------------------------------------

    def ready(self, worker: Worker) -> None:
        """Called when a worker is ready."""
        if worker.ending:
            return
        self.ever_ready = True
        worker.began, worker.late = self._clock(), inf
        self._move(worker.slot, READY)
        self._share_out()
        self.tick()

    def ended(self, worker: Worker) -> None:
        """Called when a worker's process has ended, for whatever reason."""
        slot = self.slots[worker.slot]
        if worker in slot.past:
            slot.past.remove(worker)
        elif self.stopping:
            if slot.worker is worker:
                slot.worker = None
            else:
                slot.coming = None
        elif slot.worker is worker:
            self._move(worker.slot, LOST)
        else:
            self._move(worker.slot, FAILED)
        if not self.stopping:
            self._share_out()
            self.tick()

    def tick(self) -> None:
        """Do what is due."""
        now = self._clock()
        for worker in self.workers:
            if now >= worker.leaves_at:
                worker.leaves_at = inf
                self.renew(worker, "it was sent a signal")
            if worker.ending and now >= worker.deadline:
                worker.deadline = inf
                log.error("%s has not ended in time: it is killed", worker.name)
                self._hands.kill(worker)
            elif now >= worker.late and not worker.ending:
                worker.late = inf
                log.warning("%s has not been ready for %g s: waiting for it", worker.name, LATE)
        if self.stopping:
            return
        for index, slot in enumerate(self.slots):
            # The first one boots alone: a mistake in the application is told once.
            alone = not any(each.coming is not None for each in self.slots)
            if slot.state == EMPTY and now >= slot.due and (self.ever_ready or alone):
                self._move(index, START)
        self._renew_next(now)

    @property
    def complete(self) -> bool:
        """Whether all workers are ready, none of them to be replaced, and no other one accepts."""
        return all(each.complete for each in self.slots)

    @property
    def next_due(self) -> float:
        """When :meth:`tick` has something to do next; infinite: only when something happens."""
        now = self._clock()
        times = [min(each.deadline, each.late, each.leaves_at) for each in self.workers]
        times += [slot.due for slot in self.slots if not self.stopping]
        # What was due and is not done waits for something to happen.
        return min((each for each in times if each > now), default=inf)

    def completed(self) -> str:
        """Return what is complete now, once: ``START``, ``RELOAD`` or ``KEPT``; or nothing."""
        if self.stopping or not self.complete:
            return ""
        what, self._pending = self._pending, ""
        return what

    # The moves ----------------------------------------------------------------------------------

    def _move(self, index: int, event: str) -> None:
        slot = self.slots[index]
        slot.state, actions = MOVES[slot.state, event]
        for action in actions:
            _ACTIONS[action](self, index, slot)

    def _boot(self, index: int, slot: Slot) -> None:
        slot.reason, slot.wanted = slot.wanted, ""
        slot.coming = self._hands.boot(index)
        slot.coming.late = self._clock() + LATE
        self._hands.accept(slot.coming, index)
        slot.coming.accepts.add(index)

    def _promote(self, _: int, slot: Slot) -> None:
        if slot.reason:
            self.restarts[RELOAD if slot.reason == RELOAD else WORN] += 1
        slot.worker, slot.coming, slot.reason = slot.coming, None, ""

    def _retire(self, _: int, slot: Slot) -> None:
        worker, slot.worker = slot.worker, None
        assert worker is not None
        slot.past.append(worker)
        self._is_ending(worker)
        self._hands.retire(worker)

    def _abandon(self, _: int, slot: Slot) -> None:
        worker, slot.coming = slot.coming, None
        assert worker is not None
        slot.past.append(worker)
        worker.ending = True
        self._hands.kill(worker)

    def _forget(self, _: int, slot: Slot) -> None:
        assert slot.worker is not None
        self.restarts[slot.worker.fate] += 1
        slot.worker, slot.reason = None, ""

    def _reopen(self, _: int, slot: Slot) -> None:
        slot.due, slot.failures, slot.wanted = 0.0, 0, ""

    def _restart(self, _: int, slot: Slot) -> None:
        """After the end of a worker that served: at once, unless this happens again and again."""
        worker, slot.worker = slot.worker, None
        assert worker is not None
        self.restarts[worker.fate] += 1
        slot.failures = slot.failures + 1 if self._clock() - worker.began < SETTLED else 0
        slot.wanted = ""
        self._pause(slot, slot.failures - 1)

    def _back_off(self, index: int, slot: Slot) -> None:
        slot.coming = None
        if not self.ever_ready:
            self.fail()
            return
        slot.failures += 1
        self._pause(slot, slot.failures)
        if slot.due > self._clock():
            seconds = slot.due - self._clock()
            log.error("worker %d did not start: next try in %g s", index + 1, seconds)

    def _keep(self, index: int, slot: Slot) -> None:
        slot.coming = None
        if slot.reason == RELOAD:
            self._give_up_reload(f"the new worker {index + 1} did not start")
            return
        slot.failures += 1
        self._pause(slot, slot.failures)
        slot.wanted = slot.wanted or slot.reason
        log.error("the new worker %d did not start: the old one goes on", index + 1)

    def _pause(self, slot: Slot, failures: int) -> None:
        slot.due = self._clock() + pause(failures)

    def _is_ending(self, worker: Worker) -> None:
        if not worker.ending:
            worker.ending = True
            worker.deadline = self._clock() + self._patience

    def _renew_next(self, now: float) -> None:
        """Replace one of those that are to be replaced: one at a time.

        A slot has at most one process that ends beside the one that serves. So signals that come
        faster than requests end do not fill the memory.
        """
        if self.stops_soon or any(each.coming is not None for each in self.slots):
            return
        for index, slot in enumerate(self.slots):
            if slot.wanted and slot.state == SERVING and not slot.past and now >= slot.due:
                self._move(index, RENEW)
                return

    def _share_out(self) -> None:
        if not self.stopping:
            share_out(self.slots, self.serving, self._hands)


_ACTIONS: Final[dict[str, Callable[[Fleet, int, Slot], None]]] = {
    "boot": Fleet._boot,
    "promote": Fleet._promote,
    "retire": Fleet._retire,
    "abandon": Fleet._abandon,
    "forget": Fleet._forget,
    "reopen": Fleet._reopen,
    "restart": Fleet._restart,
    "back_off": Fleet._back_off,
    "keep": Fleet._keep,
}
