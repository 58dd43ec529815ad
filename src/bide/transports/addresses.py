"""Addresses to listen on: ``HOST:PORT``, ``[IPv6]:PORT``, ``unix:PATH``, ``unix:@NAME``."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from dataclasses import dataclass
from typing import Any, Final

from bide.errors import BindError, SettingError
from bide.settings import DEFAULTS

BACKLOG: Final = DEFAULTS.backlog
MODE: Final = int(DEFAULTS.socket_mode, 8)
"""The rights of a Unix socket: who connects needs the right to write."""
LONGEST: Final = 107
"""Bytes of a Unix socket's path that Linux takes; other systems take 103."""
TRIES: Final = 10
"""How many free ports are tried, each of which may be in use on another address of the host."""

# A name may have addresses that this machine lacks: localhost's ::1 in a container without IPv6.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a host and a port (0: a free one), or the path of a Unix socket.

    A path that begins with ``@`` names an abstract socket, which has no file (Linux).
    """

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read an address; raises SettingError, which says what one looks like."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise SettingError("the address 'unix:' has no path: write unix:/run/bide.sock")
        if path.startswith("@") and (sys.platform != "linux" or path == "@"):
            raise SettingError(
                f"the address {text!r} is an abstract socket's, which has a name and is there on "
                f"Linux only: write unix:./{path} for a file"
            )
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise SettingError(f"the address {text!r} needs brackets for IPv6: write [{host}]:{port}")
    number = port.isascii() and port.isdigit() and len(port) <= 5
    if not colon or not number or int(port) > 65535:
        raise SettingError(
            f"{text!r} is no address: write HOST:PORT, [IPv6]:PORT or unix:PATH, "
            "for example 127.0.0.1:8000"
        )
    return Address(host or "0.0.0.0", int(port))


def listen(
    address: Address, backlog: int = BACKLOG, mode: int = MODE, alone: bool = False
) -> list[socket.socket]:
    """Open non-blocking listening sockets, one for each IP address that the host has.

    Args:
        address: where.
        backlog: connections that may wait to be accepted.
        mode: the rights of a Unix socket.
        alone: whether ``[::]`` leaves IPv4 out, since that is listened on by another address.

    Raises:
        BindError: the address cannot be listened on; one line says why and what to do.
    """
    try:
        if address.path:
            return [_listen_unix(address.path, backlog, mode)]
        return _listen_tcp(address, backlog, alone)
    except OSError as error:
        raise BindError(f"cannot listen on {address}: {_explain(error)}") from error
    except UnicodeError as error:  # a label of the name is empty, or longer than 63 bytes
        raise BindError(f"cannot listen on {address}: this is no host's name") from error


def _listen_tcp(address: Address, backlog: int, alone: bool) -> list[socket.socket]:
    hosts = [address.host]
    if address.host == "::" and not alone:
        # Not one socket for both: IPv4 clients would have addresses like ::ffff:192.0.2.1 there.
        hosts.append("0.0.0.0")
    found = [
        each
        for host in hosts
        for each in socket.getaddrinfo(
            host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    ]
    for _ in range(TRIES - 1):
        try:
            return _listen_to_all(address, found, backlog)
        except OSError as error:
            # A free port of the first address may be taken on the second.
            if address.port or error.errno != errno.EADDRINUSE:
                raise
    return _listen_to_all(address, found, backlog)


def _listen_to_all(address: Address, found: list[Any], backlog: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, where in dict.fromkeys(found):  # a hosts file may say it twice
            if address.port == 0 and sockets:  # all of one name on the same free port
                where = (where[0], sockets[0].getsockname()[1], *where[2:])
            try:
                sockets.append(_listen_to(family, where, backlog))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listen_to(family: int, where: tuple[Any, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.setblocking(False)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_unix(path: str, backlog: int, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.startswith("@"):
            sock.bind("\0" + path[1:])
        else:
            _bind_path(sock, path)
            os.chmod(path, mode)  # before anybody can connect
        sock.setblocking(False)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_path(sock: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) > LONGEST:
        path = os.path.relpath(path)  # which may be short enough
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_stale(path):
            raise
        os.unlink(path)
        sock.bind(path)


_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link that leads nowhere",
}


def _is_stale(path: str) -> bool:
    """Whether a socket was left behind by a process that has ended: nobody accepts on it.

    Raises:
        FileExistsError: it is not a socket; the error says what it is.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    if kind != stat.S_IFSOCK:
        what = _KINDS.get(kind, "something else")
        raise FileExistsError(
            errno.EEXIST, f"{what} is there, and is left alone; choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def _explain(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "it is in use; stop the other server, or choose another with --bind"
    if error.errno == errno.EACCES:
        return "permission denied; ports below 1024 and other people's directories need rights"
    if isinstance(error, socket.gaierror):
        return "the host is not known"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return error.strerror or str(error)


def described(sock: socket.socket) -> str:
    """Return a listening socket's address as it may be written for ``--bind``."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        if isinstance(name, bytes):  # an abstract one's begins with a zero byte
            name = "@" + os.fsdecode(name[1:])
        return f"unix:{name}"
    return str(Address(name[0], name[1]))


PROBES: Final = 3
"""How many times a silent client is asked before it counts as gone."""


def keep_alive(listener: socket.socket, seconds: int) -> None:
    """Have the system ask whether silent clients are there; a listener's connections inherit it.

    A client is asked after so many seconds of silence. It counts as gone when it has not answered
    for half as many again. Otherwise a request would wait for ever whose client has vanished
    without a FIN or a reset. With 0 nobody is asked. Unix sockets need none of it.
    """
    if not seconds or listener.family == socket.AF_UNIX:
        return
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    values = {
        "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": min(seconds, 32767),
        "TCP_KEEPINTVL": max(1, min(seconds, 32767) // (2 * PROBES)),
        "TCP_KEEPCNT": PROBES,
    }
    for name, value in values.items():
        option = getattr(socket, name, None)
        if option is not None:  # else the system's own figures count
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
