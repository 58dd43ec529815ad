"""What is done to all connections of a server, so that what fails on one ends that one alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable
from typing import Final

from bide.serving.arrival import Arrival
from bide.serving.connection import Connection
from bide.serving.deadlines import Look
from bide.waiting.each import to_each

AT_ONCE: Final = 500
"""Connections that are checked at once; with nothing to be done for them, in 1.5 ms."""


def retire_all(connections: Iterable[Connection | Arrival]) -> None:
    """Make the next response of each its last."""
    _each(connections, lambda each: each.retire())


def drain_all(connections: Iterable[Connection | Arrival]) -> None:
    """Close each when it is idle, or as soon as it is."""
    _each(connections, lambda each: each.drain())


def abort_all(connections: Iterable[Connection | Arrival]) -> None:
    """Reset each."""
    _each(connections, lambda each: each.abort())


def mind_connections(
    loop: asyncio.AbstractEventLoop,
    connections: list[Connection | Arrival],
    present: Container[Connection | Arrival],
    look: Look,
    flush: Callable[[], object],
) -> None:
    """Check the time of the first connections now, and of the others in the loop's next turns.

    All at once, ten thousand would hold the loop up for 30 ms.

    Args:
        loop: the server's; this is called on it.
        connections: in the order in which they are checked.
        present: those that have not ended meanwhile.
        look: this check.
        flush: called behind each part, to begin what was submitted in it.
    """
    rest = connections[AT_ONCE:]
    if rest:  # first, so that these are checked whatever fails
        loop.call_soon(mind_connections, loop, rest, present, look, flush)

    def mind(connection: Connection | Arrival) -> None:
        if connection in present:
            connection.mind_time(look)

    try:
        _each(connections[:AT_ONCE], mind)
    finally:
        flush()


def _each(
    connections: Iterable[Connection | Arrival], do: Callable[[Connection | Arrival], object]
) -> None:
    """Do something to each, as they are now. One on which it fails is reset, and the log says so.

    Args:
        connections: in this order. Each may end meanwhile, and others with it.
        do: what is done.
    """

    def do_or_reset(connection: Connection | Arrival) -> None:
        try:
            do(connection)
        except Exception:  # of ours, or of a log handler
            connection.abort()
            raise

    to_each(connections, do_or_reset, "internal error on a connection: it is closed")
