"""Addresses to listen on: ``HOST:PORT``, ``[IPv6]:PORT``, ``unix:PATH``, ``unix:@NAME``."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
from dataclasses import dataclass
from typing import Any, Final

from bide.errors import BindError, SettingError
from bide.settings import DEFAULTS
from bide.transports.handed_over import HandedOver

BACKLOG: Final = DEFAULTS.backlog
MODE: Final = int(DEFAULTS.socket_mode, 8)
"""The rights of a Unix socket; a client needs the right to write."""
NOTHING: Final = HandedOver()
LONGEST: Final = 107
"""Bytes of a Unix socket's path that Linux takes; other systems take 103."""
TRIES: Final = 10
"""How many free ports are tried, each of which may be in use on another address of the host."""

_NAME: Final = re.compile(r"[^\s:/\[\]]+")
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
    """Parse an address; raise SettingError, with an example, for a malformed one."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise SettingError("the address 'unix:' has no path: write unix:/run/bide.sock")
        if path.startswith("@") and (sys.platform != "linux" or path == "@"):
            raise SettingError(
                f"the address {text!r} is an abstract socket, which needs a name, and Linux: "
                f"write unix:./{path} for a file"
            )
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    number = port.isascii() and port.isdigit()
    plain = _NAME.fullmatch(host) is not None or not host
    fits = colon and (plain or _is_bracketed(host))
    if not fits or not number or len(port) > 5 or int(port) > 65535:
        raise SettingError(_why_not(text, host, port))
    return Address((host if plain else host[1:-1]) or "0.0.0.0", int(port))


def _why_not(text: str, host: str, port: str) -> str:
    """Return what is wrong with the address of a TCP socket, and what to write."""
    scheme, url, rest = text.partition("://")
    if url:
        there = rest.partition("/")[0] or "127.0.0.1:8000"
        tls = "; for HTTPS give a --certificate, too" if scheme == "https" else ""
        return f"the address {text!r} is a URL: write {there}{tls}"
    if text.startswith(("/", "./", "../")) or text.endswith(".sock"):
        return f"the address {text!r} is a path: write unix:{text}"
    if text.isascii() and text.isdigit():
        return f"the address {text!r} has no host: write 127.0.0.1:{text}"
    # The group behind the last colon may be a port, or the end of the address.
    if is_ipv6(host) or is_ipv6(text):
        whole = f"[{host}]:{port}" if is_ipv6(host) else f"[{text}]:8000"
        return f"the address {text!r} needs brackets for IPv6: write {whole}"
    alone = text.removesuffix(":")
    if _NAME.fullmatch(alone) or _is_bracketed(alone):
        return f"the address {text!r} has no port: write {alone}:8000"
    if port and (_NAME.fullmatch(host) or _is_bracketed(host) or text[:1] == ":"):
        return f"the address {text!r} has the port {port!r}: a port is a number from 0 to 65535"
    return (
        f"{text!r} is not an address: write HOST:PORT, [IPv6]:PORT or unix:PATH, "
        "for example 127.0.0.1:8000"
    )


def _is_bracketed(host: str) -> bool:
    return host.startswith("[") and host.endswith("]") and is_ipv6(host[1:-1])


def is_ipv6(host: str) -> bool:
    """Whether a host is an IPv6 address, perhaps with its zone: ``fe80::1%eth0``."""
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return False
    return True


def listen(
    address: Address,
    backlog: int = BACKLOG,
    mode: int = MODE,
    alone: bool = False,
    handed_over: HandedOver = NOTHING,
) -> list[socket.socket]:
    """Open non-blocking listening sockets, one for each IP address that the host has.

    Args:
        address: where.
        backlog: connections that may wait to be accepted.
        mode: the rights of a Unix socket.
        alone: whether ``[::]`` leaves IPv4 out, since another address listens on that.
        handed_over: those that listen already, which are taken where they are at the address.

    Raises:
        BindError: the address cannot be listened on; one line says why and what to do.
    """
    try:
        if address.path:
            return [_listen_unix(address.path, backlog, mode, handed_over)]
        return _listen_tcp(address, backlog, alone, handed_over)
    except OSError as error:
        raise BindError(f"cannot listen on {address}: {_explain(error)}") from error
    except UnicodeError as error:  # a label of the name is empty, or longer than 63 bytes
        raise BindError(f"cannot listen on {address}: this is not a host name") from error


def _listen_tcp(
    address: Address, backlog: int, alone: bool, handed_over: HandedOver
) -> list[socket.socket]:
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
            return _listen_to_all(address, found, backlog, handed_over)
        except OSError as error:
            # A free port of the first address may be taken on the second.
            if address.port or error.errno != errno.EADDRINUSE:
                raise
    return _listen_to_all(address, found, backlog, handed_over)


def _listen_to_all(
    address: Address, found: list[Any], backlog: int, handed_over: HandedOver
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, where in dict.fromkeys(found):  # a hosts file may say it twice
            if address.port == 0 and sockets:  # all of one name on the same free port
                where = (where[0], sockets[0].getsockname()[1], *where[2:])
            try:
                there = handed_over.take(family, where)
                sockets.append(there or _listen_to(family, where, backlog))
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


def _listen_to(
    family: int, where: tuple[Any, ...], backlog: int, joins: bool = False
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if joins:
            let_join(sock)
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


def let_join(listener: socket.socket) -> None:
    """Let other sockets :func:`join` one.

    Called when it listens: before, it would join the socket of another server on this address.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def join(listener: socket.socket, backlog: int = BACKLOG) -> socket.socket:
    """Open another listening socket on a TCP socket's address: each gets its part of the clients.

    Linux shares them out by a hash of the client's address and port.

    Args:
        listener: after :func:`let_join`.
        backlog: connections that may wait to be accepted.
    """
    return _listen_to(listener.family, listener.getsockname(), backlog, joins=True)


