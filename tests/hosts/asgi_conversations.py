"""Conversations with one application under real ASGI servers and adapters, and what comes of each.

Some are up to Bide, and the tests check them; the others are up to the server or the adapter.
"""

import ast
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.sync.client import connect

from tests.hosts.asgi_hosts import COMMANDS, NONE, NOTHING, QUIET, Host
from tests.hosts.asgi_site import BLOCK, BLOCKS
from tests.served import DEADLINE, request

Cells = dict[tuple[str, str], str]
"""By host and row, what came of it."""

SOCKETS: Final = 100


# What is asked, and what may be answered: a word or two for the table's cell --------------------


def streams(host: Host) -> str:
    """See whether a block reaches the client while the next one waits."""
    client = host.client(request("/stream?streams"))
    try:
        first = client.head().status == 200 and client.reader.read1(1) != b""
    except TimeoutError:
        first = False
    host.open("streams")
    client.close()
    return "yes" if first else "no"


def stops_asking(host: Host) -> str:
    """Read nothing of a large response for a while."""
    client = host.client(request("/flood?flood"), window=4096)
    made = 0
    # What is not bounded may still take its time.
    while made < BLOCKS:
        before, made = made, host.settled("count('flood')", BLOCKS)
        if not host.expected.startswith("no") or made == before:
            break
    complete = client.response()
    client.close()
    assert len(complete.body) == BLOCKS * BLOCK
    return "yes" if made < BLOCKS // 2 else "no: all is in memory"


def reads_as_it_comes(host: Host) -> str:
    """Send one line of an upload, and see whether it is read."""
    head = request("/lines?lines", method="POST", headers=["Transfer-Encoding: chunked"])
    client = host.client(head + b"4\r\none\n\r\n")
    early = host.until("count('lines') == 1")
    client.send(b"4\r\ntwo\n\r\n0\r\n\r\n")
    assert client.response().status == 200
    client.close()
    assert host.ask("notes['lines']") == ["one\n", "two\n"]
    return "yes" if early else "no: it is gathered first"


def stops_taking(host: Host) -> str:
    """Send a large body to an application that does not read yet."""
    size = BLOCK * BLOCKS
    client = host.client(request("/hold?hold", method="POST", headers=[f"Content-Length: {size}"]))
    sent, since = 0, time.monotonic()
    block = bytes(BLOCK)
    client.sock.setblocking(False)
    quiet = DEADLINE if host.expected.startswith("no") else QUIET
    while sent < size and time.monotonic() - since < quiet:
        try:
            sent += client.sock.send(block[: size - sent])
            since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.005)
    client.sock.settimeout(DEADLINE)
    host.open("hold")
    client.send(bytes(size - sent))
    assert client.response().body == str(size).encode()
    client.close()
    return "yes" if sent < size // 2 else "no: all is taken"


def waits_at_once(host: Host) -> str:
    """Start many requests that wait."""
    clients = [host.client(request("/wait?many")) for _ in range(200)]
    many = host.settled("count('many')", 200)
    host.open("many")
    for client in clients:
        assert client.response().body == b"12"
        client.close()
    return str(many)


def has_threads(host: Host) -> str:
    """Count threads, after all the others."""
    lanes = (
        "sum(each.name.startswith(('bide-thread', 'WSGI', 'ThreadPoolExecutor'))"
        " for each in threading.enumerate())"
    )
    number = host.ask(lanes)
    return "4 at most" if number <= 4 else str(number)


def notices_departures(host: Host) -> str:
    """Leave."""
    client = host.client(request("/wait?leave"))
    assert host.until("count('leave')")
    client.close()
    noticed = host.until("count('leave') == 3")
    host.open("leave")
    if not noticed:
        return "no"
    assert host.ask("notes['leave']") == ["waits", "ClientDisconnected", "close"]
    return "yes"


def closes(host: Host) -> str:
    """Read a whole response."""
    host.open("close")
    assert host.get("/wait?close").body == b"12"
    return "yes" if host.until("notes['close'] == ['waits', 'close']") else "no"


def answers_errors(host: Host) -> str:
    """Ask for a failure."""
    return str(host.get("/fail").status)


def cuts(host: Host) -> str:
    """Ask for a failure in the middle, of a response with a length and without."""
    host.open("cut")
    seen = set()
    for query in ("", "?length"):
        try:
            response = host.get(f"/cut{query}")
            seen.add("a cut" if not response.complete else "a complete response")
        except TimeoutError:
            seen.add(NOTHING)
    return " or ".join(sorted(seen))


def cuts_http2(host: Host) -> str:
    """Ask for the same on a stream."""
    host.open("cut")
    return host.http2("/cut", lambda answer: "a complete response")


def cuts_http10(host: Host) -> str:
    """Ask for the same where the end of the connection is the end of the response."""
    host.open("cut")
    client = host.client(request("/cut", version="1.0"))
    try:
        client.head()
        while client.reader.read1(100):
            pass
        return "a complete response"
    except ConnectionResetError:
        return "a cut"
    except TimeoutError:
        return NOTHING
    finally:
        client.close()


def is_bodiless(host: Host) -> str:
    """Ask for what has no body, and for something else on the same connection."""
    for method, status in (("HEAD", "200"), ("GET", "204"), ("GET", "304")):
        client = host.client(request(f"/bodiless?{status}", method=method))
        try:
            if client.response(method).status != int(status):
                return "no"
            client.send(request("/echo"))
            if client.response().status != 200:
                return "no"
        except (AssertionError, OSError):
            return "no"
        finally:
            client.close()
    return "yes"


