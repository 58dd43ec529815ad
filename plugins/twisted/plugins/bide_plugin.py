"""``twist bide``: what Twisted looks for; the service itself is in ``bide.hosts.twist``."""

from twisted.application.service import ServiceMaker

bide_service = ServiceMaker(  # type: ignore[no-untyped-call]
    "Bide",
    "bide.hosts.twist",
    "Serve a WSGI application that may wait.",
    "bide",
)
