"""What a conversation has for push: the base of :class:`bide.wsgi.conversation.Conversation`."""

from __future__ import annotations

import weakref
from typing import Any

from bide.compiling import mypyc_attr
from bide.executors.hub import Job
from bide.waiting.outcome import Signal


@mypyc_attr(allow_interpreted_subclasses=True)
class Pushing(Job):
    """A job whose application may push.

    Attributes:
        finished: set when the application takes ``finish``; fires when that is called.
        guard: refers to what lives as long as ``finish`` can be called.
    """

    __slots__ = ("finished", "guard")

    finished: Signal | None
    guard: weakref.ref[Any] | None
