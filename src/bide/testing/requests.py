"""The requests of a test client: from what a test says to what a server would have read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from email.message import Message
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import Request as UrlRequest

from bide.exchange.messages import Request
from bide.testing.http2 import http2_request


class Asking:
    """One request that a test makes, before it is made.

    Args:
        method: GET, POST, …
        url: whole, escaped.
        fields: the headers that the test has said.
        cookies: which the request takes, and its answer adds to.
        http2: whether the client speaks HTTP/2.

    Attributes:
        parts: of the URL.
    """

    def __init__(
        self,
        method: str,
        url: str,
        fields: list[tuple[str, str]],
        cookies: CookieJar,
        http2: bool = False,
    ) -> None:
        self.parts = urlsplit(url)
        self._method = method
        self._cookies = cookies
        self._make = http2_request if http2 else _request
        # For the cookies, which know the standard library's only.
        self._asking = UrlRequest(url, method=method)
        self._fields = fields
        self._named = {name.lower() for name, _ in fields}
        if "host" not in self._named:
            fields.insert(0, ("Host", self.parts.netloc))

    def describe(self, content: bytes | Iterable[bytes] | None, kind: str) -> None:
        """Add the headers of a body: its bytes or pieces, and its type, where that follows."""
        if kind and "content-type" not in self._named:
            self._fields.append(("Content-Type", kind))
        if isinstance(content, bytes):
            self._fields.append(("Content-Length", str(len(content))))
        elif content is not None and "content-length" not in self._named:
            self._fields.append(("Transfer-Encoding", "chunked"))

    def request(self, has_body: bool) -> Request:
        """Return the request, with the cookies.

        Raises:
            ValueError: a client of HTTP/2 cannot send it.
        """
        self._cookies.add_cookie_header(self._asking)
        cookie = self._asking.get_header("Cookie")
        if cookie and "cookie" not in self._named:
            self._fields.append(("Cookie", cookie))
        return self._make(self._method, self.parts, self._fields, has_body)

    @property
    def arrived(self) -> Callable[[Message], None]:
        """What takes the cookies of an answer's headers."""

        def arrived(headers: Message) -> None:
            answer: Any = _Answer(headers)
            self._cookies.extract_cookies(answer, self._asking)

        return arrived


class _Answer:
    """What a cookie jar reads of a response."""

    def __init__(self, headers: Message) -> None:
        self._headers = headers

    def info(self) -> Message:
        return self._headers


def _request(
    method: str, parts: SplitResult, fields: list[tuple[str, str]], has_body: bool
) -> Request:
    path = (parts.path or "/").encode("ascii")
    query = parts.query.encode("ascii")
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    target = path + b"?" + query if query else path
    request = Request(method, target, path, query, "1.1", headers)
    request.has_body = has_body
    return request
