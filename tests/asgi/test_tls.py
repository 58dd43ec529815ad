"""The extension ``tls`` of scopes: what TLS says of the connection."""

import ssl
from pathlib import Path
from typing import Any

from tests import tls
from tests.asgi.sites import Receive, Scope, Send, accept, answer
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.protocols.websocket.peers import ASKED
from tests.served import request

TLS_1_3 = 0x0304
SUITES = {0x1301, 0x1302, 0x1303}
"""Those of TLS 1.3 (RFC 8446 appendix B.4)."""


def test_a_scope_tells_what_tls_says(serve: Serve) -> None:
    """Of HTTP requests and WebSockets; with a client's certificate and without."""
    made = tls.certificates()
    own = made.issue("asgi-client", "client.example", common_name='Me, "Myself"')
    scopes: list[Any] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] != "lifespan"
        scopes.append(scope)
        if scope["type"] == "http":
            await answer(send, b"")
        else:
            await accept(receive, send)

    optional = {"client_ca": made.authority, "client_certificate": "optional"}
    served = serve(look, **made.settings, **optional)
    for context in (made.context(), made.context(own)):
        client = served.connect(context=context)
        client.send(request())
        assert client.response().status == 200
        client.send(request(headers=ASKED))
        assert client.head().status == 101
        client.close()
    served.until_idle()
    text = Path(own).with_suffix(".crt").read_text()
    certificate = text[: text.index("-----END")] + "-----END CERTIFICATE-----\n"
    with Failures() as failures:
        for (scheme, known), scope in zip(
            [("https", False), ("wss", False), ("https", True), ("wss", True)], scopes, strict=True
        ):
            with failures.of((scheme, known)):
                found = scope["extensions"]["tls"]
                same(scope["scheme"], scheme)
                same(found["tls_version"], TLS_1_3)
                assert found["cipher_suite"] in SUITES
                same(found["server_cert"], None)
                same(found["client_cert_error"], None)
                name = found["client_cert_name"]
                if known:
                    first = ssl.PEM_cert_to_DER_cert(found["client_cert_chain"][0])
                    same(first, ssl.PEM_cert_to_DER_cert(certificate))
                    assert name.startswith('CN=Me\\, \\"Myself\\",OU=')
                else:
                    same((found["client_cert_chain"], name), ((), None))
