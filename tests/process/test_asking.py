"""The supervisor asks its workers: it never waits, and names those that do not answer."""

import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bide.process.asking import MOST_OWED, SECONDS, Answering, Asking
from tests.failures import Failures, same
from tests.served import DEADLINE, Log, until

Heard = list[tuple[list[Any], list[int]]]


class Workers:
    """Two workers whose answers are given by hand, and who has asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ended: list[Any] = []
        self.asking = Asking(self.ended.append, lambda: self.now)
        self.ends = [self.asking.introduce(number) for number in (1, 2)]
        for each in self.ends:
            each.settimeout(DEADLINE)
        self.last: list[Any] = []

    def ask(self, *words: str) -> Heard:
        """Ask; return what will be heard."""
        heard: Heard = []
        self.asking.ask([*words], lambda told, mute, last: self.note(heard, told, mute, last))
        return heard

    def note(self, heard: Heard, told: list[Any], mute: list[int], last: list[Any]) -> None:
        """Keep what is heard."""
        heard.append((told, mute))
        self.last = last

    def answer(self, worker: int, question: int, told: str) -> None:
        """Answer as a worker."""
        self.ends[worker - 1].sendall(f"told {question} {told}\n".encode())
        self.asking.look()

    def late(self) -> None:
        """Have the time be over."""
        self.now += SECONDS
        self.asking.look()

    def die(self, worker: int) -> None:
        """End a worker."""
        self.ends[worker - 1].close()
        self.asking.look()


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Return them."""
    workers = Workers()
    yield workers
    workers.asking.close()
    for each in workers.ends:
        each.close()


def test_all_that_answer_in_time_are_told_in_their_order(workers: Workers) -> None:
    """Who asks the same meanwhile is told the same, and no worker is asked twice."""
    heard, too, other = workers.ask("status"), workers.ask("status"), workers.ask("stacks", "1-1")
    same(workers.ends[0].recv(100), b"tell 1 status\ntell 2 stacks 1-1\n")
    same(workers.asking.next_due, workers.now + SECONDS)
    workers.answer(2, 1, '{"worker": 2}')
    same(heard, [])
    workers.answer(1, 1, '{"worker": 1}')
    same(heard, [([{"worker": 1}, {"worker": 2}], [])])
    same(too, heard)
    for worker in (1, 2):
        workers.answer(worker, 2, "{}")
    same(other, [([{}, {}], [])])
    same(workers.asking.next_due, float("inf"))


def test_who_is_late_or_dies_is_named_mute(workers: Workers) -> None:
    """In each order; a late answer is not taken for one to the next question."""
    heard = workers.ask("status")
    workers.answer(1, 1, '{"n": 1}')
    workers.late()
    same(heard, [([{"n": 1}], [2])])
    same(workers.last, [])
    again = workers.ask("status")
    workers.answer(2, 1, '{"late": 1}')
    same(again, [])
    workers.answer(2, 2, '{"n": 2}')
    workers.answer(1, 2, '{"n": 1}')
    same(again, [([{"n": 1}, {"n": 2}], [])])
    dying = workers.ask("status")
    workers.die(1)
    same(dying, [])
    workers.answer(2, 3, '{"n": 3}')
    same((dying, workers.last), ([([{"n": 3}], [1])], []))
    last = workers.ask("status")
    workers.answer(2, 4, '{"n": 4}')
    same(last, [([{"n": 4}], [])])
    none = workers.ask("status")
    workers.die(2)
    same(none, [([], [2])])
    same(workers.ask("status"), [([], [])])
    same(workers.ended, [{"n": 1}, {"n": 4}])


def test_what_a_worker_has_told_that_dies_meanwhile_is_told_once(workers: Workers) -> None:
    """As what has ended, and not in the answer as well: both are added up."""
    heard = workers.ask("status")
    workers.answer(1, 1, '{"n": 1}')
    workers.die(1)
    same((workers.ended, heard), ([{"n": 1}], []))
    workers.answer(2, 1, '{"n": 2}')
    same((heard, workers.last), ([([{"n": 2}], [])], []))


