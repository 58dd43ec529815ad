"""Where the status page listens: on the loopback, or on a Unix socket; elsewhere with a token.

The server opens it, and the process of the page is sent it. So an address that cannot be listened
on is told at the start, and who asks while that process is started again waits, and is answered.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable
from time import monotonic, sleep
from typing import Final

from bide.errors import BindError, SettingError
from bide.settings import Settings
from bide.transports.addresses import described, inode_of, listen, parse_address, remove_path

MODE: Final = 0o600
"""The rights of a Unix socket: its owner alone may connect."""
SECONDS: Final = 2.0
"""Seconds for which an address may still be in use. The page of a server that was killed ends only
a moment after it."""
AGAIN: Final = 0.05


class Place:
    """The sockets on which the status page listens.

    Args:
        settings: ``status`` and ``status_token``; the former is not empty.

    Attributes:
        sockets: those that listen.
    """

    def __init__(self, settings: Settings) -> None:
        self._address = parse_address(settings.status)
        self._settings = settings
        self._inode: int | None = None
        self.sockets: list[socket.socket] = []

    @property
    def urls(self) -> str:
        """Where it is, for the log."""
        return ", ".join(
            each if each.startswith("unix:") else f"http://{each}/"
            for each in map(described, self.sockets)
        )

    def open(self, seconds: float | None = None) -> None:
        """Listen.

        Args:
            seconds: how long to try while the address is in use; None: as long as is usual.

        Raises:
            BindError: the address cannot be listened on.
            SettingError: it can be reached from other machines, and there is no token.
        """
        until = monotonic() + (SECONDS if seconds is None else seconds)
        while True:
            try:
                self.sockets = listen(self._address, mode=MODE)
                break
            except BindError as error:
                in_use = getattr(error.__cause__, "errno", 0) == errno.EADDRINUSE
                if not in_use or monotonic() >= until:
                    raise BindError(f"the status page: {error}") from error
            sleep(AGAIN)
        if self._address.path:
            self._inode = inode_of(self._address.path)
        try:
            check_reach(self._settings, self.sockets)
        except SettingError:
            self.remove()
            self.close_here()
            raise

    def close_here(self) -> None:
        """Close the sockets in this process; others may have them."""
        for each in self.sockets:
            each.close()
        self.sockets = []

    def remove(self) -> None:
        """Remove the file of a Unix socket; before that is closed, so that it is known."""
        inode, self._inode = self._inode, None
        remove_path(self._address.path, inode)


def check_reach(settings: Settings, sockets: Iterable[socket.socket]) -> None:
    """Raise SettingError if other machines can reach the page, and there is no token."""
    if not settings.status_token and not all(map(_is_loopback, sockets)):
        raise SettingError(
            f"status is {settings.status}, which other machines can reach: give it a token "
            "(BIDE_STATUS_TOKEN, or status-token in a file), or listen on 127.0.0.1"
        )


def _is_loopback(sock: socket.socket) -> bool:
    if sock.family == socket.AF_UNIX:
        return True
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback
