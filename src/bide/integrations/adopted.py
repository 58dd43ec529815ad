"""Libraries that a server serves without being asked, where the application has imported them.

They look for what only other servers have, or take a thread for each client. So without this they
do not work under Bide, or hold its threads.
"""

from __future__ import annotations

import sys


def adopt() -> None:
    """Have these libraries use Bide's WebSockets, queues and background work.

    Repeated calls do no harm.
    """
    if "simple_websocket" in sys.modules:
        from bide.integrations import simple_websocket

        simple_websocket.install()
    if "engineio.async_drivers.threading" in sys.modules:
        from bide.integrations import engineio

        engineio.install()
