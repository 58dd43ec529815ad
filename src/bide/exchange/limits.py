"""The limits of what a client may send, from the settings, as far as protocols need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from bide.settings import DEFAULTS, Settings
from bide.twins import HeadLimits


@dataclass(frozen=True, slots=True)
class Limits(HeadLimits):
    """The limits of what a client may send; in bytes unless noted."""

    request_line: int = DEFAULTS.limit_request_line
    head: int = DEFAULTS.limit_head
    fields: int = DEFAULTS.limit_fields
    """Headers of a request."""
    body: int = DEFAULTS.limit_body
    """0: any size."""
    chunks: int = DEFAULTS.limit_chunks
    """Chunks of a body; it may have one more for each CHUNK_DUE bytes."""
    framing: int = DEFAULTS.limit_framing
    """Bytes that a chunked body's sizes, extensions and trailers may take beyond their due."""
    window: int = DEFAULTS.limit_unread
    """Bytes of a body that wait for the application before the connection is read no further."""
    discard: int = DEFAULTS.limit_discard
    """Bytes of a body, left unread by the application, that are read to keep the connection."""
    unsent: int = DEFAULTS.limit_unsent
    """Bytes of a response that wait for the client before the application waits."""
    pipeline: int = DEFAULTS.limit_pipeline
    """Requests that wait on one connection before it is read no further."""
    message: int = DEFAULTS.websocket_max_size
    """Bytes of a WebSocket's message; each of its fragments counts 64 more."""
    deflate: bool = DEFAULTS.websocket_deflate == "on"
    """Whether messages of WebSockets may be compressed."""
    linger: float = DEFAULTS.linger_timeout
    """Seconds of silence for which a closing connection is read, so that the client gets the
    answer."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits of some settings."""
        return cls(
            request_line=settings.limit_request_line,
            head=settings.limit_head,
            fields=settings.limit_fields,
            body=settings.limit_body,
            chunks=settings.limit_chunks,
            framing=settings.limit_framing,
            window=settings.limit_unread,
            discard=settings.limit_discard,
            unsent=settings.limit_unsent,
            pipeline=settings.limit_pipeline,
            message=settings.websocket_max_size,
            deflate=settings.websocket_deflate == "on",
            linger=settings.linger_timeout,
        )
