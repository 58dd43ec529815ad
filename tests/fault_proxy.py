"""A TCP proxy that makes faults: it stands between a client and a server, and harms what passes.

It runs in a thread of its own. What it does to either direction is said when it is made, and
counted in bytes, so that a fault strikes at the same place each time; what is to strike in a
certain state of the server is called for by the test. It knows nothing of HTTP.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

READ_SIZE = 64 * 1024
MOST_READS = 16
RESET = struct.pack("ii", 1, 0)
DEADLINE = 20.0
"""Seconds within which the proxy does what it is told."""


@dataclass(frozen=True)
class Fault:
    """What becomes of one direction's bytes once ``after`` of them have passed.

    ``delay`` takes them and keeps them; ``stall`` takes no more; ``drip`` passes ``size`` bytes on
    in a turn, and ``pause`` seconds lie between two turns. These three end with ``release``.
    ``half_close`` ends the direction with a FIN, and the other one goes on; ``cut`` ends both with
    a FIN, and ``reset`` with a RST.
    """

    kind: Literal["delay", "stall", "drip", "half_close", "cut", "reset"]
    after: int = 0
    size: int = 1
    pause: float = 0.0


class Pair:
    """A client's connection to the proxy, and the proxy's to the server; on the proxy's loop."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def finish(self, how: str) -> None:
        """Have both connections end by ``cut`` or ``reset``; the first word counts."""
        if not self.end.done():
            self.end.set_result(how)

    def close(self) -> None:
        """Close both descriptors."""
        how = self.end.result() if self.end.done() and not self.end.cancelled() else "cut"
        for each in (self.near, self.far):
            if how == "reset":
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                # What was not read would have the kernel send a RST behind the FIN. Bounded, for
                # who sends without end would keep it here.
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_WR)
                    for _ in range(MOST_READS):
                        if not each.recv(READ_SIZE):
                            break
            each.close()


class FaultProxy:
    """A running proxy; ``with FaultProxy(served.address, up=Fault("reset", after=20)) as proxy:``.

    Its methods are for other threads than its own. With the block every connection, its listener
    and its thread end.

    Args:
        target: the server's address, ``HOST:PORT``.
        up: what becomes of what the client sends.
        down: what becomes of what the server sends.
        window: bytes that the proxy's kernel takes of the server beyond what the proxy reads, so
            that a stalled reader is soon noticed; 0: the system's.

    Attributes:
        address: where it listens.
    """

    def __init__(
        self, target: str, up: Fault | None = None, down: Fault | None = None, window: int = 0
    ) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._up = up
        self._down = down
        self._window = window
        self._pairs: set[Pair] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._accept())
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # For the test -------------------------------------------------------------------------------

    def release(self) -> None:
        """End delays, stalls and drips, those to come as well: all passes as it comes."""
        self._loop.call_soon_threadsafe(self._released.set)

    def half_close(self) -> None:
        """End what clients send, with a FIN to the server; what it sends passes on."""
        self._call(lambda pair: pair.far.shutdown(socket.SHUT_WR))

    def cut(self) -> None:
        """End all connections with a FIN to either side."""
        self._call(lambda pair: pair.finish("cut"))

    def reset(self) -> None:
        """End all connections with a RST to either side."""
        self._call(lambda pair: pair.finish("reset"))

    def close(self) -> None:
        """End everything that is the proxy's, once; connections that are left with a FIN."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the proxy did not end"

    def _call(self, function: Callable[[Pair], None]) -> None:
        """Call a function for each pair; returns when that is done."""

        async def calling() -> None:
            for pair in self._pairs:
                function(pair)

        asyncio.run_coroutine_threadsafe(calling(), self._loop).result(DEADLINE)

    # On its own thread --------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.close()

    async def _accept(self) -> None:
        try:
            while True:
                near, _ = await self._loop.sock_accept(self._listener)
                pair = Pair(near, socket.socket())
                self._pairs.add(pair)
                relay = self._loop.create_task(self._relay(pair))
                self._relays.add(relay)
                relay.add_done_callback(self._relays.discard)
        finally:
            self._listener.close()
            for each in self._pairs:
                each.finish("cut")
            if self._relays:
                await asyncio.wait(self._relays)

    async def _relay(self, pair: Pair) -> None:
        near, far = pair.near, pair.far
        pumps: set[asyncio.Task[None]] = set()
        try:
            for each in (near, far):
                each.setblocking(False)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._window:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._window)
            try:
                await self._loop.sock_connect(far, self._target)
            except OSError:
                pair.finish("reset")
                return
            for way in ((near, far, self._up), (far, near, self._down)):
                pump = self._loop.create_task(self._pump(pair, *way))
                pumps.add(pump)
                pump.add_done_callback(lambda _: self._mind_end(pair, pumps))
            await pair.end
        finally:
            self._pairs.discard(pair)
            for pump in pumps:
                pump.cancel()
            if pumps:
                await asyncio.wait(pumps)
            pair.close()

    def _mind_end(self, pair: Pair, pumps: set[asyncio.Task[None]]) -> None:
        if all(each.done() for each in pumps):
            pair.finish("cut")

    async def _pump(
        self, pair: Pair, source: socket.socket, target: socket.socket, fault: Fault | None
    ) -> None:
        """Carry one direction, to its end or its fault."""
        try:
            if fault is not None:
                if not await self._pass(source, target, fault.after):
                    target.shutdown(socket.SHUT_WR)
                    return
                if fault.kind in ("cut", "reset"):
                    pair.finish(fault.kind)
                    return
                if fault.kind == "half_close":
                    target.shutdown(socket.SHUT_WR)
                    return
                if fault.kind == "delay":
                    await self._delay(source, target)
                elif fault.kind == "drip":
                    await self._drip(source, target, fault)
                else:
                    await self._released.wait()
            await self._pass(source, target, None)
            target.shutdown(socket.SHUT_WR)
        except OSError:  # one of the two has gone: so has the other
            pair.finish("reset")

    async def _pass(self, source: socket.socket, target: socket.socket, count: int | None) -> bool:
        """Carry ``count`` bytes, or all; false when the source ends before."""
        left = count
        while left is None or left > 0:
            data = await self._loop.sock_recv(source, READ_SIZE if left is None else left)
            if not data:
                return False
            await self._loop.sock_sendall(target, data)
            if left is not None:
                left -= len(data)
        return True

    async def _delay(self, source: socket.socket, target: socket.socket) -> None:
        """Take what comes and keep it until the release; the end is found again behind it."""
        kept = bytearray()
        released = self._loop.create_task(self._released.wait())
        read = None
        try:
            while not released.done():
                read = self._loop.create_task(self._loop.sock_recv(source, READ_SIZE))
                await asyncio.wait({read, released}, return_when=asyncio.FIRST_COMPLETED)
                if read.done():
                    if not read.result():
                        break
                    kept += read.result()
            await released
        finally:
            left = [each for each in (read, released) if each is not None]
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await self._loop.sock_sendall(target, kept)

    async def _drip(self, source: socket.socket, target: socket.socket, fault: Fault) -> None:
        """Carry a little in each turn until the release, or the source's end."""
        while not self._released.is_set():
            data = await self._loop.sock_recv(source, fault.size)
            if not data:
                return
            await self._loop.sock_sendall(target, data)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._released.wait(), fault.pause)
