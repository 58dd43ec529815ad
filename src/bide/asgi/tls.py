"""The extension ``tls``: what TLS says of a connection, for a scope (ASGI, TLS Extension)."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any, Final

from bide.exchange.distinguished import distinguished_name
from bide.exchange.peer import Secured

_VERSIONS: Final = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


@cache
def _suites() -> dict[str, int]:
    """Return the numbers of the cipher suites that OpenSSL knows, by its names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return {each["name"]: each["id"] & 0xFFFF for each in context.get_ciphers()}


def tls_extension(secured: Secured) -> dict[str, Any]:
    """Return what an application is told of a connection's TLS.

    ``server_cert`` is None: which certificate was shown is not known. A client's certificate that
    could not be verified has never begun a connection, so ``client_cert_error`` is None.
    """
    chain = secured.chain
    if secured.certificate and not chain:
        chain = (secured.certificate,)
    name = distinguished_name(secured.described.get("subject", ()))
    return {
        "server_cert": None,
        "client_cert_chain": tuple(ssl.DER_cert_to_PEM_cert(each) for each in chain),
        "client_cert_name": name if secured.certificate else None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(secured.protocol),
        "cipher_suite": _suites().get(secured.cipher),
    }
