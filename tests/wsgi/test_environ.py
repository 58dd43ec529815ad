"""From a request to an ``environ``: every rule of PEP 3333 for its variables."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref import validate
from wsgiref.util import request_uri

import pytest

from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.wsgi import environ as environ_module
from bide.wsgi.environ import request_environ, server_environ
from bide.wsgi.files import FileWrapper
from tests.protocols.fakes import connect

BASE = server_environ(True)
PEER = Peer("http", ("127.0.0.1", 8000), ("192.0.2.1", 50000))


def environ_of(*headers: tuple[bytes, bytes], **request: Any) -> dict[str, Any]:
    """Make the environ of a request with some headers."""
    given: dict[str, Any] = {"method": "GET", "target": b"/", "raw_path": b"/", "query": b""}
    given.update(version="1.1", headers=list(headers))
    given.update(request)
    return request_environ(BASE, PEER, Request(**given))


def environ_on_the_wire(data: bytes) -> dict[str, Any]:
    """Make the environ of a request as the protocol parses it."""
    client = connect()
    client.send(data)
    return request_environ(BASE, client.stream.peer, client.stream.request)


def variables(environ: dict[str, Any]) -> dict[str, Any]:
    """Return what came from the request's headers."""
    return {
        key: value
        for key, value in environ.items()
        if key.startswith(("HTTP_", "CONTENT_")) and key not in BASE
    }


def test_environ_has_every_variable_that_the_pep_requires() -> None:
    """PEP 3333, environ Variables: those that must be present, native strings all."""
    environ = environ_of((b"Host", b"example.com"))
    for key in ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME"):
        assert type(environ[key]) is str
    for key in ("SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR", "REMOTE_PORT", "RAW_URI"):
        assert type(environ[key]) is str
    assert type(environ) is dict
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["wsgi.errors"] is sys.stderr
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.multiprocess"] is False
    assert environ["wsgi.input_terminated"] is True
    assert environ["wsgi.file_wrapper"] is FileWrapper


@pytest.mark.parametrize("multithread", [True, False])
def test_environ_says_whether_another_thread_may_call(multithread: bool) -> None:
    """``wsgi.multithread`` is the executor's truth."""
    assert server_environ(multithread)["wsgi.multithread"] is multithread


def test_environ_names_the_two_ends_of_the_connection() -> None:
    """And the scheme. A Unix socket has no addresses, and the server's is never empty."""
    environ = environ_of()
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", "8000")
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("192.0.2.1", "50000")
    request = Request("GET", b"/", b"/", b"", "1.1", [])
    for scheme, port in (("http", "80"), ("https", "443")):
        unix = request_environ(BASE, Peer(scheme, None, None), request)
        assert (unix["REMOTE_ADDR"], unix["REMOTE_PORT"]) == ("", "")
        assert (unix["SERVER_NAME"], unix["SERVER_PORT"]) == ("localhost", port)
        assert unix["wsgi.url_scheme"] == scheme


def test_environ_is_the_application_s_own() -> None:
    """PEP 3333 lets the application change it: nothing of that reaches the next request.

    The first of a connection, from whose second on a copy is kept, and the third.
    """
    peer = Peer("http", ("127.0.0.1", 8000), ("192.0.2.1", 50000))
    request = Request("GET", b"/", b"/", b"", "1.1", [(b"Host", b"a")])
    first = request_environ(BASE, peer, request)
    told = dict(first)
    for environ in (first, *(request_environ(BASE, peer, request) for _ in range(3))):
        assert environ == told
        environ["REMOTE_ADDR"] = "changed"
        environ["own"] = 1
        del environ["wsgi.version"]
    assert "own" not in BASE
    assert "SERVER_NAME" not in BASE


