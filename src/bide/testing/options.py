"""What the methods of a test client take by name, for all of its kinds, in one place.

The names are those of httpx and Werkzeug. What is wrong with a value is said with the name of the
method that the test has called.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypedDict
from urllib.parse import urlencode

from bide.errors import BideError

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Pairs = Mapping[str, Any] | Sequence[tuple[str, Any]]

FORM: Final = "application/x-www-form-urlencoded"
BODIES: Final = ("data", "json", "form", "body")
INSTEAD: Final = {
    "allow_redirects": "follow_redirects",
    "auth": "headers, with Authorization",
    "content": "data",
    "content_type": "headers, with Content-Type",
    "cookies": "the client's attribute cookies",
    "environ_base": "environ",
    "environ_overrides": "environ",
    "query_string": "params",
}
"""Names of other test clients, and what does the same here."""


class RedirectError(BideError):
    """A redirection was not followed: one too many, or one whose body cannot be sent again."""


class SocketOptions(TypedDict, total=False):
    """What opening a WebSocket takes by name; as in :class:`Options`."""

    params: Pairs | str | None
    headers: Headers | None
    environ: Mapping[str, Any] | None
    timeout: float | None
    raise_errors: bool | None
    query: Pairs | str | None


class Options(SocketOptions, total=False):
    """What a request takes by name, all of it optional.

    - ``params``: the query, added to the path's: a mapping, pairs, or text that is escaped already.
    - ``headers``: a mapping or pairs, added to the client's.
    - ``data``: the body. A mapping, or a list of pairs, is sent as an HTML form; bytes, text, and
      an iterable of bytes are sent as they are. An iterable is iterated over in a thread of its
      own, as the application makes room; if it is endless, the test must end it.
    - ``json``: an object, sent as JSON.
    - ``follow_redirects``: whether redirections are followed.
    - ``environ``: added to the client's; not for ASGI.
    - ``timeout``: seconds; replaces the client's.
    - ``raise_errors``: replaces the client's.
    - ``query``: the same as ``params``. ``form`` and ``body``: the same as ``data``, for a form and
      for a body that is sent as it is.
    """

    data: Pairs | bytes | str | Iterable[bytes] | None
    json: Any
    follow_redirects: bool | None
    form: Pairs | None
    body: bytes | str | Iterable[bytes] | None


class ClientOptions(TypedDict, total=False):
    """What a client takes by name; see :class:`bide.testing.Client`."""

    executor: str
    threads: int
    queue: int
    queue_timeout: float
    base_url: str
    headers: Headers
    environ: Mapping[str, Any] | None
    timeout: float
    raise_errors: bool
    follow_redirects: bool
    http2: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """The options of one request, checked.

    Attributes:
        query: escaped; empty without one.
        headers: those that were passed, as pairs.
        content: the body: bytes, or an iterable of them; None without one.
        kind: the content type that follows from how the body was passed; empty without one.
        environ: what is added to the client's.
        timeout: seconds; None: the client's.
        raise_errors: None: the client's.
        follow_redirects: None: the method's default.
    """

    query: str
    headers: list[tuple[str, str]]
    content: bytes | Iterable[bytes] | None
    kind: str
    environ: Mapping[str, Any]
    timeout: float | None
    raise_errors: bool | None
    follow_redirects: bool | None

    def redirected(self, code: int, method: str, url: str) -> tuple[str, Chosen]:
        """Return the method and the options of the request that follows a redirection.

        Raises:
            RedirectError: the body cannot be sent again.
        """
        if code in (307, 308):
            if not isinstance(self.content, bytes | None):
                raise RedirectError(f"the body is an iterable, and cannot be sent to {url} too")
            return method, self
        if method == "HEAD":
            return method, self
        # RFC 9110, section 15.4: as all browsers do, without what describes the body.
        headers = [each for each in self.headers if not each[0].lower().startswith("content-")]
        return "GET", replace(self, headers=headers, content=None, kind="")


def chosen(called: str, options: Mapping[str, Any], kind: type = Options) -> Chosen:
    """Check the options of one request.

    Args:
        called: the method that the test has called, such as "get".
        options: what was passed by name.
        kind: the TypedDict of what may be.

    Raises:
        TypeError: there is no such option, or it has a value of a wrong type.
        ValueError: two of them say the same, or a header cannot be sent.
    """
    check_names(called, options, kind)
    content, content_type = _content(called, options)
    timeout = options.get("timeout")
    if not isinstance(timeout, int | float | None):
        raise TypeError(f"{called}() takes timeout in seconds, not {timeout!r}")
    return Chosen(
        query=query_of(called, options),
        headers=pairs_of(called, options.get("headers")),
        content=content,
        kind=content_type,
        environ=options.get("environ") or {},
        timeout=timeout,
        raise_errors=options.get("raise_errors"),
        follow_redirects=options.get("follow_redirects"),
    )


def check_names(called: str, options: Mapping[str, Any], kind: type) -> None:
    """Check that options have names of a TypedDict; raises TypeError, which names ``called``."""
    for name in options:
        if name not in kind.__annotations__:
            instead = f"; use {INSTEAD[name]}" if name in INSTEAD else ""
            raise TypeError(f"{called}() got an unexpected keyword argument {name!r}{instead}")


def _one_of(called: str, options: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return which of these options was passed; empty for none.

    Raises:
        ValueError: there are two.
    """
    passed = [name for name in names if options.get(name) is not None]
    if len(passed) > 1:
        one = f"{', '.join(names[:-1])} and {names[-1]}"
        raise ValueError(f"{called}() takes one of {one}, not {' and '.join(passed)}")
    return passed[0] if passed else ""


