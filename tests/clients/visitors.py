"""Other people's clients, each behind the same few calls; what they do on the wire is their own.

A visitor keeps what its client keeps, a pool or one connection, from one request to the next. All
reads have the deadline. One thread at a time.
"""

import asyncio
import contextlib
import http.client
import io
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import aiohttp
import h11
import httpx
import urllib3

from tests.clients.asking import Answer, Ask, BrokenError, Visitor, lowered
from tests.clients.curl import Curl
from tests.served import DEADLINE


class Httpx:
    """httpx, which speaks HTTP/1.1 by h11."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=f"http://{address}", timeout=DEADLINE, trust_env=False)

    def ask(self, *asks: Ask) -> list[Answer]:
        """Make requests one after another."""
        return [self._ask(ask) for ask in asks]

    def _ask(self, ask: Ask) -> Answer:
        content = ask.body if ask.pieces is None else iter(ask.pieces)
        try:
            response = self._client.request(
                ask.method,
                ask.path,
                headers=ask.headers,
                content=content,
                follow_redirects=ask.follow,
            )
        except httpx.TransportError as error:
            raise BrokenError(repr(error)) from error
        return Answer(response.status_code, lowered(response.headers.items()), response.content)

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Return the body of a path piece by piece."""
        with self._client.stream("GET", path) as response:
            yield self._pieces(response)

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_raw()
        except httpx.TransportError as error:
            raise BrokenError(repr(error)) from error

    def close(self) -> None:
        """End what is open."""
        self._client.close()


