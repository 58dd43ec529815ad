"""A server as a whole, as those see it who ask on its control socket; here one without workers."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from bide import __version__
from bide.errors import StartError
from bide.process.control import Answers, Control, Reply
from bide.process.control_socket import open_socket
from bide.settings import Settings

if TYPE_CHECKING:
    from bide.process.status_page import StatusPage

WORDS: Final = "status, stacks [ID], reload, stop, workers +1|-1|N, watch SECONDS"


UNKNOWN: Final = {"error": f"there is: {WORDS}"}
"""The answer to words that mean nothing."""


class Instance:
    """What a server says of itself.

    Args:
        name: by which it is found.
        addresses: returns where it listens.
    """

    def __init__(self, name: str, addresses: Callable[[], list[str]]) -> None:
        self.name = name
        self._addresses = addresses
        self._started = time.time()

    def describe(self, workers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return what ``status`` answers.

        Args:
            workers: the snapshot of each process that serves.
            more: what else is known: ``mute``, ``restarts``, ``ended``.
        """
        return {
            "name": self.name,
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "addresses": self._addresses(),
            "workers": workers,
            "mute": [],
            "restarts": {},
            "ended": {},
            **more,
        }


def tell(words: list[str]) -> dict[str, Any]:
    """Return what this process does; on a thread that no request needs.

    Args:
        words: ``status``; ``stacks``, and perhaps a request's id.
    """
    # Here, since a server that nobody looks at should not load it.
    if words == ["status"]:
        from bide.seeing.snapshot import snapshot

        return snapshot()
    from bide.seeing.stacks import stacks

    return stacks(*words[1:])


def is_asked(words: list[str]) -> bool:
    """Whether words ask what the server does."""
    return words == ["status"] or (words[0] == "stacks" and len(words) <= 2)


class Alone(Answers):
    """The answers of a server that serves in this one process.

    Args:
        instance: what it says of itself.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def answer(self, words: list[str], reply: Reply) -> None:
        """Answer; on the thread of the control socket."""
        if words == ["status"]:
            reply(self._instance.describe([tell(words)]))
        elif is_asked(words):
            reply({"workers": [tell(words)], "mute": []})
        elif words == ["stop"]:
            reply({"done": "it stops, as by SIGTERM"})
            os.kill(os.getpid(), signal.SIGTERM)
        elif words == ["reload"]:
            reply({"error": "it has no workers to replace: restart it for a new version"})
        elif words[0] == "workers":
            reply({"error": "it has no workers: start it with --workers N"})
        else:
            reply(UNKNOWN)


@contextlib.contextmanager
def answering(
    settings: Settings, application: str, addresses: Callable[[], list[str]]
) -> Iterator[None]:
    """In this ``with`` block, answer who asks what a server without workers does.

    On its control socket, and on its status page.

    Args:
        settings: where these are.
        application: what the application is called.
        addresses: returns where the server listens.

    Raises:
        StartError: another server has the control socket, or the status page's address.
    """
    opened = open_socket(settings.control, application)
    name = application if opened is None else opened.name
    answers = Alone(Instance(name, addresses))
    page = None
    try:
        if settings.status:
            page = open_page(settings, answers)
    except StartError:
        if opened is not None:
            opened.remove()
            opened.socket.close()
        raise
    if opened is None and page is None:
        yield
        return
    control = Control(
        None if opened is None else opened.socket, answers, () if page is None else (page,)
    )
    control.start()
    try:
        yield
    finally:
        for each in (opened, page):
            if each is not None:
                each.remove()
        control.stop()


def open_page(settings: Settings, answers: Answers, patient: bool = False) -> StatusPage:
    """Return the status page of a server, which listens.

    Args:
        settings: where, and who may look.
        answers: what the server answers.
        patient: whether another version of this server may have the address, until it ends.

    Raises:
        StartError: the address cannot be listened on, or needs a token.
    """
    from bide.process.status_page import StatusPage  # here, since few servers have one

    page = StatusPage(settings, answers)
    page.open(patient)
    return page
