"""Who may look at the status page.

With a token: who has it. Without one the page is on a Unix socket, which only its owner may open,
or on the loopback. There a page of another site must not read it: by a name of its own that leads
to the loopback, it could.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs

_BEARER: Final = "bearer "
_NEVER: Final = "HttpOnly; SameSite=Strict; Path=/"


class Access:
    """Tells who may look.

    Args:
        token: who has it may; empty: who can connect may.
        by_name: whether clients connect to an address, which a name may lead to; not to a socket.
    """

    def __init__(self, token: str, by_name: bool) -> None:
        self._token = _digest(token) if token else b""
        self._by_name = by_name
        # The cookie is not the token: who reads it out of a browser cannot make another of it. Its
        # name differs from that of another page at the same host.
        self._cookie = hmac.new(token.encode(), b"bide status page", hashlib.sha256).hexdigest()
        self._name = f"bide-status-{self._cookie[:8]}"

    def allowed(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request may be answered."""
        if not self._token:
            return not self._by_name or _is_loopback(str(environ.get("HTTP_HOST", "")))
        given = str(environ.get("HTTP_AUTHORIZATION", ""))
        if given.lower().startswith(_BEARER):
            return self._is_token(given[len(_BEARER) :].strip())
        try:
            cookie = SimpleCookie(str(environ.get("HTTP_COOKIE", ""))).get(self._name)
        except CookieError:
            return False
        return cookie is not None and _same(_digest(cookie.value), _digest(self._cookie))

    def cookie(self, query: str) -> str:
        """Return the cookie for who has the token in a URL's query; empty: it is not there."""
        given = parse_qs(query).get("token", [""])[0]
        return f"{self._name}={self._cookie}; {_NEVER}" if self._is_token(given) else ""

    @property
    def wanted(self) -> bool:
        """Whether there is a token."""
        return bool(self._token)

    def _is_token(self, given: str) -> bool:
        return bool(self._token) and _same(_digest(given), self._token)


def _digest(text: str) -> bytes:
    """Return what is compared: as long as any other, whatever the text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


_same = hmac.compare_digest  # in constant time


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine's loopback: by its address, or as localhost."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]").lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
