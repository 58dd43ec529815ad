"""In systemd's place: a socket that a server tells what becomes of it, and what starts it."""

import os
import socket

from tests.served import DEADLINE

HANDING_OVER = """
import fcntl, os, sys
given = [fcntl.fcntl(int(each), fcntl.F_DUPFD_CLOEXEC, 100) for each in sys.argv[1].split(",")]
for number, each in enumerate(given):
    os.dup2(each, 3 + number)
os.environ |= {"LISTEN_FDS": str(len(given)), "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""
"""A program that runs another as systemd does, with listening sockets from descriptor 3 on."""


class Manager:
    """Is told of a service.

    Args:
        address: the path of its socket, or ``@`` and an abstract one's name; for NOTIFY_SOCKET.

    Attributes:
        kept: the descriptors that it has been given.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.kept: list[int] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.settimeout(DEADLINE)
        self._sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def hear(self) -> dict[str, str]:
        """Return the next message."""
        text, numbers, _, _ = socket.recv_fds(self._sock, 4096, 16)
        self.kept += numbers
        return dict(line.split("=", 1) for line in text.decode().splitlines())

    def hear_until(self, key: str) -> dict[str, str]:
        """Return the next message that has ``key`` in it."""
        while key not in (message := self.hear()):
            pass
        return message

    def close(self) -> None:
        """Drop all."""
        self._sock.close()
        for number in self.kept:
            os.close(number)