def answers(path: str, body: bytes) -> Callable[[Host], str]:
    def conversation(host: Host) -> str:
        try:
            response = host.get(path)
        except (TimeoutError, AssertionError):
            return "no"
        return "yes" if response.complete and response.body == body else "no"

    return conversation


def has_paths(host: Host) -> str:
    """Ask for paths with escapes."""
    paths = ("/environ/a%20b/%C3%A9/%2541", "/environ/%FF")
    seen = [ast.literal_eval(host.get(path).text)[1] for path in paths]
    if seen[0] != "/environ/a b/\xc3\xa9/%41":
        return "no"
    return "yes" if seen[1] == "/environ/\xff" else "only of UTF-8"


def speaks_http2(host: Host) -> str:
    """Ask by HTTP/2, without TLS."""
    return host.http2("/environ", lambda answer: str(ast.literal_eval(answer.text)[3]))


def opens_websockets(host: Host) -> str:
    """Open a hundred, and have each message come back, while all the others wait."""
    with ExitStack() as stack:
        try:
            sockets = [
                stack.enter_context(connect(f"ws://{host.address}/socket", open_timeout=DEADLINE))
                for _ in range(SOCKETS)
            ]
        except InvalidStatus as refused:
            return str(refused.response.status_code)
        for number, socket in enumerate(sockets):
            socket.send(str(number))
        answers = [socket.recv(DEADLINE) for socket in sockets]
        assert answers == [str(number) for number in range(SOCKETS)]
    return "yes"


def refuses_websockets(host: Host) -> str:
    """Open one that the view refuses with 401."""
    try:
        with connect(f"ws://{host.address}/socket?refuse", open_timeout=DEADLINE):
            return "it is accepted"
    except InvalidStatus as refused:
        return str(refused.response.status_code)
    except InvalidMessage:
        return "no answer"


def told_of_closes(host: Host) -> str:
    """Close one with a code of one's own, and see what the view is told."""
    try:
        with connect(f"ws://{host.address}/socket?farewell", open_timeout=DEADLINE) as socket:
            socket.close(4001, "bye")
    except InvalidStatus:
        return NONE
    assert host.until("count('farewell') == 1")
    return str(host.ask("notes['farewell'][0]")).strip()


ROWS: Final[dict[str, Callable[[Host], str]]] = {
    "A block reaches the client before the next is made": streams,
    "A slow client: the application is asked for no more": stops_asking,
    "An upload is read as it comes": reads_as_it_comes,
    "A slow application: the upload stops": stops_taking,
    "Requests that wait at once, of 200": waits_at_once,
    "Threads that have run the application by then": has_threads,
    "A departure is noticed while the application waits": notices_departures,
    "`close()` is called": closes,
    "An error before the head": answers_errors,
    "An error after the head: what the client sees": cuts,
    "The same, of HTTP/2": cuts_http2,
    "The same, of HTTP/1.0, whose end is the connection's": cuts_http10,
    "HEAD, 204 and 304 have no body": is_bodiless,
    "PATH_INFO, of bytes that are not UTF-8, too": has_paths,
    "SERVER_PROTOCOL of a client of HTTP/2": speaks_http2,
    "`bide.websocket`: 100 sockets wait on 4 threads": opens_websockets,
    "A view refuses a WebSocket with 401: its client sees": refuses_websockets,
    "A client closes with 4001: the view is told": told_of_closes,
    "`write()`": answers("/write", b"123"),
    "Push: `write` and `finish`": answers("/push", b"12"),
    "Promises in the iterable": answers("/promise", b"1"),
}
STOP: Final = "SIGTERM: what waits is cancelled and closed"


def stops(hosts: list[Host]) -> dict[str, str]:
    """Stop all of them at once, while a request waits in each."""
    cells = {}
    clients = []
    for host in hosts:
        host.expected = "yes"
        clients.append(host.client(request("/wait?stop")))
        assert host.until("count('stop') == 1")
        host.terminate()
    for host, client in zip(hosts, clients, strict=True):
        try:
            host.process.wait(DEADLINE)
            ended = "stop close" in host.notes.read_text()
            cells[host.name] = "yes" if ended else "no"
        except subprocess.TimeoutExpired:
            cells[host.name] = "no: it does not end"
        client.close()
    return cells


def converse(host: Host, expected: dict[str, str]) -> dict[str, str]:
    """Run the conversations of which something is expected, in the order of ``ROWS``."""
    cells = {}
    for row, conversation in ROWS.items():
        if row in expected:
            host.expected = expected[row]
            cells[row] = conversation(host)
    return cells


def measure(directory: Path) -> Cells:
    """Run every conversation with every host, expecting nothing."""
    hosts = [Host(name, directory) for name in COMMANDS]
    cells: Cells = {}
    try:
        for host in hosts:
            host.ready()
        with ThreadPoolExecutor(len(hosts)) as pool:
            columns = pool.map(lambda host: converse(host, dict.fromkeys(ROWS, "")), hosts)
            for host, column in zip(hosts, columns, strict=True):
                cells |= {(host.name, row): cell for row, cell in column.items()}
        cells |= {(name, STOP): cell for name, cell in stops(hosts).items()}
    finally:
        for host in hosts:
            host.close()
    return cells
