"""What a client may ask of the server, as the settings say: their part that protocols know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from bide.settings import DEFAULTS, Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the server; in bytes where nothing else is said."""

    request_line: int = DEFAULTS.limit_request_line
    head: int = DEFAULTS.limit_head
    fields: int = DEFAULTS.limit_fields
    """Headers of a request."""
    body: int = DEFAULTS.limit_body
    """0: any size."""
    chunks: int = DEFAULTS.limit_chunks
    """Chunks of a body; it may have one more for each CHUNK_DUE bytes."""
    framing: int = DEFAULTS.limit_framing
    """What a chunked body's sizes, extensions and trailers may take beyond their due."""
    window: int = DEFAULTS.limit_unread
    """What waits of a body for the application before the connection is read no further."""
    discard: int = DEFAULTS.limit_discard
    """What is read to keep the connection, of a body that the application left unread."""
    unsent: int = DEFAULTS.limit_unsent
    """What waits of a response for the client before the application does."""
    pipeline: int = DEFAULTS.limit_pipeline
    """Requests that wait on one connection before it is read no further."""
    linger: float = DEFAULTS.linger_timeout
    """Seconds of silence for which a closing connection is read, so that the client gets the
    answer."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits that some settings say."""
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
            linger=settings.linger_timeout,
        )
