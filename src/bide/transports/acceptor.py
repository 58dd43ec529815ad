"""Listening sockets, and when new connections are accepted from them; all of it on the loop.

What cannot be accepted now waits in the sockets' backlog, where it costs the server nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from bide.errors import BindError
from bide.systems import refuse_windows
from bide.transports.addresses import (
    MODE,
    NOTHING,
    Address,
    described,
    inode_of,
    keep_alive,
    listen,
    remove_path,
)
from bide.transports.closing import end
from bide.transports.handed_over import HandedOver

log = logging.getLogger("bide")

ACCEPTS: Final = 64
"""Connections accepted in one turn of the loop, so that those that are there get their turn."""
BACKLOG: Final = 65_536
"""Connections that one listener may have in its backlog, more than any system's default allows."""
PAUSE: Final = 1.0
"""Seconds after which accepting is tried again when the system had nothing left to accept with."""
QUIET: Final = 60.0
"""Seconds after the end of some trouble for which the same is not logged again."""

_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def _nothing() -> None:
    pass


Name = tuple[str, int] | None  # host and port; a Unix socket has none
_ABSENT: Final[Name] = ("", -1)
Accepted = Callable[[socket.socket, Name, Name], None]


class Acceptor:
    """Accepts connections while there is room for them.

    Args:
        accepted: takes a new, non-blocking socket, with the host and port of its listener and of
            the client; both strings of the client's are empty on a Unix socket.
        limit: how many connections there may be. Whoever owns one calls :meth:`left` at its end.
        keepalive: seconds of silence after which the system asks whether a client is still there,
            as :attr:`bide.Settings.tcp_keepalive`; 0: it does not.
        waited: called for each that is accepted after it has waited for others to end.
        pause: seconds after which accepting is tried again when the system had nothing left to
            accept with.
    """

    def __init__(
        self,
        accepted: Accepted,
        limit: int,
        keepalive: int = 0,
        waited: Callable[[], None] = _nothing,
        pause: float = PAUSE,
    ) -> None:
        self._keepalive = keepalive
        self._pause = pause
        self._accepted = accepted
        self._waited = waited
        self._crowd = False  # since the limit was reached, the backlog was never empty
        self._limit = limit
        self._loop: asyncio.AbstractEventLoop
        self._listeners: dict[socket.socket, Name] = {}
        self._ended: set[socket.socket] = set()  # those that nobody else has
        self._polite: set[socket.socket] = set()  # those that other processes accept from, too
        self._paths: dict[socket.socket, tuple[str, int | None]] = {}  # Unix: path and inode
        self._connections = 0
        self._watching = False
        self._resumption: asyncio.TimerHandle | None = None
        self._full = False  # as many connections as there may be
        self._quiet: dict[str, float] = {}  # trouble → until when it is not logged again

    @property
    def crowded(self) -> bool:
        """Whether new connections wait until others end."""
        return not self._watching

    @property
    def addresses(self) -> list[str]:
        """The addresses that it listens on, each as for ``--bind``."""
        return [
            f"unix:{self._paths[each][0]}" if each in self._paths else described(each)
            for each in self._listeners
        ]

    @property
    def listeners(self) -> list[socket.socket]:
        """The listening sockets."""
        return list(self._listeners)

    def open(
        self,
        addresses: list[Address],
        backlog: int,
        mode: int = MODE,
        handed_over: HandedOver = NOTHING,
    ) -> None:
        """Listen; nothing is accepted before :meth:`start`.

        Args:
            addresses: where; ``[::]`` is IPv4 too, unless another address has the same port.
            backlog: connections that may wait to be accepted.
            mode: the rights of Unix sockets.
            handed_over: those that listen already. They are taken for their addresses, and the
                rest of them is adopted.

        Raises:
            BindError: an address cannot be listened on; then none is.
            StartError: no server can run on this system.
        """
        refuse_windows()
        try:
            for address in addresses:
                ports = [each.port for each in addresses if not each.path and each.port]
                alone = ports.count(address.port) > 1
                for listener in listen(address, backlog, mode, alone, handed_over):
                    if listener in handed_over:
                        self.adopt([listener])
                        continue
                    self._listeners[listener] = _name(listener)
                    keep_alive(listener, self._keepalive)
                    self._ended.add(listener)
                    if listener.family == socket.AF_UNIX:
                        self._paths[listener] = (address.path, inode_of(address.path))
        except BindError:
            self.close()
            raise
        self.adopt(handed_over.take_rest())

    def adopt(
        self, listeners: Iterable[socket.socket], ends: bool = False, polite: bool = False
    ) -> None:
        """Accept from sockets that were opened elsewhere; also once it has started.

        Args:
            listeners: the sockets.
            ends: whether :meth:`close` ends them for all processes. Else it closes them here, and
                other processes that have them may go on with them.
            polite: whether to accept one connection in each turn of the loop, since processes
                that have fewer accept from them, too.
        """
        for listener in listeners:
            listener.setblocking(False)
            keep_alive(listener, self._keepalive)
            self._listeners[listener] = _name(listener)
            if ends:
                self._ended.add(listener)
            if polite:
                self._polite.add(listener)
            if self._watching:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

    def leave(self, listeners: Iterable[socket.socket]) -> None:
        """Accept no more from some sockets, and close them here; another process has them."""
        for listener in listeners:
            if self._listeners.pop(listener, _ABSENT) is _ABSENT:
                continue  # it is closed already
            if self._watching:
                self._loop.remove_reader(listener.fileno())
            self._ended.discard(listener)
            self._polite.discard(listener)
            listener.close()

    def leave_open(self) -> None:
        """Have the listeners outlive this: others have them too, and go on with them.

        :meth:`close` closes them here, and no more.
        """
        self._ended.clear()
        self._paths.clear()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to accept, on the running loop."""
        self._loop = loop
        self._watch()

    def accept_waiting(self) -> bool:
        """Accept all that has connected already: closing the listeners would reset it.

        Called before ``close``. From now on nothing else is accepted. The limit does not count
        here: what waits is bounded by the backlog.

        Return whether that was all. If not, the system has nothing left to accept with: call this
        again when other connections have ended.
        """
        self._unwatch()
        return all(self._empty(listener) for listener in self._listeners)

    def _empty(self, listener: socket.socket) -> bool:
        for _ in range(BACKLOG):
            try:
                if not self._accept_one(listener):
                    return True
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    return False
                log.error("accept failed: %s", error)  # of one connection, which is dropped
        return True  # more come as fast as they are taken: it would never end

    def close(self) -> None:
        """Stop listening, and remove the paths of Unix sockets."""
        self._unwatch()
        if self._resumption is not None:
            self._resumption.cancel()
        for listener in self._listeners:
            path, own = self._paths.get(listener, ("", None))
            remove_path(path, own)
            if listener in self._ended:
                end(listener)  # a forked child's copy would take connections and never accept them
            else:
                listener.close()
        self._listeners = {}
        self._ended = set()
        self._polite = set()
        self._paths = {}

    def after_fork(self) -> None:
        """Close the listeners' descriptors in a forked child; the parent goes on with its own."""
        for listener in self._listeners:
            listener.close()
        self._listeners = {}

    def left(self) -> None:
        """Called when a connection has ended."""
        self._connections -= 1
        if self._full:
            self._full = False
            self._watch()

    def _watch(self) -> None:
        self._watching = True
        for listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        for number in range(1 if listener in self._polite else ACCEPTS):
            if not self._watching:
                return
            if self._connections >= self._limit:
                if number:
                    return  # called again if a client waits
                self._full = self._crowd = True
                self._unwatch()
                self._report(
                    f"all {self._limit} connections are in use: new ones wait until others end "
                    "(--limit-connections)"
                )
                return
            try:
                if not self._accept_one(listener):
                    return
            except OSError as error:
                self._fail(error)
                return

    def _accept_one(self, listener: socket.socket) -> bool:
        """Accept a connection; return false when none waits. Raises OSError when it cannot."""
        try:
            sock, client = listener.accept()
        except ConnectionAbortedError:  # this client has left; others may wait
            return True
        except (BlockingIOError, InterruptedError):
            self._crowd = False
            return False
        if self._crowd:
            self._waited()
        sock.setblocking(False)
        name: Name = None
        if sock.family != socket.AF_UNIX:
            name = (_unmapped(client[0]), client[1])
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:  # on some systems, when the client has left already
                sock.close()
                return True
        self._connections += 1
        self._accepted(sock, self._listeners[listener], name)
        return True

    def _fail(self, error: OSError) -> None:
        if error.errno not in _EXHAUSTED:
            log.error("accept failed: %s", error)
            return
        # The listeners stay readable, and would be tried for ever.
        self._unwatch()
        self._report(f"no connections can be accepted for now: {error.strerror}")
        self._resumption = self._loop.call_later(self._pause, self._watch)

    def _report(self, trouble: str) -> None:
        now = monotonic()
        if now >= self._quiet.get(trouble, 0.0):
            log.error("%s", trouble)
        self._quiet[trouble] = now + QUIET


def _unmapped(host: str) -> str:
    """Return the address of a client of IPv4 as IPv4's, also on a socket that is for both."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def _name(listener: socket.socket) -> Name:
    if listener.family == socket.AF_UNIX:
        return None
    host, port = listener.getsockname()[:2]
    return (host, port)