def test_a_worker_that_dies_when_it_is_late_is_named_once(workers: Workers) -> None:
    """Its line is closed, and it is asked no more."""
    heard = workers.ask("status")
    workers.late()
    workers.die(1)
    same(heard, [([], [1, 2])])


def test_a_worker_that_owes_answers_is_not_asked_again_and_again(workers: Workers) -> None:
    """Nothing of it piles up; once it has caught up, it is asked."""
    for number in range(MOST_OWED):
        workers.ask("stacks", f"1-{number}")
    heard = workers.ask("status")
    same(heard, [([], [1, 2])])
    for number in range(1, MOST_OWED + 1):
        workers.answer(1, number, "{}")
    workers.late()
    again = workers.ask("status")
    workers.answer(1, MOST_OWED + 2, '{"n": 1}')
    same(again, [([{"n": 1}], [2])])


def test_an_answer_may_come_in_parts_and_nonsense_ends_the_line(workers: Workers, log: Log) -> None:
    """It is an error of the application's, and no other worker is the worse for it."""
    heard = workers.ask("status")
    for part in (b"to", b'ld 1 {"n"', b": 1}", b"\n"):
        workers.ends[0].sendall(part)
        workers.asking.look()
    workers.ends[1].sendall(b"told 1 {nonsense}\n")
    workers.asking.look()
    same(heard, [([{"n": 1}], [2])])
    log.take("worker 2 has sent a malformed answer for the control socket")
    watched = select.poll()
    workers.asking.register(watched)
    same(watched.poll(0), [])


def test_a_worker_answers_each_question_on_a_thread_of_its_own(workers: Workers, log: Log) -> None:
    """One that fails is answered, too; the thread ends with the supervisor's end."""

    def tell(words: list[str]) -> dict[str, Any]:
        if words == ["stacks"]:
            raise RuntimeError("this is wrong")
        return {"words": words, "text": "a b"}

    answering = [Answering(each, tell) for each in workers.ends]
    for each in answering:
        each.start()
    with Failures() as failures:
        for words, expected in {
            ("status",): ([{"words": ["status"], "text": "a b"}] * 2, []),
            ("stacks", "1-1"): ([{"words": ["stacks", "1-1"], "text": "a b"}] * 2, []),
            ("stacks",): ([], [1, 2]),
        }.items():
            with failures.of(words):
                heard = workers.ask(*words)

                def answered(heard: Heard = heard) -> bool:
                    workers.asking.look()
                    return bool(heard)

                until(answered)
                same(heard, [expected])
    for _ in range(2):
        log.take("internal error: 'stacks' cannot be told")
    for each in answering:
        each.finish()
        each.finish()  # no harm is done
    workers.asking.look()
    same(workers.ended, [{"words": ["status"], "text": "a b"}] * 2)
    until(lambda: all(each.fileno() == -1 for each in workers.ends))


def test_what_a_worker_has_told_last_counts_while_it_is_mute_and_when_it_has_ended(
    workers: Workers,
) -> None:
    """At its end it tells unasked; what it owes then is not told."""
    workers.ask("status")
    for worker in (1, 2):
        workers.answer(worker, 1, f'{{"n": {worker}}}')
    heard = workers.ask("status")
    workers.late()
    same((heard, workers.last), ([([], [1, 2])], [{"n": 1}, {"n": 2}]))
    workers.answer(2, 0, '{"n": 22}')
    workers.die(2)
    same(workers.ended, [{"n": 22}])
    again = workers.ask("status")
    workers.late()
    same((again, workers.last), ([([], [1])], [{"n": 1}]))


def test_who_cannot_be_asked_is_mute(workers: Workers) -> None:
    """Its socket is full, or has gone."""
    workers.ends[0].shutdown(socket.SHUT_RDWR)
    heard = workers.ask("status")
    workers.answer(2, 1, "{}")
    same(heard, [([{}], [1])])
