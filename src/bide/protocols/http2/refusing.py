"""HTTP/2: requests that are refused before anything of them has begun; on the loop."""

from __future__ import annotations

from h2.errors import ErrorCodes

from bide.errors import RemoteProtocolError
from bide.protocols.http2.guard import AFTER_GOAWAY, TOO_MANY_STREAMS
from bide.protocols.http2.sending import Sending
from bide.protocols.http2.setup import STREAMS
from bide.waiting.locks import holds_lock


def refuse_stream(http2: Sending, number: int, late: bool) -> None:
    """Refuse a request that its client may send again (RFC 9113 section 8.7).

    Args:
        http2: the connection's protocol.
        number: the stream's.
        late: whether it came after the last stream that is served; else there are too many.

    Raises:
        AbuseError: the connection has had too many of them.
    """
    if late:
        error = RemoteProtocolError("its connection was about to end", 503)
        error.again = AFTER_GOAWAY
    else:
        error = RemoteProtocolError(f"its connection has {STREAMS} in progress", 503)
        error.again = TOO_MANY_STREAMS
    http2.owner.refused(error)
    http2.guard.count_reset()
    with http2.lock:
        http2.h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)


def refuse_request(
    http2: Sending, number: int, ended: bool, error: RemoteProtocolError, bodiless: bool
) -> None:
    """Answer a request that never becomes a stream.

    One that is malformed is a stream error, too (RFC 9113 section 8.1.1).

    Args:
        http2: the connection's protocol.
        number: the stream's.
        ended: whether all of the request has come.
        error: what is wrong with it.
        bodiless: whether the answer must have no body.
    """
    http2.owner.refused(error)
    text = f"{error}\n".encode()
    fields = [
        (b":status", b"%d" % error.status),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
    ]
    with http2.lock:
        malformed = error.status == 400
        fits = not bodiless and http2.h2.local_flow_control_window(number) >= len(text)
        http2.h2.head(number, fields if fits else fields[:1], not (fits or malformed))
        if fits:
            http2.h2.data(number, text, not malformed)
        if malformed:
            http2.h2.reset_stream(number, ErrorCodes.PROTOCOL_ERROR)
        elif not ended:
            http2.h2.reset_stream(number, ErrorCodes.NO_ERROR)


holds_lock(refuse_request, refuse_stream)
