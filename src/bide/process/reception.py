"""The control socket and the status page of a server with workers.

The supervisor asks these, and does what it is told.

All of it is on the supervisor's one thread, which polls.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import inf
from typing import TYPE_CHECKING, Any, Final

from bide.process.asking import Asking, Told
from bide.process.control import Answers, Desk, Polled, Reply
from bide.process.control_socket import ControlSocket, open_socket
from bide.process.fleet import MOST, Fleet
from bide.process.instance import UNKNOWN, Instance, is_asked, open_page
from bide.serving.counters import Counters, add
from bide.settings import Settings

if TYPE_CHECKING:
    from bide.process.status_page import StatusPage

_STOPS: Final = {"error": "the server stops"}


@dataclass(frozen=True, slots=True)
class Hands:
    """What a supervisor does when it is told to, as at a signal.

    Attributes:
        stop: as SIGTERM.
        reload: as SIGHUP.
        more: as SIGTTIN; returns whether there is one more.
        fewer: as SIGTTOU; returns whether there is one less.
    """

    stop: Callable[[], None]
    reload: Callable[[], None]
    more: Callable[[], bool]
    fewer: Callable[[], bool]


class Reception(Answers):
    """Answers those who ask on the control socket, and the status page.

    Args:
        settings: where they are.
        application: what the application is called.
        addresses: returns where the server listens.
        fleet: the workers.
        hands: what the supervisor does.

    Attributes:
        asking: asks the workers.
    """

    def __init__(
        self,
        settings: Settings,
        application: str,
        addresses: Callable[[], list[str]],
        fleet: Fleet,
        hands: Hands,
    ) -> None:
        self._settings = settings
        self._application = application
        self._addresses = addresses
        self._fleet = fleet
        self._hands = hands
        self._ended: Counters = {}
        self._opened: ControlSocket | None = None
        self._instance: Instance | None = None
        self._polled: list[Polled] = []
        self._page: StatusPage | None = None
        self.asking = Asking(self._keep)

    @property
    def path(self) -> str:
        """Where the control socket is; empty: there is none."""
        return "" if self._opened is None else self._opened.path

    def open(self, taken: str = "", beside: bool = False) -> None:
        """Begin to answer.

        Args:
            taken: the path that the version before has, which is taken over; empty: there is none.
            beside: whether there is a version before, which may have the status page's address.

        Raises:
            StartError: another server has the control socket, or the status page's address.
        """
        self._opened = open_socket(self._settings.control, self._application, taken)
        name = self._application if self._opened is None else self._opened.name
        self._instance = Instance(name, self._addresses)
        if self._opened is not None:
            self._polled.append(Desk(self._opened.socket, self))
        if self._settings.status:
            self._page = open_page(self._settings, self, patient=beside)
            self._polled.append(self._page)

    def register(self, watched: select.poll) -> None:
        """Register what is to be polled before the next :meth:`look`."""
        self.asking.register(watched)
        for each in self._polled:
            each.register(watched)

    @property
    def next_due(self) -> float:
        """When :meth:`look` has something to do without being told, in monotonic seconds."""
        return min(self.asking.next_due, *(each.next_due for each in self._polled), inf)

    def look(self) -> None:
        """Do what is to be done now."""
        self.asking.look()
        for each in self._polled:
            each.look()

    def remove(self) -> None:
        """Remove the socket's file and end the status page, at the end of the server."""
        if self._opened is not None:
            self._opened.remove()
        if self._page is not None:
            self._page.close()

    def close(self) -> None:
        """Close all of it in this process, at the end or in a child."""
        self.asking.close()
        for each in self._polled:
            each.after_fork()

    # Answers ------------------------------------------------------------------------------------

    def answer(self, words: list[str], reply: Reply) -> None:
        """Answer, or have the workers asked and answer later."""
        if words == ["status"]:
            self.asking.ask(words, lambda *heard: reply(self._described(*heard)))
        elif is_asked(words):
            self.asking.ask(words, lambda told, mute, _: reply({"workers": told, "mute": mute}))
        elif words[0] in ("stop", "reload", "workers"):
            self._obey(words, reply)
        else:
            reply(UNKNOWN)

    def _described(self, told: list[Told], mute: list[int], last: list[Told]) -> dict[str, Any]:
        assert self._instance is not None
        # What the mute had counted counts, too: no sum falls since one does not answer.
        ended = reduce(add, (each.get("counters", {}) for each in last), self._ended)
        restarts = dict(self._fleet.restarts)
        return self._instance.describe(told, mute=mute, restarts=restarts, ended=ended)

    def _keep(self, last: Told) -> None:
        """Called when a worker has ended: add what it has counted to that of others."""
        self._ended = add(self._ended, last.get("counters", {}))

    def _obey(self, words: list[str], reply: Reply) -> None:
        fleet = self._fleet
        if words == ["stop"]:
            reply({"done": "it stops, as by SIGTERM"})
            self._hands.stop()
        elif fleet.stopping or fleet.stops_soon:
            reply(_STOPS)
        elif words == ["reload"]:
            reply({"done": "its workers are replaced, one after the other"})
            self._hands.reload()
        elif (size := _size(words[1:], fleet.size)) is None:
            reply({"error": f"it is: workers +1, workers -1 or workers N, from 1 to {MOST}"})
        else:
            while fleet.size < size and self._hands.more():
                pass
            while fleet.size > size and self._hands.fewer():
                pass
            if fleet.size == size:
                reply({"done": f"{size} {'worker' if size == 1 else 'workers'} from now on"})
            else:
                reply({"error": f"there can be no other worker: {fleet.size}, see the log"})


def _size(words: list[str], size: int) -> int | None:
    """Return how many workers are wanted; None if the words do not say."""
    try:
        (text,) = words
        number = int(text)
    except ValueError:
        return None
    wanted = size + number if text[0] in "+-" else number
    return wanted if 1 <= wanted <= MOST else None
