"""The requests in progress, one by one: what each of them does, and where its time goes.

Any thread may read them, without stopping anything. A :class:`RequestStatus` refers to nothing of
its request, so it keeps neither the request nor its promise alive.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal

from bide.exchange.call import Call
from bide.exchange.stream import SWITCHED
from bide.executors.spawning import Spawned
from bide.serving.formatters import escaped
from bide.serving.numbering import id_of
from bide.waiting.names import name_of_promise

State = Literal["reading", "queued", "running", "waiting", "sending"]


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """One request in progress, as it was at the time of the call. Times are in seconds.

    Attributes:
        id: the number of its worker and its own: ``2-17``. Without workers: ``0-17``.
        application: the name of the application that it is for.
        method: GET, POST, …; spawn for background work (:func:`bide.spawn`).
        target: path and query as they were sent, escaped as in the access log; of background work
            the name of its function.
        client: the address of the client; empty on a Unix socket.
        state: ``reading``: it waits for its body, before it begins or while it reads; ``queued``:
            it waits for a thread; ``running``: its code runs, or is ready to; ``waiting``: it waits
            for what ``waits_for`` names; ``sending``: it waits until its client has taken more.
        waits_for: the name of a promise: ``coroutine fetch``, ``Future``; empty in other states.
        thread: its name, as ``bide-thread-1``, or ``the event loop``; empty before it begins.
        total: from the end of its head until now; the sum of the next four.
        queued: until the application was called, including the time for its body.
        running: in the application's code, or ready to go on in it. What the coroutines of an ASGI
            application await counts here, too, unless it is their client.
        waiting: for its promises, including waits that had to block the thread.
        sending: until its client took more of the response, or sent more of the body.
        sent: bytes of the response's body that were sent.
        protocol: ``http/2``, ``http/1.1``, ``http/1.0`` or, once it is one, ``websocket``; empty
            for background work.
    """

    id: str
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
    protocol: str


def look_at(
    calls: Iterable[Call], held: Container[Call], application: str
) -> tuple[RequestStatus, ...]:
    """Return the status of each call, the oldest first; from any thread.

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
            waiting += call.parked
    return waiting, queued


def _look(call: Call, held: bool, application: str) -> RequestStatus:
    awaited = call.awaited
    wait, sums, begun = call.times.sums(call.started)
    waits_for = ""
    state: State = "running"
    if not begun:
        state = "reading" if held else "queued"
    elif wait is not None:
        if not wait.for_client:
            state = "waiting"
            waits_for = name_of_promise(wait.promise)
        else:
            state = "reading" if call.stream.body.awaited else "sending"
    elif awaited is not None:
        state = "waiting"
        waits_for = name_of_promise(awaited)
    if isinstance(call, Spawned):
        method, target, client, sent, protocol = "spawn", call.name, "", 0, ""
    else:
        stream = call.stream
        method, client, sent = stream.request.method, stream.peer.client_host, stream.sent
        target = escaped(stream.request.target.decode("latin-1"))
        switched = stream.state == SWITCHED
        protocol = "websocket" if switched else f"http/{stream.request.version}"
    return RequestStatus(
        id=id_of(call),
        application=application,
        method=method,
        target=target,
        client=client,
        state=state,
        waits_for=waits_for,
        thread=call.thread_name if begun else "",  # it may have begun since
        total=sum(sums),
        queued=sums.queued,
        running=sums.running,
        waiting=sums.waiting,
        sending=sums.sending,
        sent=sent,
        protocol=protocol,
    )
