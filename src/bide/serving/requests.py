"""The requests in progress, one by one: what each of them does, and where its time goes.

Looked at from any thread, without stopping anything. A picture of a request refers to nothing of
it, so it keeps neither the request nor what that waits for.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal

from bide.exchange.call import Call
from bide.serving.logs import escaped
from bide.waiting.names import name_of_promise

State = Literal["reading", "queued", "running", "waiting", "sending"]


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """One request in progress, as it was when it was looked at. Times are in seconds.

    Attributes:
        application: the name of the application that it is for.
        method: GET, POST, …
        target: path and query as they were sent, escaped as in the access log.
        client: the address of the client; empty on a Unix socket.
        state: ``reading``: its body is to come, before it begins or where it reads it; ``queued``:
            it waits for a thread; ``running``: its code runs, or could; ``waiting``: it waits for
            what ``waits_for`` names; ``sending``: it waits until its client has taken more.
        waits_for: the name of a promise: ``coroutine fetch``, ``Future``; empty in other states.
        thread: where it runs: ``lane-1`` and so on, or ``the event loop``; empty before it begins.
        total: from the end of its head until now; the sum of the next four.
        queued: until the application was called, the time for its body among it.
        running: in the application's code, or ready for it.
        waiting: until what it waited for was there; where a wait had to block its thread, too.
        sending: until its client took more of the response, or brought more of the body.
        sent: bytes of the response's body that were sent.
    """

    application: str
    method: str
    target: str
    client: str
    state: State
    waits_for: str
    thread: str
    total: float
    queued: float
    running: float
    waiting: float
    sending: float
    sent: int


def look_at(
    calls: Iterable[Call], held: Container[Call], application: str
) -> tuple[RequestStatus, ...]:
    """Look at calls, the oldest first; from any thread.

    Args:
        calls: those in progress.
        held: those of them whose bodies have to come before they begin.
        application: its name.
    """
    oldest = sorted(calls, key=lambda each: each.started)
    return tuple(_look(each, each in held, application) for each in oldest)


def count(calls: Iterable[Call], held: Container[Call]) -> tuple[int, int]:
    """Return how many calls have begun and wait without a thread, and how many wait for a thread.

    From any thread.

    Args:
        calls: those in progress.
        held: those of them whose bodies have to come before they begin.
    """
    waiting = queued = 0
    for call in calls:
        if not call.times.begun:
            queued += call not in held
        else:
            wait = call.times.spent[2]
            waiting += wait is not None and wait.parked is not None
    return waiting, queued


def _look(call: Call, held: bool, application: str) -> RequestStatus:
    stream = call.stream
    wait, sums = call.times.look(call.started)
    waits_for = ""
    state: State = "running"
    if not call.times.begun:
        state = "reading" if held else "queued"
    elif wait is not None:
        if not wait.for_client:
            state = "waiting"
            waits_for = name_of_promise(wait.promise)
        else:
            state = "reading" if stream.body.awaited else "sending"
    return RequestStatus(
        application=application,
        method=stream.request.method,
        target=escaped(stream.request.target.decode("latin-1")),
        client=stream.peer.client_host,
        state=state,
        waits_for=waits_for,
        thread=call.thread_name,
        total=sum(sums),
        queued=sums.queued,
        running=sums.running,
        waiting=sums.waiting,
        sending=sums.sending,
        sent=stream.sent,
    )
