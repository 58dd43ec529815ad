"""What TLS says of a connection as keys of the environ, by the names of Apache's mod_ssl."""

from __future__ import annotations

import ssl

from bide.exchange.distinguished import distinguished_name
from bide.exchange.peer import Secured


def tls_environ(secured: Secured) -> dict[str, str]:
    """Return the keys of a connection; made once for all its requests.

    ``SSL_CLIENT_VERIFY`` is ``SUCCESS`` where the client has shown a certificate, else ``NONE``: a
    connection on which it could not be verified has never begun.
    """
    found = {
        "HTTPS": "on",
        "SSL_PROTOCOL": secured.protocol,
        "SSL_CIPHER": secured.cipher,
        "SSL_CIPHER_USEKEYSIZE": str(secured.bits),
        "SSL_SESSION_RESUMED": "Resumed" if secured.resumed else "Initial",
        "SSL_CLIENT_VERIFY": "SUCCESS" if secured.certificate else "NONE",
    }
    if secured.name:
        found["SSL_TLS_SNI"] = secured.name
    if secured.certificate:
        said = secured.described
        found["SSL_CLIENT_S_DN"] = distinguished_name(said.get("subject", ()))
        found["SSL_CLIENT_I_DN"] = distinguished_name(said.get("issuer", ()))
        found["SSL_CLIENT_M_SERIAL"] = said.get("serialNumber", "")
        found["SSL_CLIENT_V_START"] = said.get("notBefore", "")
        found["SSL_CLIENT_V_END"] = said.get("notAfter", "")
        found["SSL_CLIENT_CERT"] = ssl.DER_cert_to_PEM_cert(secured.certificate)
        for number, each in enumerate(secured.chain[1:]):
            found[f"SSL_CLIENT_CERT_CHAIN_{number}"] = ssl.DER_cert_to_PEM_cert(each)
    return found
