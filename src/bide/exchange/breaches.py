"""What an application does that no response can come of; a module that is not compiled."""

from __future__ import annotations

from bide.errors import LocalProtocolError


class NotStartedError(LocalProtocolError):
    """A block, or the end, of a response that has no head."""


class SwitchedError(LocalProtocolError):
    """An application went on with a response although it has accepted a WebSocket."""