def _listen_unix(path: str, backlog: int, mode: int, handed_over: HandedOver) -> socket.socket:
    there = handed_over.take(socket.AF_UNIX, f"\0{path[1:]}" if path.startswith("@") else path)
    if there is not None:
        return there
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.startswith("@"):
            sock.bind("\0" + path[1:])
        else:
            _bind_path(sock, path)
            os.chmod(path, mode)  # before a client can connect
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
    """Whether a socket was left behind by a process that has ended, so that none accepts on it.

    Raises:
        FileExistsError: it is not a socket; the error says what it is.
    """
    check_place(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def check_place(path: str) -> None:
    """Check that a Unix socket may have a path: at most a socket is there.

    Raises:
        FileExistsError: something else is there; the error says what it is.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        if not os.path.islink(path):
            return
        kind = stat.S_IFLNK
    if kind != stat.S_IFSOCK:
        what = _KINDS.get(kind, "something else")
        other = f"a path in it: unix:{path}/bide.sock" if kind == stat.S_IFDIR else "another path"
        raise FileExistsError(
            errno.EEXIST, f"{what} exists already, and is not removed; choose {other}"
        )


def _explain(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "it is in use; stop the other server, or choose another with --bind"
    if error.errno == errno.EACCES:
        return "permission denied; ports below 1024 and other people's directories need rights"
    if isinstance(error, socket.gaierror):
        return "the host is not known"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; 0.0.0.0 is every one that it has"
    if error.errno == errno.ENOENT:
        return "its directory is not there; make it, or choose another path"
    if error.errno == errno.ENOTDIR:
        return "what it names as its directory is a file; choose another path"
    if "path too long" in str(error):  # Python's own error, without a number
        return f"its path is longer than {LONGEST} bytes; choose a shorter one"
    return error.strerror or str(error)


def inode_of(path: str) -> int | None:
    """Return the number of a Unix socket's file; None if there is none."""
    if path.startswith("@"):  # it has no file
        return None
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def remove_path(path: str, inode: int | None) -> None:
    """Remove a Unix socket's file, unless another server has taken the path.

    Args:
        path: where it is.
        inode: its number when it was made; while the socket is open, no other file can have it.
    """
    if inode is not None and inode_of(path) == inode:
        os.unlink(path)


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
    """Turn TCP keep-alive on for a listener's connections, which inherit it.

    The system asks a client after ``seconds`` of silence. A client that has not answered for half
    as many seconds again counts as gone. Else a request whose client has vanished, without a FIN or
    a reset, would wait for ever. With 0 the system asks no client. Unix sockets need none of this.
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
