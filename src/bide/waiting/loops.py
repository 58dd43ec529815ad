"""Calls for an event loop from other threads, delivered together.

``call_soon_threadsafe`` wakes the loop for each call. That costs a system call, and a turn at the
interpreter's lock. A mailbox wakes the loop for the first of several calls only.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any


class Mailbox:
    """The calls for one loop. ``post`` may be called from any thread, the rest on the loop.

    A single token says whether the next call has to wake the loop. Posting appends the call and
    then takes the token; delivering gives the token back and then takes the calls. So a call is
    either taken by the delivery that is on its way, or wakes the loop itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._token = [True]
        self._holding = False
        # Not the context of whoever posts first: that would keep a request's context.
        self._context = contextvars.copy_context()

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` on the loop, soon, in the order of the posts.

        Raises RuntimeError when the loop is closed.
        """
        self._calls.append((function, args))
        token = self._token
        if not token:
            return
        try:
            token.pop()
        except IndexError:  # another thread has taken it meanwhile
            return
        try:
            self._loop.call_soon_threadsafe(self._deliver, context=self._context)
        except RuntimeError:
            self._token.append(True)  # so that the next post raises, too
            raise

    def hold(self) -> None:
        """Keep calls until ``release``, without waking the loop."""
        try:
            self._token.pop()
        except IndexError:  # held already, or a delivery is on its way
            return
        self._holding = True

    def release(self) -> None:
        """Deliver the calls that were kept since ``hold``."""
        if self._holding:
            self._holding = False
            self._deliver()

    def _deliver(self) -> None:
        self._token.append(True)
        calls = self._calls
        for _ in range(len(calls)):
            if not calls:  # a call has run the loop, which delivered the others
                return
            function, args = calls.popleft()
            try:
                function(*args)
            except Exception as error:  # noqa: BLE001 - as the loop does for a handle
                self._loop.call_exception_handler(
                    {"message": f"{function!r} failed", "exception": error}
                )


_mailboxes: dict[asyncio.AbstractEventLoop, Mailbox] = {}


def open_mailbox(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """Make ``on_loop`` use a mailbox for this loop, until ``close_mailbox``; on the loop."""
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        mailbox = _mailboxes[loop] = Mailbox(loop)
    return mailbox


def close_mailbox(loop: asyncio.AbstractEventLoop) -> None:
    """Make ``on_loop`` use the loop's own way again; calls already posted are delivered."""
    _mailboxes.pop(loop, None)


def on_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    """Call ``function`` on the loop's thread: at once on that thread, from others soon.

    Raises RuntimeError when the loop is closed.
    """
    if asyncio._get_running_loop() is loop:
        function(*args)
        return
    mailbox = _mailboxes.get(loop)
    if mailbox is not None:
        mailbox.post(function, *args)
    else:
        loop.call_soon_threadsafe(function, *args)


def behind(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    """Call ``function`` soon, after all calls that ``on_loop`` has until now; on the loop."""
    mailbox = _mailboxes.get(loop)
    if mailbox is not None:
        mailbox.post(function, *args)
    else:
        loop.call_soon(function, *args)
