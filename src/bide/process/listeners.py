"""The listening sockets of a server with workers; its supervisor keeps them as long as it lives.

On Linux each slot has a socket of its own on each TCP address, and the system shares the clients
out among them. None is closed while the server lives, since what waits in its backlog would be
lost: where a slot has no worker, another's accepts from its sockets. Unix sockets, those that were
inherited, and those of other systems are shared: all workers accept from them.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from bide.errors import BindError
from bide.settings import Settings
from bide.transports.addresses import (
    NOTHING,
    Address,
    described,
    inode_of,
    join,
    let_join,
    listen,
    parse_address,
    remove_path,
)
from bide.transports.handed_over import HandedOver

SHARED: Final = -1
"""In place of a slot's index: the sockets that all workers accept from."""
INHERITED: Final = "_BIDE_LISTENERS"
"""The variable by which a new version is told which sockets it has."""


class Listeners:
    """The sockets.

    Args:
        settings: where to listen, and how.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots: list[list[socket.socket]] = []
        self.shared: list[socket.socket] = []
        self._paths: dict[str, int | None] = {}  # of Unix sockets, and their inodes
        self.addresses: list[str] = []

    def open(self, handed_over: HandedOver = NOTHING) -> None:
        """Listen.

        Args:
            handed_over: those that listen already. They are shared, and only closed at the end.

        Raises:
            BindError: an address cannot be listened on; then none is.
        """
        settings = self._settings
        addresses = [parse_address(each) for each in settings.bind]
        first: list[socket.socket] = []
        try:
            for address in addresses:
                ports = [each.port for each in addresses if not each.path and each.port]
                alone = ports.count(address.port) > 1
                mode = int(settings.socket_mode, 8)
                for each in listen(address, settings.backlog, mode, alone, handed_over):
                    self._add(each, address, handed_over, first)
        except BindError:
            self._slots = [first]
            self.close()
            raise
        self._slots = [first]
        self._take_others(handed_over)
        for each in handed_over.take_rest():
            self.shared.append(each)
            self.addresses.append(described(each))

    def _add(
        self,
        sock: socket.socket,
        address: Address,
        handed_over: HandedOver,
        first: list[socket.socket],
    ) -> None:
        if address.path:
            self.addresses.append(str(address))
            if sock not in handed_over:
                self._paths[address.path] = inode_of(address.path)
            self.shared.append(sock)
            return
        self.addresses.append(described(sock))
        ours = sock not in handed_over or handed_over.is_own(sock)
        if ours and sys.platform == "linux":  # which shares the clients out
            let_join(sock)
            first.append(sock)
        else:
            self.shared.append(sock)

    def _take_others(self, handed_over: HandedOver) -> None:
        """Take the other slots' sockets, which systemd has kept over a restart."""
        kept = [
            list(iter(partial(handed_over.take, each.family, each.getsockname()), None))
            for each in self._slots[0]
        ]
        for number in range(max(map(len, kept), default=0)):
            self._slots.append(
                [
                    of_one[number] if number < len(of_one) else self._joined(first)
                    for of_one, first in zip(kept, self._slots[0], strict=True)
                ]
            )

    def _joined(self, sock: socket.socket) -> socket.socket:
        return join(sock, self._settings.backlog)

    def leave_open(self) -> None:
        """Have the files of Unix sockets stay at the end: others have the sockets, too."""
        self._paths = {}

    def of(self, slot: int) -> list[socket.socket]:
        """Return the sockets of a slot, which are opened if there are none yet; or of ``SHARED``.

        Raises:
            OSError: they cannot be opened.
        """
        if slot == SHARED:
            return self.shared
        while len(self._slots) <= slot:
            opened: list[socket.socket] = []
            try:
                opened.extend(map(self._joined, self._slots[0]))
            except OSError:
                for each in opened:
                    each.close()
                raise
            self._slots.append(opened)
        return self._slots[slot]

    @property
    def slots(self) -> int:
        """How many slots have sockets."""
        return len(self._slots)

    @property
    def all(self) -> list[socket.socket]:
        """All of them."""
        return [*self.shared, *(each for slot in self._slots for each in slot)]

    def remove_paths(self) -> None:
        """Remove the files of Unix sockets: nobody can connect any more, and nothing is lost."""
        for path, inode in self._paths.items():
            remove_path(path, inode)
        self._paths = {}

    def close(self) -> None:
        """Close the sockets here, and remove the files of Unix sockets."""
        self.remove_paths()
        self.close_here()

    def close_here(self) -> None:
        """Close the sockets in this process alone: in a worker, or where another one goes on."""
        self._paths = {}
        for each in self.all:
            each.close()

    # Handing over to a new version --------------------------------------------------------------

    def inheritable(self) -> tuple[list[int], Mapping[str, Any]]:
        """Return the descriptors that a new version needs, and what it must know of them."""
        return [each.fileno() for each in self.all], {
            "slots": [[each.fileno() for each in slot] for slot in self._slots],
            "shared": [each.fileno() for each in self.shared],
            "paths": self._paths,
            "addresses": self.addresses,
        }

    def inherit(self, told: Mapping[str, Any]) -> None:
        """Take the sockets of the version before, by what :meth:`inheritable` has returned."""
        self._slots = [[_inherited(each) for each in slot] for slot in told["slots"]]
        self.shared = [_inherited(each) for each in told["shared"]]
        self._paths = dict(told["paths"])
        self.addresses = list(told["addresses"])


def _inherited(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    return sock


def told(environ: dict[str, str] | os._Environ[str]) -> Mapping[str, Any] | None:
    """Return what the version before has told this one, once; None if there is none."""
    text = environ.pop(INHERITED, "")
    found: Mapping[str, Any] | None = json.loads(text) if text else None
    return found
