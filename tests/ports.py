"""Ports for programs that must be told one, and for addresses where nobody listens.

The tests run in several processes, in which servers listen on ports that the system chooses. A port
that was the system's choice a moment ago may be its choice for another server now. So these lie
below the system's range, and each is claimed for as long as this process runs.
"""

import random
import socket
from typing import Final

_PORTS: Final = range(12_000, 32_000)
_claims: list[socket.socket] = []


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, and that no other test is given."""
    while True:
        port = random.choice(_PORTS)
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))  # its namesake of UDP stands for it
            with socket.create_server(("127.0.0.1", port)):
                pass
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