def test_what_a_connection_keeps_is_of_one_server() -> None:
    """Two applications behind one connection do not get each other's variables."""
    request = Request("GET", b"/", b"/", b"", "1.1", [])
    peer = Peer("http", None, None)
    other = {**BASE, "wsgi.multithread": False}
    for base in (BASE, other, BASE):
        environ = request_environ(base, peer, request)
        assert environ["wsgi.multithread"] is base["wsgi.multithread"]
    assert request_environ(BASE, peer, request) == environ


def test_the_root_is_the_script_and_the_path_is_the_rest() -> None:
    """PEP 3333, environ Variables; both are decoded, once."""
    request = Request("GET", b"/a%25b/c%2525?q", b"/a%25b/c%2525", b"q", "1.1", [])
    assert request.mount(b"/a%b")
    environ = request_environ(BASE, PEER, request)
    names = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "RAW_URI")
    assert [environ[name] for name in names] == ["/a%b", "/c%25", "q", "/a%25b/c%2525?q"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_environ_says_the_version_of_the_request(version: str) -> None:
    """``SERVER_PROTOCOL`` is what the client speaks."""
    assert environ_of(version=version)["SERVER_PROTOCOL"] == f"HTTP/{version}"


@pytest.mark.parametrize(
    ("path", "info"),
    [
        (b"/", "/"),
        (b"/a%20b", "/a b"),
        (b"/a%2Fb%2fc", "/a/b/c"),
        (b"/%C3%A9", "\xc3\xa9"),
        (b"/%FF%00", "/\xff\0"),
        (b"/%zz%4%", "/%zz%4%"),
        (b"/%25%32%35", "/%25"),
        (b"/a+b", "/a+b"),
        (b"//x/../y", "//x/../y"),
    ],
)
def test_path_info_is_decoded_once_into_latin_1(path: bytes, info: str) -> None:
    """Percent escapes become bytes, bytes become Latin-1; a bad escape stays, + is not a blank."""
    info = info if info.startswith("/") else f"/{info}"
    environ = environ_of(raw_path=path, target=path)
    assert environ["PATH_INFO"] == info
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == path.decode("latin-1")


def test_query_string_is_as_sent() -> None:
    """Not decoded: that is the application's."""
    environ = environ_on_the_wire(b"GET /a%20b?x=%20+&y=?/ HTTP/1.1\r\nHost: a\r\n\r\n")
    assert environ["QUERY_STRING"] == "x=%20+&y=?/"
    assert environ["PATH_INFO"] == "/a b"
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == "/a%20b?x=%20+&y=?/"


def test_path_info_of_the_asterisk_is_empty() -> None:
    """OPTIONS * asks about the server, not about a path."""
    environ = environ_on_the_wire(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("OPTIONS", "")
    assert environ["RAW_URI"] == "*"


def test_authority_of_an_absolute_target_replaces_host() -> None:
    """RFC 9112 section 3.2.2; RAW_URI stays as sent."""
    environ = environ_on_the_wire(b"GET http://b.example:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n")
    assert environ["HTTP_HOST"] == "b.example:81"
    assert environ["PATH_INFO"] == "/x"
    assert environ["QUERY_STRING"] == "y"
    assert environ["RAW_URI"] == "http://b.example:81/x?y"


def test_headers_become_variables() -> None:
    """Upper case, - to _, HTTP_ before; Latin-1 strings."""
    environ = environ_of((b"X-Some-Name", b"caf\xe9"), (b"accept", b""), (b"A.b!c", b"1"))
    assert variables(environ) == {
        "HTTP_X_SOME_NAME": "caf\xe9",
        "HTTP_ACCEPT": "",
        "HTTP_A.B!C": "1",
    }


def test_content_type_and_length_have_no_prefix() -> None:
    """PEP 3333 after CGI, in any case; and there is none where the client sent none."""
    environ = environ_of((b"content-TYPE", b"text/plain"), (b"CONTENT-Length", b"5"))
    assert variables(environ) == {"CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "5"}
    assert variables(environ_of()) == {}


def test_repeated_headers_are_joined_in_order() -> None:
    """By commas (RFC 9110 section 5.3), however their names are spelled; cookies by semicolons."""
    environ = environ_of(
        (b"X", b"1"),
        (b"Cookie", b"a=b"),
        (b"x", b"2, 3"),
        (b"COOKIE", b"c=d"),
        (b"X", b""),
        (b"Cookie", b"e=f"),
    )
    assert variables(environ) == {"HTTP_X": "1,2, 3,", "HTTP_COOKIE": "a=b; c=d; e=f"}


@pytest.mark.parametrize(
    "name", [b"X_Forwarded_For", b"Content_Length", b"content_type", b"HTTP_HOST", b"_", b"X-A_b"]
)
def test_header_with_an_underscore_is_dropped(name: bytes) -> None:
    """It would pass for one with a dash, which a proxy in front has checked (CVE-2026-3902)."""
    for _ in range(2):
        assert variables(environ_of((name, b"evil"))) == {}


def test_header_with_an_underscore_leaves_its_namesake_alone() -> None:
    """Before it or behind it."""
    good = (b"X-Forwarded-For", b"good")
    bad = (b"X_Forwarded_For", b"evil")
    for headers in ((good, bad), (bad, good)):
        assert variables(environ_of(*headers)) == {"HTTP_X_FORWARDED_FOR": "good"}


@pytest.mark.parametrize("name", [b"Proxy", b"proxy", b"PROXY"])
def test_proxy_header_is_dropped(name: bytes) -> None:
    """CVE-2016-5385: many libraries take HTTP_PROXY for the environment's."""
    for _ in range(2):
        assert "HTTP_PROXY" not in environ_of((name, b"http://evil.example"))


def test_header_cannot_set_a_variable_of_the_server_s() -> None:
    """Every name gets its prefix."""
    names = [b"Script-Name", b"Path-Info", b"wsgi.url-scheme", b"Remote-Addr", b"Server-Name"]
    environ = environ_of(*[(name, b"evil") for name in names])
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/"
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["wsgi.url_scheme"] == "http"
    assert sorted(variables(environ)) == [
        "HTTP_PATH_INFO",
        "HTTP_REMOTE_ADDR",
        "HTTP_SCRIPT_NAME",
        "HTTP_SERVER_NAME",
        "HTTP_WSGI.URL_SCHEME",
    ]


@pytest.fixture
def seen() -> Iterator[dict[bytes, str]]:
    """Return the names that are kept: none yet."""
    kept = environ_module._KEYS
    before = dict(kept)
    kept.clear()
    yield kept
    kept.clear()
    kept.update(before)


def test_headers_are_right_after_any_number_of_other_names(
    seen: dict[bytes, str],
) -> None:
    """What is kept of names seen is bounded, and a name beyond that is treated the same."""
    for number in range(3000):
        name = f"X-{number}"
        environ = environ_of((name.encode(), b"1"), (f"X_{number}".encode(), b"2"))
        assert variables(environ) == {f"HTTP_X_{number}": "1"}
    assert 0 < len(seen) <= 1024


def test_long_names_are_not_kept(seen: dict[bytes, str]) -> None:
    """A thousand names of 60 KiB that a client makes up must not stay in memory."""
    long = b"X-" + b"a" * 60000
    environ = environ_of((b"X-Short", b"2"), (long, b"1"))
    assert variables(environ) == {"HTTP_X_SHORT": "2", f"HTTP_X_{'A' * 60000}": "1"}
    assert list(seen) == [b"X-Short"]


def test_environ_of_a_request_passes_the_validator_s_checks() -> None:
    """The standard library's, which names each rule it checks."""
    environ = environ_on_the_wire(
        b"POST /a%20b?c HTTP/1.1\r\nHost: example.com\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 0\r\nX: y\r\n\r\n"
    )
    environ["wsgi.input"] = io.BytesIO()  # the conversation's to give
    check_environ: Callable[[dict[str, Any]], None] = vars(validate)["check_environ"]
    check_environ(environ)
    assert request_uri(environ) == "http://example.com/a%20b?c"