async def one_by_one(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Return the pieces of a body to a client that awaits them."""
    for piece in pieces:
        yield piece


class Aiohttp:
    """aiohttp, on an event loop of its own that runs while it is asked for something."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}"
        self._runner = asyncio.Runner()
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def _session(self, version: str = "1.1") -> aiohttp.ClientSession:
        session = self._sessions.get(version)
        if session is None:
            spoken = aiohttp.HttpVersion11 if version == "1.1" else aiohttp.HttpVersion10
            timeout = aiohttp.ClientTimeout(total=DEADLINE)
            session = aiohttp.ClientSession(self._url, version=spoken, timeout=timeout)
            self._sessions[version] = session
        return session

    def ask(self, *asks: Ask) -> list[Answer]:
        """Make requests one after another."""
        return [self._runner.run(self._ask(ask)) for ask in asks]

    async def _ask(self, ask: Ask) -> Answer:
        asks_first = ask.headers.get("Expect") == "100-continue"
        body = None if ask.body is None else io.BytesIO(ask.body)
        session = await self._session(ask.version)
        try:
            async with session.request(
                ask.method,
                ask.path,
                expect100=asks_first,
                headers={} if asks_first else ask.headers,
                data=body if ask.pieces is None else one_by_one(ask.pieces),
                allow_redirects=ask.follow,
            ) as response:
                data = await response.read()
                return Answer(response.status, lowered(response.headers.items()), data)
        except aiohttp.ClientError as error:
            raise BrokenError(repr(error)) from error

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Return the body of a path piece by piece."""

        async def begin() -> aiohttp.ClientResponse:
            return await (await self._session()).get(path)

        response = self._runner.run(begin())
        try:
            yield self._pieces(response)
        finally:
            response.close()

    def _pieces(self, response: aiohttp.ClientResponse) -> Iterator[bytes]:
        try:
            while piece := self._runner.run(response.content.readany()):
                yield piece
        except aiohttp.ClientError as error:
            raise BrokenError(repr(error)) from error

    def close(self) -> None:
        """End what is open."""

        async def closing() -> None:
            for session in self._sessions.values():
                await session.close()
            # One that has more to send than the server takes would outlive the loop.
            for transport in list(asyncio.get_running_loop()._transports.values()):  # type: ignore[attr-defined]
                if transport.get_extra_info("socket").fileno() >= 0:
                    transport.abort()
            await asyncio.sleep(0)

        self._runner.run(closing())
        self._runner.close()


class Urllib3:
    """urllib3, with a pool of one connection."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._pool = urllib3.HTTPConnectionPool(
            host, int(port), maxsize=1, block=True, timeout=DEADLINE
        )

    def ask(self, *asks: Ask) -> list[Answer]:
        """Make requests one after another."""
        return [self._ask(ask) for ask in asks]

    def _ask(self, ask: Ask) -> Answer:
        try:
            response = self._pool.request(
                ask.method,
                ask.path,
                headers=ask.headers,
                body=ask.body if ask.pieces is None else ask.pieces,
                chunked=ask.pieces is not None,
                redirect=ask.follow,
                retries=urllib3.Retry(3, connect=0, read=0) if ask.follow else False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise BrokenError(repr(error)) from error
        return Answer(response.status, lowered(response.headers.items()), response.data)

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Return the body of a path piece by piece."""
        response = self._pool.request("GET", path, preload_content=False, retries=False)
        try:
            yield self._pieces(response)
        finally:
            response.close()
            response.release_conn()

    def _pieces(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(65536)
        except urllib3.exceptions.HTTPError as error:
            raise BrokenError(repr(error)) from error

    def close(self) -> None:
        """End what is open."""
        self._pool.close()


class HttpClient:
    """``http.client``: one connection, opened again when the server has closed it."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)

    def ask(self, *asks: Ask) -> list[Answer]:
        """Make requests one after another."""
        return [self._ask(ask) for ask in asks]

    def _ask(self, ask: Ask) -> Answer:
        body = ask.body if ask.pieces is None else ask.pieces
        try:
            self._connection.request(ask.method, ask.path, body, ask.headers)
            response = self._connection.getresponse()
            data = response.read()
        except (http.client.HTTPException, OSError) as error:
            self._connection.close()
            raise BrokenError(repr(error)) from error
        return Answer(response.status, lowered(response.getheaders()), data)

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Return the body of a path piece by piece."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        try:
            yield self._pieces(response)
        finally:
            if not response.isclosed():
                response.close()
                self._connection.close()

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while piece := response.read1(65536):
                yield piece
        except (http.client.HTTPException, OSError) as error:
            raise BrokenError(repr(error)) from error

    def close(self) -> None:
        """End what is open."""
        self._connection.close()


class H11:
    """h11 over a bare socket; strict about what it is sent, and it waits for 100 Continue."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._host = address
        self._socket: socket.socket | None = None
        self._state: h11.Connection

    def ask(self, *asks: Ask) -> list[Answer]:
        """Make requests one after another."""
        return [self._ask(ask) for ask in asks]

    def _ask(self, ask: Ask) -> Answer:
        try:
            self._send_head(ask)
            interim: list[int] = []
            if "Expect" in ask.headers:
                event = self._next()
                if isinstance(event, h11.Response):  # the body is not wanted
                    return self._answer(event, interim)
                assert isinstance(event, h11.InformationalResponse)
                interim.append(event.status_code)
            for piece in [ask.body or b""] if ask.pieces is None else ask.pieces:
                self._send(h11.Data(data=piece))
            self._send(h11.EndOfMessage())
            event = self._next()
            while isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
                event = self._next()
            assert isinstance(event, h11.Response)
            return self._answer(event, interim)
        except (h11.RemoteProtocolError, OSError) as error:
            self.close()
            raise BrokenError(repr(error)) from error

    def _send_head(self, ask: Ask) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, DEADLINE)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._state = h11.Connection(h11.CLIENT)
        headers = {"Host": self._host, **ask.headers}
        if ask.pieces is not None:
            headers["Transfer-Encoding"] = "chunked"
        elif ask.body is not None:
            headers["Content-Length"] = str(len(ask.body))
        self._send(h11.Request(method=ask.method, target=ask.path, headers=list(headers.items())))

    def _send(self, event: h11.Event) -> None:
        assert self._socket is not None
        data = self._state.send(event)
        if data:
            self._socket.sendall(data)

    def _next(self) -> h11.Event:
        assert self._socket is not None
        while (event := self._state.next_event()) is h11.NEED_DATA:
            self._state.receive_data(self._socket.recv(65536))
        assert not isinstance(event, type)  # not PAUSED: nothing comes that was not asked for
        return event

    def _answer(self, head: h11.Response, interim: list[int]) -> Answer:
        headers = lowered((name.decode(), value.decode("latin-1")) for name, value in head.headers)
        answer = Answer(head.status_code, headers, b"".join(self._pieces()), interim)
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        else:
            self.close()
        return answer

    def _pieces(self) -> Iterator[bytes]:
        try:
            while not isinstance(event := self._next(), h11.EndOfMessage):
                assert isinstance(event, h11.Data)
                yield bytes(event.data)
        except (h11.RemoteProtocolError, OSError) as error:
            self.close()
            raise BrokenError(repr(error)) from error

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Return the body of a path piece by piece."""
        self._send_head(Ask(path))
        self._send(h11.EndOfMessage())
        assert isinstance(self._next(), h11.Response)
        yield self._pieces()
        self.close()

    def close(self) -> None:
        """End what is open."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


Introduce = Callable[[str], Visitor]
"""Makes a visitor of the server at an address."""

VISITORS: dict[str, Introduce] = {
    "curl": Curl,
    "httpx": Httpx,
    "aiohttp": Aiohttp,
    "urllib3": Urllib3,
    "http.client": HttpClient,
    "h11": H11,
}
