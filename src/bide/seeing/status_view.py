"""What the status page shows of an instance: counts, all threads, and the requests that matter.

A server may have ten thousand requests. A viewer is sent some of them, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from typing import Any, Final

from bide.serving.counters import REJECTED

LISTED: Final = 12
"""How many of the oldest requests are shown, and of the slowest."""
THREADS: Final = 200
"""How many threads are shown; of more, those that block, then those that run something."""
PARKED: Final = 3
"""How many of the requests that wait on a thread are named."""
_RANKS: Final = ("blocked", "running", "idle")
STATES: Final = ("running", "waiting", "queued", "reading", "sending")

_SUMMED: Final = (
    "threads",
    "threads_busy",
    "threads_max",
    "connections",
    "websockets",
    "spawned",
    "client_connections_refused",
    "client_requests_refused",
)
_COUNTS: Final = ("running", "waiting", "queued", *_SUMMED)


def view(instance: dict[str, Any]) -> dict[str, Any]:
    """Return what a viewer is sent.

    Args:
        instance: the whole of it, as the control socket answers ``status``.
    """
    workers: list[dict[str, Any]] = instance["workers"]
    requests = [
        {**each, "worker": worker["worker"]} for worker in workers for each in worker["requests"]
    ]
    states = dict.fromkeys(STATES, 0)
    for each in requests:
        states[each["state"]] += 1
    counts = {name: sum(worker["counts"].get(name, 0) for worker in workers) for name in _SUMMED}
    return {
        "name": instance["name"],
        "version": instance["version"],
        "pid": instance["pid"],
        "started": instance["started"],
        "addresses": instance["addresses"],
        "mute": instance["mute"],
        "restarts": instance["restarts"],
        "states": states,
        "counts": counts,
        "stopping": any(worker["counts"].get("stopping") for worker in workers),
        "refused": _refused(instance),
        "workers": [_worker(each) for each in workers],
        "threads": _threads(workers),
        "requests": len(requests),
        "oldest": nlargest(LISTED, requests, key=lambda each: each["total"]),
        "slowest": nlargest(
            LISTED,
            (each for each in requests if each["running"] > 0),
            key=lambda each: each["running"],
        ),
        "limits": _each(workers, "limits"),
        "residents": _each(workers, "residents"),
    }


def _worker(worker: dict[str, Any]) -> dict[str, Any]:
    names = ("worker", "pid", "up", "form", "rss_bytes", "loop_lag")
    counts = worker["counts"]
    return {
        **{name: worker[name] for name in names},
        **{name: counts.get(name, 0) for name in _COUNTS},
        "stopping": bool(counts.get("stopping")),
    }


def _threads(workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each thread does, and for which request."""
    found = []
    for worker in workers:
        by_id = {each["id"]: each for each in worker["requests"]}
        parked: dict[str, list[str]] = {}
        for each in worker["requests"]:
            if each["state"] != "running" and each["thread"]:
                on_it = parked.setdefault(each["thread"], [])
                if len(on_it) < PARKED:
                    on_it.append(_called(each))
        for thread in worker["threads"]:
            request = by_id.get(thread["request"])
            found.append(
                {
                    **thread,
                    "worker": worker["worker"],
                    "runs": "" if request is None else _called(request),
                    "parked": parked.get(thread["name"], []),
                }
            )
    if len(found) > THREADS:
        found.sort(key=lambda each: _RANKS.index(each["state"]))  # equal ones stay in their order
    return found[:THREADS]


def _called(request: dict[str, Any]) -> str:
    return f"{request['method']} {request['target']}"


def _refused(instance: dict[str, Any]) -> list[tuple[str, int]]:
    """Return how many were refused, since the start, by the reason, the most first."""
    sums: dict[str, int] = {}
    for counters in (
        instance["ended"],
        *(each.get("counters", {}) for each in instance["workers"]),
    ):
        for reason, number in counters.get(REJECTED, {}).items():
            sums[reason] = sums.get(reason, 0) + number
    return sorted(sums.items(), key=lambda each: -each[1])


def _each(workers: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{**each, "worker": worker["worker"]} for worker in workers for each in worker[name]]
