"""How a supervisor asks its workers what they do: over a pair of sockets of its own with each.

It asks by a line, ``tell NUMBER WORDS``; a worker answers by a line, ``told NUMBER JSON``. The
supervisor never waits: it polls, and who has not answered in time is named in its own answer. A
worker answers on a thread that does nothing else, so it is not mute where its event loop, or all
its lanes, are blocked.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
from _thread import start_new_thread
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final

from bide.forks import share

log = logging.getLogger("bide")

SECONDS: Final = 1.0
"""How long a worker may take to answer."""
MOST_OWED: Final = 8
"""Answers that a worker may owe; it is not asked again before."""

Told = dict[str, Any]
Heard = Callable[[list[Told], list[int], list[Told]], None]
"""Called with the answers, in the order of the workers; with the numbers of the mute; and with what
those of them that live have answered last to ``status``."""
LAST: Final = 0
"""The number of what a worker tells at its end, unasked."""


class Line:
    """The supervisor's end of the pair that it shares with one worker.

    Attributes:
        socket: the end.
        number: the worker's number.
        open: whether the worker has not ended.
        owed: how many answers have not come.
        last: what it has answered last to ``status``.
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.number = number
        self.open = True
        self.owed = 0
        self.last: Told = {}
        self._parts: list[bytes] = []

    def ask(self, number: int, words: list[str]) -> bool:
        """Ask; return whether that was possible, and an answer may come."""
        if self.owed >= MOST_OWED:
            return False
        try:
            self.socket.send(f"tell {number} {' '.join(words)}\n".encode())
        except OSError:  # it does not read, or has gone
            return False
        self.owed += 1
        return True

    def hear(self) -> tuple[list[tuple[int, Told]], bool]:
        """Return the answers that have come, each with its number, and whether more may come."""
        found: list[tuple[int, Told]] = []
        while True:
            try:
                data = self.socket.recv(1 << 18)
            except BlockingIOError:
                return found, True
            except OSError:
                data = b""
            if not data:
                return found, False
            *ends, rest = data.split(b"\n")
            for end in ends:
                line = b"".join((*self._parts, end))
                self._parts.clear()
                _, number, told = line.split(b" ", 2)
                self.owed -= int(number) != LAST
                found.append((int(number), json.loads(told)))
            if rest:
                self._parts.append(rest)


class Question:
    """What all workers are asked, until all have answered or it is too late.

    Attributes:
        words: what they are asked.
        deadline: until when, in monotonic seconds.
        left: those that have not answered.
        told: the answers.
        mute: those that will not answer.
        heard: who is told.
    """

    def __init__(self, words: list[str], deadline: float, heard: Heard) -> None:
        self.words = words
        self.deadline = deadline
        self.left: set[Line] = set()
        self.told: list[tuple[Line, Told]] = []
        self.mute: list[Line] = []
        self.heard = [heard]

    def end(self) -> None:
        """Tell who has asked."""
        self.mute = sorted([*self.mute, *self.left], key=lambda each: each.number)
        numbers = sorted({each.number for each in self.mute})
        last = [each.last for each in self.mute if each.open and each.last]
        told = [each for _, each in sorted(self.told, key=lambda each: each[0].number)]
        for heard in self.heard:
            heard(told, numbers, last)


