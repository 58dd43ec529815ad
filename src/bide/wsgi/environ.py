"""From a request to an ``environ``: PEP 3333 (environ Variables), in one place.

Pure functions; the dictionaries that they copy are made once for a server and once for a
connection.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from bide.exchange.messages import Request
from bide.wsgi.files import FileWrapper

# Header names as they were sent → CGI names; "" for those that are dropped. Bounded, for clients
# can send any; halves what headers cost.
_KEYS: Final[dict[bytes, str]] = {}
_BARE_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def server_environ(multithread: bool) -> dict[str, Any]:
    """Give what is the same for every request of a server.

    Args:
        multithread: whether another thread may call the application at the same time.
    """
    return {
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
        "SCRIPT_NAME": "",
        "SERVER_SOFTWARE": "bide",
    }


def connection_environ(
    base: dict[str, Any], scheme: str, server: tuple[str, str], client: tuple[str, str]
) -> dict[str, Any]:
    """Add what is the same for every request of a connection.

    Args:
        base: from :func:`server_environ`.
        scheme: "http" or "https".
        server: host and port of this end; empty for what a Unix socket has not.
        client: the same of the other end.
    """
    environ = base.copy()
    environ["wsgi.url_scheme"] = scheme
    environ["SERVER_NAME"], environ["SERVER_PORT"] = server
    environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client
    return environ


def request_environ(base: dict[str, Any], request: Request) -> dict[str, Any]:
    """Make one request's environ, but for what belongs to its conversation.

    Headers with ``_`` in their names are dropped, for they would pass for those with ``-``, and so
    is ``Proxy``, which many libraries take for the environment's (CVE-2016-5385). Repeated headers
    are joined by commas, cookies by semicolons.
    """
    environ = base.copy()
    target = request.target.decode("latin-1")
    path = request.path
    if b"%" in path:
        path = _unquoted(path)
    environ["REQUEST_METHOD"] = request.method
    environ["PATH_INFO"] = "" if path == b"*" else path.decode("latin-1")
    environ["QUERY_STRING"] = request.query.decode("latin-1")
    environ["RAW_URI"] = environ["REQUEST_URI"] = target
    environ["SERVER_PROTOCOL"] = (
        "HTTP/1.1" if request.version == "1.1" else f"HTTP/{request.version}"
    )
    repeated: dict[str, list[str]] | None = None  # joined once: one by one is quadratic
    for name, value in request.headers:
        key = _KEYS.get(name)
        if key is None:
            key = _key(name)
        if key:
            text = value.decode("latin-1")
            if key in environ:
                if repeated is None:
                    repeated = {}
                repeated.setdefault(key, [environ[key]]).append(text)
            else:
                environ[key] = text
    if repeated is not None:
        for key, texts in repeated.items():
            environ[key] = ("; " if key == "HTTP_COOKIE" else ",").join(texts)
    return environ


def _unquoted(path: bytes) -> bytes:
    """Decode a path's percent signs (RFC 3986 section 2.1); those of no octet stay as they are.

    Not by ``urllib``, which makes two objects of each: here it is one pass, whatever there is.
    """
    path = _BARE_PERCENT.sub(b"%25", path).replace(b"\\", b"\\\\").replace(b"%", b"\\x")
    return path.decode("unicode_escape").encode("latin-1")


def _key(name: bytes) -> str:
    upper = name.decode("latin-1").upper()
    if "_" in upper or upper == "PROXY":
        key = ""
    else:
        key = upper.replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
    if len(_KEYS) < 1024 and len(name) <= 64:
        _KEYS[name] = key
    return key
