"""A request's head (RFC 9112, sections 2 to 6): from its bytes to a request, strictly.

httptools (llhttp) parses. Around it stand the checks on the wire that it is looser about. It is fed
so that a feed never goes beyond the end of a message: a head up to its empty line, a body of known
length up to that, of a chunked one the trailers alone, up to their empty line.

Where :mod:`bide.native` is compiled, it first looks whether a head is plain: of such a one llhttp
sees nothing, nor of its body. What it takes, the strict way would take, and understand the same.
"""

from __future__ import annotations

from typing import Final

import httptools

from bide.errors import RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.messages import Request, decoded
from bide.protocols.http1.syntax import (
    CLOSES,
    KEEPS_ALIVE,
    MEANINGS,
    PARSED,
    STAND_IN,
    body_too_large,
    check_coding,
    check_host,
    join_repeated,
    meaning_of,
    plain_head,
    split_request_line,
    split_target,
    without_trailing_blanks,
)
from bide.twins import Plain


class PlainRequest(Request):
    """A request whose head was plain; it makes its headers of that when they are asked for."""

    __slots__ = ("_head",)

    def __init__(self, head: bytes, plain: Plain) -> None:
        self._head = head
        (
            _,
            self.method,
            self.target,
            self.raw_path,
            escaped,
            self.query,
            self.version,
            self.persistent,
            length,
            self.fields,
        ) = plain
        self.root = b""
        self.path = decoded(self.raw_path) if escaped else self.raw_path
        self.pairs = None
        self.has_body = length > 0

    def split(self) -> list[tuple[bytes, bytes]]:
        """Make the headers, of the head: each line is ``Name: value``."""
        headers = []
        for line in self._head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b": ")
            headers.append((name, value))
        return headers


# Outside of heads; never changed.
_NOTHING_MEANT: Final[dict[bytes, bytes]] = {}
_NOTHING_REPEATED: Final[list[tuple[bytes, bytes]]] = []


class HeadParser:
    """Parses one connection's heads. After an error it may not be used any more.

    Attributes:
        length: bytes of the body that the last head announces; None for a chunked one.
        plain: whether the last head was plain.
        expects_continue: whether its client waits to be told to send that body.
        upgrades: whether the last head asks for another protocol.
    """

    __slots__ = (
        "_headers",
        "_limits",
        "_meant",
        "_parser",
        "_repeated",
        "expects_continue",
        "length",
        "plain",
        "upgrades",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser: httptools.HttpRequestParser | None = None  # made when there is need of it
        self._headers: list[tuple[bytes, bytes]] | None = None  # None outside of heads
        self._meant = _NOTHING_MEANT  # in a head that is parsed: what means something
        self._repeated = _NOTHING_REPEATED  # and what came again of that, in order
        self.length: int | None = 0
        self.plain = False
        self.expects_continue = False
        self.upgrades = False

    def close(self) -> None:
        """Drop llhttp's parser, which refers to this object; when the connection ends."""
        self._parser = None

    def take(self, head: bytes, plain: Plain) -> Request:
        """Make the request of a plain head, which has been parsed."""
        self.length = plain[8]
        self.plain = True
        self.expects_continue = self.upgrades = False
        return PlainRequest(head, plain)

    def parse(self, head: bytes, end: int) -> Request:
        """Parse a complete head, whose request line ends at ``end``.

        Raises:
            RemoteProtocolError: the request must be refused; with the status to answer.
        """
        limits = self._limits
        self.plain = False
        headers = self._headers = []
        meant = self._meant = {}
        self._repeated = []
        method, target, version = split_request_line(head[:end])
        # Counted before objects are made. The request line and the empty line are not headers.
        if len(head) > 4 * limits.fields and head.count(b"\r\n") - 2 > limits.fields:
            raise RemoteProtocolError(f"the request has more than {limits.fields} headers", 431)
        # By find: to ask by ``in`` costs five times as much, for bytes.
        if head.find(b" \r\n") >= 0 or head.find(b"\t\r\n") >= 0:
            head = without_trailing_blanks(head)
        # llhttp has a list of its own, and rules for some.
        self.feed(head if method in PARSED else STAND_IN + head[len(method) :])
        self._headers = None
        if method == "CONNECT":
            raise RemoteProtocolError("this is not a proxy: CONNECT is not served", 405)
        if self._repeated:
            join_repeated(meant, self._repeated)
        host = meant.get(b"host")
        if host is not None:
            check_host(host)
        elif version == "1.1":
            raise RemoteProtocolError("the request has no Host header")
        path, query, authority = split_target(method, target)
        if authority is not None:
            headers = [each for each in headers if each[0].lower() != b"host"]
            headers.append((b"Host", authority))
        request = Request(method, target, path, query, version, headers)
        if len(meant) > (host is not None):  # more than Host means something
            self._note_meanings(request)
        else:
            request.persistent = version == "1.1"
            self.length = 0
        self._meant, self._repeated = _NOTHING_MEANT, _NOTHING_REPEATED
        return request

    def _note_meanings(self, request: Request) -> None:
        meant, limits, version = self._meant, self._limits, request.version
        connection = meant.get(b"connection", b"")
        request.persistent = CLOSES.search(connection) is None and (
            version == "1.1" or KEEPS_ALIVE.search(connection) is not None
        )
        coding = meant.get(b"transfer-encoding")
        length = int(meant.get(b"content-length", b"0"))  # llhttp took nothing but digits
        if length > limits.body > 0:
            raise body_too_large(limits.body)
        if coding is not None:
            if version != "1.1":
                raise RemoteProtocolError("Transfer-Encoding came with HTTP/1.0")
            check_coding(coding)
        request.has_body = coding is not None or length > 0
        self.length = None if coding is not None else length
        expect = meant.get(b"expect")
        self.expects_continue = False
        if expect is not None and version == "1.1":
            if expect.lower() != b"100-continue":
                raise RemoteProtocolError("the only expectation known here is 100-continue", 417)
            self.expects_continue = request.has_body
        if self.upgrades and request.has_body:
            # Beside an Upgrade httptools takes no body for one, so that it would pass for a
            # request: a parser of its own takes it.
            self.feed(plain_head(self.length))

    def feed(self, data: bytes) -> None:
        """Feed a piece of the last head's body, of known length, or of its trailers.

        Nothing is done with the body of a plain head: llhttp does not know of it.

        Raises:
            RemoteProtocolError: the data is malformed.
        """
        if self.plain:
            return
        parser = self._parser
        if parser is None:
            parser = self._parser = self._new_parser()
        self.upgrades = False
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An Upgrade may be ignored (RFC 9110 section 7.8). This parser takes the message for
            # complete, with a body or without; the next one is plain HTTP.
            self._parser = self._new_parser()
            self.upgrades = True
        except httptools.HttpParserCallbackError:
            raise  # an error of our own
        except httptools.HttpParserError as error:
            raise RemoteProtocolError(f"the request is malformed: {error}") from None

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Which request is the last is decided here: llhttp hears it from trailers and from
        # Proxy-Connection too.
        parser.set_dangerous_leniencies(lenient_keep_alive=True)
        return parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and what it means; httptools calls this. Trailers are dropped."""
        headers = self._headers
        if headers is None:
            return
        headers.append((name, value))
        meaning = MEANINGS.get(name)
        if meaning is None:
            meaning = meaning_of(name)
        if meaning:
            meant = self._meant
            if meaning in meant:
                self._repeated.append((meaning, value))
            else:
                meant[meaning] = value