class Asking:
    """All workers, for the supervisor; on its thread.

    Args:
        ended: called with the last answer to ``status`` of each worker that has ended.
        clock: returns monotonic seconds.
    """

    def __init__(
        self, ended: Callable[[Told], None], clock: Callable[[], float] = monotonic
    ) -> None:
        self._ended = ended
        self._clock = clock
        self._lines: list[Line] = []
        self._questions: dict[int, Question] = {}
        self._last = 0

    def introduce(self, number: int) -> socket.socket:
        """Have one worker more; return its end of the pair, which is to be sent to it.

        Raises:
            OSError: there are no descriptors left.
        """
        ours, theirs = socket.socketpair()
        self._lines.append(Line(ours, number))
        return theirs

    def ask(self, words: list[str], heard: Heard) -> None:
        """Ask all workers.

        Who asks the same meanwhile gets the same answers.

        Args:
            words: what.
            heard: called once, here or by :meth:`look`.
        """
        for question in self._questions.values():
            if question.words == words:
                question.heard.append(heard)
                return
        self._last += 1
        question = Question(words, self._clock() + SECONDS, heard)
        for line in self._lines:
            if line.ask(self._last, words):
                question.left.add(line)
            else:
                question.mute.append(line)
        self._questions[self._last] = question
        self._end_questions()

    def register(self, watched: select.poll) -> None:
        """Register what is to be polled before the next :meth:`look`."""
        for each in self._lines:
            watched.register(each.socket, select.POLLIN)

    @property
    def next_due(self) -> float:
        """When :meth:`look` has something to do without being told, in monotonic seconds."""
        return min((each.deadline for each in self._questions.values()), default=inf)

    def look(self) -> None:
        """Hear what workers have answered, and tell who has asked."""
        for line in list(self._lines):
            self._hear(line)
        self._end_questions()

    def _hear(self, line: Line) -> None:
        try:
            found, more = line.hear()
        except ValueError:  # only if code of the application has written there
            log.error("worker %d has sent a malformed answer for the control socket", line.number)
            found, more = [], False
        for number, told in found:
            if number == LAST and "error" not in told:
                line.last = told
            question = self._questions.get(number)  # None: it is too late
            if question is None:
                continue
            question.left.discard(line)
            if "error" in told:
                question.mute.append(line)
                continue
            if question.words == ["status"]:
                line.last = told
            question.told.append((line, told))
        if not more:
            self._lines.remove(line)
            line.open = False
            line.socket.close()
            self._ended(line.last)
            for question in self._questions.values():
                # What it has counted is in that of those that have ended, and may not be in both.
                question.told = [each for each in question.told if each[0] is not line]
                if line in question.left:
                    question.left.remove(line)
                    question.mute.append(line)

    def _end_questions(self) -> None:
        now = self._clock()
        for number, question in list(self._questions.items()):
            if not question.left or now >= question.deadline:
                del self._questions[number]
                question.end()

    def close(self) -> None:
        """Close all of it, at the end or in a child; nobody is told."""
        for each in self._lines:
            each.socket.close()
        self._lines.clear()
        self._questions.clear()


class Answering:
    """A worker's thread that answers its supervisor.

    Args:
        sock: its end of the pair.
        tell: called on the thread with words; returns the answer.
    """

    def __init__(self, sock: socket.socket, tell: Callable[[list[str]], Told]) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._tell = tell
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to answer, until the supervisor ends."""
        share(self, Answering.after_fork)
        start_new_thread(self._run, ())

    def finish(self) -> None:
        """Tell the supervisor, at the worker's end, what that has counted; wait for a moment."""
        try:
            self._socket.shutdown(socket.SHUT_RD)  # the thread reads the end, and tells
        except OSError:  # it has ended already
            return
        self._ended.wait(SECONDS)

    def after_fork(self) -> None:
        """Called in a child that the application has forked: close what is the worker's."""
        self._socket.close()

    def _run(self) -> None:
        try:
            with self._socket, self._socket.makefile("rb") as lines:
                for line in lines:
                    _, number, *words = line.decode().split()
                    self._answer(int(number), words)
                self._answer(LAST, ["status"])
        except OSError:  # the supervisor has ended
            return
        finally:
            self._ended.set()

    def _answer(self, number: int, words: list[str]) -> None:
        told = json.dumps(self._told(words), separators=(",", ":"))
        self._socket.sendall(f"told {number} {told}\n".encode())

    def _told(self, words: list[str]) -> Told:
        try:
            return self._tell(words)
        except Exception as error:
            log.exception("internal error: %r cannot be told to the supervisor", " ".join(words))
            return {"error": f"internal error: {type(error).__name__}"}
