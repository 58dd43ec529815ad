"""A request's head on its way to a child: plain values, since its own objects may be compiled."""

from __future__ import annotations

import pickle
from typing import Any

from bide.exchange.identity import Identity
from bide.exchange.messages import Request
from bide.exchange.peer import Peer, Secured
from bide.exchange.stream import Stream

_SECURED = ("name", "alpn", "resumed", "certificate", "described", "chain")


def request_payload(stream: Stream) -> bytes:
    """Return all that a child needs to know of a request."""
    request, peer, identity = stream.request, stream.peer, stream.identity
    tls = peer.tls
    return pickle.dumps(
        (
            (
                request.method,
                request.target,
                request.raw_path,
                request.query,
                request.version,
                [*request.headers],
            ),
            (request.root, request.path, request.has_body, request.persistent),
            (peer.scheme, peer.server, peer.client),
            {
                "trusted": peer.trusted,
                "proxy": peer.proxy,
                "strips": peer.strips,
                "believed": peer.believed,
            },
            None
            if tls is None
            else (
                (tls.protocol, tls.cipher, tls.bits),
                {name: getattr(tls, name) for name in _SECURED},
            ),
            None if identity is None else (identity.header, identity.id, identity.trace),
            stream.body.window > 0,
            stream.expects_continue,
        )
    )


class Told:
    """What a child knows of a request.

    Attributes:
        request, peer, identity: as a stream has.
        has_body: whether a body comes.
        expects_continue: whether the client sends it only when it is told to.
    """

    def __init__(self, payload: bytes) -> None:
        head, more, ends, kept, tls, identity, self.has_body, self.expects_continue = pickle.loads(
            payload
        )
        self.request = Request(*head)
        self.request.root, self.request.path, self.request.has_body, self.request.persistent = more
        self.peer = Peer(*ends, **kept)
        if tls is not None:
            self.peer.tls = Secured(*tls[0], **tls[1])
        self.identity: Any = None if identity is None else Identity(*identity)
