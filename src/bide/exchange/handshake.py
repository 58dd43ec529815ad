"""The opening handshake of a WebSocket (RFC 6455 section 4.2): what its request must have.

It knows no protocol and no interface: the server asks about a request, and an application that
opens a WebSocket where none was offered is told what is wrong with its environ.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha1
from typing import Any, Final

from bide.errors import LocalProtocolError, RemoteProtocolError
from bide.exchange.messages import Head, Request

VERSION: Final = "13"

_KEY: Final = re.compile("[A-Za-z0-9+/]{21}[AQgw]==")
"""16 bytes in base64."""
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN: Final = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_EXTENSION: Final = re.compile(
    rf'{_TOKEN}([ \t]*;[ \t]*{_TOKEN}([ \t]*=[ \t]*({_TOKEN}|"{_TOKEN}"))?)*'
)
_UPGRADE: Final = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION))
"""What an answer of 426 says (RFC 9110 section 15.5.22, RFC 6455 section 4.2.2)."""
_OTHER_VERSION: Final = f"the version of a WebSocket here is {VERSION}"


def tokens(value: str) -> list[str]:
    """Return the elements of a list that stands in a header, in lower case."""
    return [each.strip(" \t").lower() for each in value.split(",") if each.strip(" \t")]


def fields_of(request: Request) -> dict[str, str]:
    """Return a request's headers by their names in lower case; repeated ones are joined."""
    fields: dict[str, str] = {}
    for name, value in request.headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


def fields_of_environ(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that stand in an environ, as :func:`fields_of` does."""
    return {
        key[5:].replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith("HTTP_") and isinstance(value, str)
    }


def check(method: str, version: str, fields: Mapping[str, str]) -> None:
    """Check that a request opens a WebSocket; of HTTP/2 it has the form of HTTP/1, and no key.

    Args:
        method: as sent.
        version: of HTTP.
        fields: from :func:`fields_of`.

    Raises:
        RemoteProtocolError: it does not; with the status and the headers to answer.
    """
    if version == "2":
        _check_connect(fields)
        return
    if "websocket" not in tokens(fields.get("upgrade", "")):
        raise RemoteProtocolError(
            "this is a WebSocket: open it with Upgrade: websocket", 426, _UPGRADE
        )
    if method != "GET" or version != "1.1":
        raise RemoteProtocolError("a WebSocket is opened by GET, in HTTP/1.1")
    if "upgrade" not in tokens(fields.get("connection", "")):
        raise RemoteProtocolError("a WebSocket is opened with Connection: Upgrade")
    _check_body(fields)
    if fields.get("sec-websocket-version") != VERSION:
        raise RemoteProtocolError(_OTHER_VERSION, 426, _UPGRADE)
    if not _KEY.fullmatch(fields.get("sec-websocket-key", "")):
        raise RemoteProtocolError("Sec-WebSocket-Key is not 16 bytes in base64")
    _check_extensions(fields)


def _check_connect(fields: Mapping[str, str]) -> None:
    """Check the same of an extended CONNECT (RFC 8441 section 5), for which no 426 is meant."""
    if "websocket" not in tokens(fields.get("upgrade", "")):
        raise RemoteProtocolError("this is a WebSocket: open it with CONNECT (RFC 8441)")
    _check_body(fields)
    if fields.get("sec-websocket-version") != VERSION:
        raise RemoteProtocolError(_OTHER_VERSION, 400, _UPGRADE[1:])
    _check_extensions(fields)


def _check_body(fields: Mapping[str, str]) -> None:
    if "transfer-encoding" in fields or fields.get("content-length", "0").strip("0"):
        raise RemoteProtocolError("a request that opens a WebSocket has no body")


def _check_extensions(fields: Mapping[str, str]) -> None:
    for each in fields.get("sec-websocket-extensions", "").split(","):
        if each.strip(" \t") and not _EXTENSION.fullmatch(each.strip(" \t")):
            raise RemoteProtocolError("Sec-WebSocket-Extensions is malformed")


def answer_to(key: str) -> str:
    """Return ``Sec-WebSocket-Accept`` for a client's ``Sec-WebSocket-Key``."""
    return b64encode(sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()


def agreement(key: str, extensions: str, subprotocol: str | None) -> bytes:
    """Return the end of the answer's head: the fields that the server alone writes.

    Args:
        key: the client's ``Sec-WebSocket-Key``.
        extensions: those that are agreed, with their parameters; empty: none.
        subprotocol: the one that is chosen.
    """
    lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {answer_to(key)}"]
    if extensions:
        lines.append(f"Sec-WebSocket-Extensions: {extensions}")
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def subprotocols_of(fields: Mapping[str, str]) -> tuple[str, ...]:
    """Return the subprotocols that a client offers, those that it prefers first."""
    offered = fields.get("sec-websocket-protocol", "").split(",")
    return tuple(each.strip(" \t") for each in offered if each.strip(" \t"))


def switching(headers: Any, subprotocol: str | None, offered: tuple[str, ...]) -> Head:
    """Return the head of the answer that accepts a WebSocket, without what a protocol adds to it.

    Args:
        headers: pairs, which the application adds.
        subprotocol: the one that it has chosen.
        offered: what the client offers.

    Raises:
        LocalProtocolError: the client does not offer the subprotocol, or the headers may not be
            sent.
    """
    if subprotocol is not None and subprotocol not in offered:
        raise LocalProtocolError(f"the client does not offer the subprotocol {subprotocol!r}")
    head = Head("200 OK", headers)
    head.code, head.reason = 101, "Switching Protocols"
    for name, _ in head.headers:
        if name.lower().startswith(("sec-websocket-", "content-length")):
            raise LocalProtocolError(f"{name} cannot be sent with a WebSocket's handshake")
    return head
