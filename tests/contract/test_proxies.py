"""Behind proxies: who the client is, for the application, the log and the status."""

import json
import socket
from pathlib import Path
from typing import Any

from bide import wait
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import DEADLINE, FOR_EVER, Environ, Gate, Log, Served, answering, until
from tests.tls import certificates

SHOWN = (
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "wsgi.url_scheme",
    "SCRIPT_NAME",
    "PATH_INFO",
    "HTTP_HOST",
    "SERVER_NAME",
    "bide.proxy",
)
FORGED = [
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: forged.example",
    "X-Forwarded-Port: 8443",
    "X-Forwarded-Prefix: /forged",
    "Forwarded: for=203.0.113.9;proto=https;host=forged.example",
    "X_Forwarded_For: 203.0.113.9",
    "X-Forwarded_Proto: https",
]


@answering
def shows(environ: Environ) -> str:
    """Answer what a proxy may have told, and every header of its kind."""
    return json.dumps(
        {key: value for key, value in environ.items() if key in SHOWN or "FORWARDED" in key.upper()}
    )


def shown(served: Served, *headers: str, path: str = "/x") -> dict[str, str]:
    """Make a request, of which httptools and the compiled parser each take some, and return it."""
    found: list[dict[str, str]] = [
        json.loads(served.get(path, headers=[*headers, *more]).text)
        for more in ((), ("X-Odd: \xe9",))  # a head that is not plain
    ]
    ports = [each.pop("REMOTE_PORT") for each in found]
    assert found[0] == found[1]
    return found[0] | {"port": ports[0]}


def test_what_a_client_says_of_itself_reaches_no_application(serve: Serve) -> None:
    """Without trusted proxies, and from peers that are none; names with underscores as well."""
    for trust in ([], ["192.0.2.0/24", "unix:"]):
        told = shown(serve(shows, trust=trust), *FORGED)
        assert told.pop("port").isdigit()
        assert told == {
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.url_scheme": "http",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/x",
            "HTTP_HOST": "test",
            "SERVER_NAME": "127.0.0.1",
        }


# Settings, headers, and what of the environ is not as without them.
TOLD: list[tuple[dict[str, Any], list[str], dict[str, str]]] = [
    ({}, [], {}),
    (
        {},
        ["X-Forwarded-For: 1.1.1.1, 192.0.2.7, 127.0.0.1"],
        {
            "REMOTE_ADDR": "192.0.2.7",
            "port": "",
            "bide.proxy": "127.0.0.1",
            "HTTP_X_FORWARDED_FOR": "192.0.2.7, 127.0.0.1",
        },
    ),
    (
        {},
        ['Forwarded: for="[2001:db8::7]:5123";proto=https;host=shop.example'],
        {
            "REMOTE_ADDR": "2001:db8::7",
            "port": "5123",
            "bide.proxy": "127.0.0.1",
            "wsgi.url_scheme": "https",
            "HTTP_HOST": "shop.example",
            "SERVER_NAME": "shop.example",
            "HTTP_FORWARDED": 'for="[2001:db8::7]:5123";proto=https;host=shop.example',
        },
    ),
    (
        {},
        ["X-Forwarded-Proto: https", "X-Forwarded-Port: 8443"],
        {
            "wsgi.url_scheme": "https",
            "HTTP_HOST": "test:8443",
            "HTTP_X_FORWARDED_PROTO": "https",
            "HTTP_X_FORWARDED_PORT": "8443",
        },
    ),
    (
        {},
        ["X-Forwarded-Host: shop.example:81", "X-Forwarded-Port: 8443"],
        {
            "HTTP_HOST": "shop.example:81",
            "SERVER_NAME": "shop.example",
            "HTTP_X_FORWARDED_HOST": "shop.example:81",
            "HTTP_X_FORWARDED_PORT": "8443",
        },
    ),
    (
        {},
        ["X-Forwarded-Prefix: /shop"],
        {"SCRIPT_NAME": "/shop", "HTTP_X_FORWARDED_PREFIX": "/shop"},
    ),
    ({"root_path": "/shop/"}, [], {"SCRIPT_NAME": "/shop"}),
    (
        {"root_path": "/shop"},
        ["X-Forwarded-Prefix: /eu/shop"],
        {"SCRIPT_NAME": "/eu/shop", "HTTP_X_FORWARDED_PREFIX": "/eu/shop"},
    ),
    # The client is not known: it is nobody, and not the proxy.
    (
        {},
        ["X-Forwarded-For: nonsense"],
        {"REMOTE_ADDR": "", "port": "", "bide.proxy": "127.0.0.1"},
    ),
    (
        {},
        ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.8"],
        {"REMOTE_ADDR": "", "port": "", "bide.proxy": "127.0.0.1"},
    ),
    # Only some of the headers are the proxy's.
    ({"trust_headers": "x-forwarded-for"}, ["X-Forwarded-Host: forged.example"], {}),
    (
        {"trust_headers": "x-forwarded-for, X-Forwarded-Proto"},
        FORGED,
        {
            "REMOTE_ADDR": "203.0.113.9",
            "port": "",
            "bide.proxy": "127.0.0.1",
            "wsgi.url_scheme": "https",
            "HTTP_X_FORWARDED_FOR": "203.0.113.9",
            "HTTP_X_FORWARDED_PROTO": "https",
        },
    ),
]


