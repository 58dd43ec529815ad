"""Whether other people's event loops leave the server what it runs on.

gevent and eventlet patch modules. Their locks, queues and child processes belong to the loop of one
thread, which does not notice what another thread does to them. Bide's server has an event loop and
lanes, so it would hang. Where waiting blocks (``bide.hosts.wsgi``) they do no harm, and this is not
called. Twisted's reactor must be on the server's loop, if it is asked for.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from bide.errors import StartError

HARMFUL: Final = {
    "thread": ("_thread", "threading"),
    "queue": ("queue", "_queue"),
    "subprocess": ("subprocess",),
    "os": ("os",),
}
"""gevent's options that do harm, and the modules that they patch.

Measured with gevent 26.9: with any of these, a view that starts a thread or a process hangs or
fails. With socket, dns, time, select, ssl and builtins together everything works, on both
executors.
"""


def refuse_patched() -> None:
    """Raise StartError, with the remedy, if a module has been patched that must not be."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None:
        options = [
            option
            for option, modules in HARMFUL.items()
            if any(gevent.is_module_patched(each) for each in modules)
        ]
        if options:
            # gevent warns of signal without os.
            without = ", ".join(f"{option}=False" for option in (*HARMFUL, "signal"))
            raise StartError(
                f"gevent has patched {_listed(options)}, and Bide's threads would hang: remove "
                f"monkey.patch_all(), or write monkey.patch_all({without})"
            )
    eventlet: Any = sys.modules.get("eventlet.patcher")
    patched = sorted(eventlet.already_patched) if eventlet is not None else []
    if patched:
        raise StartError(
            f"eventlet has patched {_listed(patched)}, and Bide's threads would hang: remove "
            "eventlet.monkey_patch()"
        )


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def refuse_without_reactor(loop: object) -> None:
    """Raise StartError unless Twisted's reactor is on an event loop."""
    reactor = sys.modules.get("twisted.internet.reactor")
    if getattr(reactor, "_asyncioEventloop", None) is not loop:
        raise StartError(
            "Twisted's reactor is not on this event loop: bide.run and the command line put it "
            "there, or your program does by asyncioreactor.install"
        )
