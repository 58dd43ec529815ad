"""Functions that tests have called in other processes, which import this module."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from bide.waiting import child, payloads


class Block:
    """Bytes that are pickled beside the pickle, as an array's are.

    Attributes:
        data: they.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Block, (pickle.PickleBuffer(self.data),)


class StubbornError(Exception):
    """An error that cannot be made again from what it keeps."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def process(*_: object, **__: object) -> int:
    """Return the number of the process, whatever it is given."""
    return os.getpid()


def double(block: Block) -> Block:
    """Return twice the bytes of a block."""
    return Block(bytes(block.data) * 2)


def add(one: int, two: int = 0) -> int:
    """Return the sum."""
    return one + two


def fail(kind: str) -> Any:
    """Raise, or return, what is hard to pass on."""
    if kind == "error":
        raise KeyError("missing")
    if kind == "stubborn":
        raise StubbornError(1, 2)
    if kind == "exit":
        raise SystemExit(3)
    return threading.Lock()


def die(number: int = signal.SIGKILL) -> None:
    """End this process."""
    os.kill(os.getpid(), number)


def leave(code: int) -> NoReturn:
    """End this process, without a signal."""
    os._exit(code)


def die_in_the_answer() -> Block:
    """End this process when the half of its answer has been sent."""
    vars(child)["send"] = send_half
    return Block(bytes(1000))


def send_half(sock: Any, kind: int, parts: Any = ()) -> None:
    """End this process when the half of a message has been sent."""
    whole: list[bytes] = []

    class Kept:
        def sendmsg(self, parts: Any) -> int:
            whole.extend(bytes(each) for each in parts)
            return sum(map(len, parts))

    kept: Any = Kept()
    payloads.send(kept, kind, parts)
    data = b"".join(whole)
    sock.sendall(data[: len(data) // 2])
    die()


def die_at_the_next_call() -> int:
    """End this process when it has received its next call, and before it begins it."""

    def receive(sock: Any) -> Any:
        payloads.receive(sock)
        die()

    vars(child)["receive"] = receive
    return os.getpid()


def come_back_forked() -> int:
    """Fork, and return in both, first in the forked process; return what that has ended with."""
    forked = os.fork()
    return os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) if forked else -1


def die_with_a_fork(path: str) -> None:
    """End this process, and leave a forked one until a file is there."""
    if os.fork():
        die()
    until(path, 0)
    os._exit(0)


def end_others() -> list[int]:
    """End by SIGTERM a forked process and a program; return what they have ended with."""
    sleeping = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    sleeping.start()
    sleeping.terminate()
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    program.terminate()
    sleeping.join()
    return [int(sleeping.exitcode or 0), program.wait()]


def block(path: str) -> None:
    """Write the number of the process to a file, and compute without end."""
    told = Path(path).with_suffix(".new")
    told.write_text(str(os.getpid()), encoding="ascii")
    told.rename(path)
    while True:
        time.sleep(0.001)


def until(path: str, value: int) -> int:
    """Return a value once a file is there."""
    while not Path(path).exists():
        time.sleep(0.005)
    return value