def test_what_a_trusted_proxy_tells_is_in_the_environ(serve: Serve, log: Log) -> None:
    """PEP 3333's variables are the client's; the proxy's address has a key of its own."""
    plain = shown(serve(shows))
    servers: dict[str, Served] = {}
    with Failures() as failures:
        for settings, headers, expected in TOLD:
            with failures.of(f"{settings} {headers}"):
                name = repr(settings)
                if name not in servers:
                    servers[name] = serve(shows, trust="127.0.0.0/8", **settings)
                usual, told = plain.copy(), shown(servers[name], *headers)
                if "port" not in expected:
                    del told["port"], usual["port"]
                same(told, usual | expected)
    for served in servers.values():
        served.server._refusals._quiet = 0.0
        served.tick()
    line = log.take("headers not believed: 4 requests").getMessage()
    assert "forwarded, x-forwarded-for, of 127.0.0.1" in line


def test_a_proxy_on_a_unix_socket_is_trusted_by_name(serve: Serve, tmp_path: Path) -> None:
    """Such a socket's clients have no addresses."""
    path = tmp_path / "bide.sock"
    served = serve(shows, trust="unix:", bind=f"unix:{path}")
    told = json.loads(served.get(headers=["X-Forwarded-For: 192.0.2.7"]).text)
    assert (told["REMOTE_ADDR"], told["bide.proxy"]) == ("192.0.2.7", "")
    assert json.loads(served.get().text)["REMOTE_ADDR"] == ""


def test_the_status_shows_the_client_and_not_the_proxy(serve: Serve) -> None:
    """As the access log does."""
    gate = Gate()

    @answering
    def waits(environ: Environ) -> str:
        wait(gate.promise())
        return ""

    served = serve(waits, trust="127.0.0.1")
    client = served.request(headers=["X-Forwarded-For: 192.0.2.7"])
    served.until_waiting(1)
    assert [each.client for each in served.server.requests()] == ["192.0.2.7"]
    gate.open()
    assert client.response().status == 200


def test_a_root_path_is_added_and_nothing_is_taken_from_the_path(serve: Serve) -> None:
    """The proxy has taken it away; whatever is left begins anew."""
    served = serve(shows, root_path="/shop")
    for path in ("/", "/shop", "/shop/x"):
        told = shown(served, path=path)
        assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/shop", path)


# The PROXY protocol -----------------------------------------------------------------------------

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
BINARY = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\7\x0a\0\0\1\xc8\x22\x01\xbb"
NO_HEADER = "without a good PROXY header"