def query_of(called: str, options: Mapping[str, Any]) -> str:
    """Return the query of ``params`` or ``query``, escaped; raises as :func:`chosen`."""
    name = _one_of(called, options, ("params", "query"))
    value = options[name] if name else ""
    return value if isinstance(value, str) else _encoded(called, name, value)


def _encoded(called: str, name: str, pairs: Any) -> str:
    try:
        items = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
        values = [(key, value) for key, value in items]
    except (TypeError, ValueError):
        raise TypeError(f"{called}() takes {name} as a mapping or pairs, not {pairs!r}") from None
    for key, value in values:
        many = value if isinstance(value, list | tuple) else [value]
        if any(hasattr(each, "read") for each in many):
            raise TypeError(f"{called}() cannot send the file in {name}[{key!r}]: encode the body")
    return urlencode(values, doseq=True)


def _content(called: str, options: Mapping[str, Any]) -> tuple[bytes | Iterable[bytes] | None, str]:
    """Return a body's bytes or pieces, and its content type, where that follows."""
    name = _one_of(called, options, BODIES)
    if not name:
        return None, ""
    value = options[name]
    if name == "json":
        return json_module.dumps(value).encode(), "application/json"
    if name == "form" or (name == "data" and _is_form(value)):
        return _encoded(called, name, value).encode(), FORM
    if isinstance(value, str):
        return value.encode(), ""
    if isinstance(value, bytes):
        return value, ""
    if isinstance(value, bytearray | memoryview):
        return bytes(value), ""
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        mapping = ", a mapping" if name == "data" else ""
        kinds = f"bytes, text{mapping} or an iterable of bytes"
        raise TypeError(f"{called}() takes {name} as {kinds}, not {type(value).__name__}")
    return value, ""


def _is_form(value: Any) -> bool:
    """Whether ``data`` is what a form has: a mapping, or a list of pairs."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, tuple) for each in value)
    return isinstance(value, Mapping)


def pairs_of(called: str, headers: Headers | None) -> list[tuple[str, str]]:
    """Return headers as pairs.

    Raises:
        TypeError: they are neither a mapping nor pairs, or not of text.
        ValueError: one cannot be sent.
    """
    if headers is None:
        return []
    items: Any = headers.items() if isinstance(headers, Mapping) else headers
    try:
        pairs = [(name, value) for name, value in items]
    except (TypeError, ValueError):
        raise TypeError(
            f"{called}() takes headers as a mapping or pairs, not {headers!r}"
        ) from None
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"{called}() takes headers of text, not {name!r}: {value!r}")
        if any(each in name + value for each in "\r\n\0"):
            raise ValueError(f"{called}(): the header {name!r}: {value!r} cannot be sent")
    return pairs
