"""``twist bide``: what Twisted looks for; the service is in ``bide.hosts.twisted.command``."""

from twisted.application.service import ServiceMaker

bide_service = ServiceMaker(  # type: ignore[no-untyped-call]
    "Bide",
    "bide.hosts.twisted.command",
    "Serve a WSGI application that may wait.",
    "bide",
)