def test_a_proxy_header_names_the_client_however_it_is_split(serve: Serve) -> None:
    """The bytes behind it are the connection's, whether they come with it or later."""
    served = serve(shows, trust="127.0.0.1", proxy_protocol=True)
    with Failures() as failures:
        for header in (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n", BINARY):
            data = header + REQUEST
            for size in (0, 1, 12, 16, len(header) - 1, len(header), len(header) + 1, len(data)):
                with failures.of(f"{header[:8]!r} split at {size}"):
                    client = served.connect()
                    client.send(data[:size])
                    served.call(lambda: None)  # its turn, in most cases with only this
                    client.send(data[size:])
                    told = json.loads(client.response().text)
                    same((told["REMOTE_ADDR"], told["REMOTE_PORT"]), ("192.0.2.7", "51234"))
                    same((told["bide.proxy"], told["SERVER_NAME"]), ("127.0.0.1", "10.0.0.1"))
                    assert "HTTP_X_FORWARDED_FOR" not in told  # the client's own
                    client.send(REQUEST)  # the header comes once for all requests
                    assert json.loads(client.response().text) == told


def test_a_proxy_header_byte_by_byte(serve: Serve) -> None:
    """None of its bytes is lost, and none of the request's."""
    served = serve(shows, trust="127.0.0.1", proxy_protocol=True)
    client = served.connect()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in BINARY + REQUEST:
        client.send(bytes([byte]))
        served.call(lambda: None)
    assert json.loads(client.response().text)["REMOTE_ADDR"] == "192.0.2.7"


def test_a_proxy_header_comes_before_tls(serve: Serve) -> None:
    """In clear, and not a byte of the handshake is taken with it; what follows is as ever."""
    files = certificates()
    served = serve(shows, trust="127.0.0.1", proxy_protocol=True, certificate=files.server)
    host, _, port = served.address.rpartition(":")
    with socket.create_connection((host, int(port)), DEADLINE) as plain:
        plain.sendall(BINARY)
        with files.context().wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            answer = b"".join(iter(lambda: secure.recv(65536), b""))
    told = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (told["REMOTE_ADDR"], told["wsgi.url_scheme"]) == ("192.0.2.7", "https")


def test_headers_count_where_the_named_client_is_a_trusted_proxy_itself(serve: Serve) -> None:
    """A balancer names the proxy behind it, which names the client; who names nobody is himself."""
    served = serve(shows, trust=["127.0.0.1", "10.0.0.0/8"], proxy_protocol=True)
    for header, client, proxy in (
        (b"PROXY TCP4 10.0.0.7 10.0.0.1 51234 443\r\n", "203.0.113.9", "127.0.0.1"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n", "192.0.2.7", "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1", None),
        (BINARY[:12] + b"\x20\0\0\0", "127.0.0.1", None),
        (BINARY[:12] + b"\x21\x31\0\xd8" + bytes(216), "", "127.0.0.1"),
    ):
        connection = served.connect()
        connection.send(header + REQUEST)
        told = json.loads(connection.response().text)
        assert (told["REMOTE_ADDR"], told.get("bide.proxy")) == (client, proxy)


def test_who_is_not_trusted_sends_no_proxy_header(serve: Serve) -> None:
    """From anybody else it is a malformed request; and plain requests need none."""
    served = serve(shows, trust="192.0.2.1", proxy_protocol=True)
    client = served.connect()
    client.send(b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n" + REQUEST)
    assert client.response().status == 400
    assert served.get().status == 200


def test_a_connection_without_its_proxy_header_is_closed_with_a_line(
    serve: Serve, log: Log
) -> None:
    """Nothing of it is answered: whose it is cannot be known."""
    served = serve(shows, trust="127.0.0.1", proxy_protocol=True)
    for sent, why in (
        (REQUEST, "does not begin with a PROXY header"),
        (b"\x16\x03\x01", "does not begin"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 70000\r\n" + REQUEST, "a port above"),
        (BINARY[:14] + b"\xff\xff", "longer than"),
    ):
        client = served.connect()
        client.send(sent)
        assert client.rest() == b""
        until(lambda: not served.status.connections, "it was not forgotten")
        served.server._refusals._quiet = 0.0  # as if the last line were long ago
        served.tick()
        assert why in log.take(NO_HEADER).getMessage()
    # One that ends in the middle of it, and one that only looked whether the port is open.
    half = served.connect()
    half.send(BINARY[:20])
    half.half_close()
    assert half.rest() == b""
    silent = served.connect()
    silent.half_close()
    assert silent.rest() == b""
    until(lambda: not served.status.connections, "they were not forgotten")
    served.server._refusals._quiet = 0.0
    served.tick()
    assert "ended before its end" in log.take("1 came from a trusted proxy").getMessage()
    assert not log.find(NO_HEADER)


def test_a_proxy_header_has_the_time_of_a_head(serve: Serve, log: Log) -> None:
    """Else a connection without one would stay for ever."""
    served = serve(shows, trust="127.0.0.1", proxy_protocol=True, head_timeout=15.0)
    silent, slow = served.connect(), served.connect()
    slow.send(BINARY[:20])
    until(lambda: served.status.connections == 2, "they were not accepted")
    served.call(served.server.mind_time, 0.0)
    served.call(served.server.mind_time, 14.0)
    assert silent.is_silent()
    assert slow.is_silent()
    served.call(served.server.mind_time, 2.0)
    assert silent.rest() == slow.rest() == b""
    served.tick()
    assert "2 came from" in log.take(NO_HEADER).getMessage()


def test_a_stop_serves_what_has_come_behind_a_proxy_header_and_ends_the_others(
    serve: Serve,
) -> None:
    """A request that has been sent is served, even if nothing of its connection has been read."""
    served = serve(shows, trust="127.0.0.1", proxy_protocol=True, idle_timeout=FOR_EVER)
    silent, sent = served.connect(), served.connect()
    until(lambda: served.status.connections == 2, "they were not accepted")

    def stop_with_it_unread() -> None:
        sent.send(BINARY + REQUEST)
        served.server._draining._drain()

    served.call(stop_with_it_unread)
    assert json.loads(sent.response().text)["REMOTE_ADDR"] == "192.0.2.7"
    assert silent.rest() == b""
    served.begin_stop()
    served.join()
    assert not served.server._connections
