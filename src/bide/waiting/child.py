"""What runs in a child process of :mod:`bide.waiting.processes`: one call after the other.

It is a new interpreter, and no fork: it has none of its parent's threads, locks and sockets. It
ends when its parent does, or is killed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import traceback
from _thread import start_new_thread
from typing import Final

from bide.forks import EndingChildren, share
from bide.systems import signals
from bide.waiting.payloads import BEGUN, ERROR, RESULT, Part, dump, load, receive, send

_PARENTS: Final = signals("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""Signals that the parent answers: Control-C, the end of a terminal and a service manager tell all
processes, and the server finishes its requests."""


def serve(descriptor: int) -> None:
    """Make calls until the parent ends; never return.

    Args:
        descriptor: of the socket that leads to it.
    """
    sock = open_socket(descriptor)
    start_new_thread(_end_with_parent, (descriptor,))
    while True:
        try:
            _, parts = receive(sock)
            send(sock, BEGUN)
            kind, answer = _called(parts)
            del parts  # the arguments' memory
            send(sock, kind, answer)
            del answer
        except (EOFError, OSError):
            os._exit(0)


def open_socket(descriptor: int) -> socket.socket:
    """Return the socket that leads to the parent, and leave to that what signals mean."""
    leave_signals()
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    share(sock, give_up)
    return sock


def leave_signals() -> None:
    """Do nothing at the signals that the parent answers."""
    for number in _PARENTS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(number, _unheard)


def _unheard(*_: object) -> None:
    """Handle a signal that the parent answers. Programs that are started are not deaf to it."""


def give_up(sock: socket.socket) -> None:
    """Close the socket in a process that a call has forked, and have signals end that."""
    sock.close()
    for number in _PARENTS:
        if signal.getsignal(number) is _unheard:
            own = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if own else signal.SIG_DFL)


def _end_with_parent(descriptor: int) -> None:
    """End when the other end of the socket is closed, also in the midst of a call."""
    watched = select.poll()
    watched.register(descriptor, 0)  # for its end, which is always told
    watched.poll()
    os._exit(0)


def _called(parts: list[bytearray]) -> tuple[int, list[Part]]:
    try:
        with EndingChildren():
            function, args, kwargs = load(parts)
            return RESULT, dump(function(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the call
        return ERROR, described(error)


def described(error: BaseException) -> list[Part]:
    """Return an error with its traceback as a note, for no traceback can be pickled."""
    note = "In another process:\n\n" + "".join(traceback.format_exception(error)).rstrip()
    try:
        error.add_note(note)
        parts = dump(error)
        load(parts)  # what takes other arguments than it keeps cannot be made again
    except Exception:  # noqa: BLE001 - the error itself is told
        told = RuntimeError(f"{type(error).__qualname__}, which cannot be pickled: {error}")
        told.add_note(note)
        return dump(told)
    return parts
