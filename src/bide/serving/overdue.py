"""Requests that take too long, and how often a server looks for them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from time import monotonic

from bide.errors import RequestTimeout
from bide.executors.hub import Hub
from bide.executors.monitor import stack_of
from bide.serving.connection import Connection
from bide.settings import Settings
from bide.wsgi.conversation import Conversation

log = logging.getLogger("bide")

TICK = 1.0
"""Seconds between two looks at the time, where no shorter time-out asks for more."""


def end_overdue(
    conversations: Iterable[Conversation],
    before: float,
    hubs: list[Hub],
    held: Mapping[Conversation, Connection],
) -> None:
    """End the waits of requests that came before then, and name those whose code runs; once each.

    On the loop.

    Args:
        conversations: those in progress.
        before: monotonic seconds.
        hubs: where they run.
        held: those whose bodies are still to come, each with its connection.
    """
    for conversation in conversations:
        if conversation.started > before or conversation.expired:
            continue
        conversation.expired = True
        stack = stack_of(conversation, hubs)
        taken = monotonic() - conversation.started
        conversation.cancel(RequestTimeout(f"it has taken {taken:.1f} s"), firm=True)
        if conversation in held:  # what it would read raises this
            held[conversation].submit_held(conversation.stream)
        described = conversation.describe()
        if stack:
            log.warning("%s has taken %.1f s, and its code goes on:\n%s", described, taken, stack)
        else:
            log.warning("%s has taken %.1f s: its wait is ended", described, taken)


def interval(settings: Settings) -> float:
    """Choose how often to look at the time, in seconds: often enough for the shortest time-out."""
    timeouts = (
        settings.head_timeout,
        settings.idle_timeout,
        settings.queue_timeout,
        settings.request_timeout,
        settings.response_timeout,
    )
    shortest = min((each for each in timeouts if each), default=TICK)
    return max(0.05, min(TICK, shortest / 4))
