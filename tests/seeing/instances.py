"""Instances made by hand: what a server answers to ``status`` on its control socket."""

from __future__ import annotations

from typing import Any


def request(number: int, worker: int = 1, **given: Any) -> dict[str, Any]:
    """Return a request that waits, unless something else is given."""
    return {
        "id": f"{worker}-{number}",
        "application": "shop:app",
        "method": "GET",
        "target": f"/orders/{number}",
        "client": "192.0.2.7",
        "state": "waiting",
        "waits_for": "coroutine fetch",
        "thread": "thread-1",
        "total": 2.5,
        "queued": 0.1,
        "running": 0.2,
        "waiting": 2.2,
        "sending": 0.0,
        "sent": 0,
        "protocol": "http/1.1",
        **given,
    }


def thread(name: str, **given: Any) -> dict[str, Any]:
    """Return an idle thread, unless something else is given."""
    return {"name": name, "state": "idle", "for": 0.0, "request": "", "waiting": 0, **given}


def snapshot(worker: int = 1, **given: Any) -> dict[str, Any]:
    """Return what one worker does: nothing, unless something is given."""
    counts = dict.fromkeys(
        (
            "running",
            "waiting",
            "queued",
            "threads",
            "threads_busy",
            "threads_max",
            "connections",
            "spawned",
            "client_connections_refused",
            "client_requests_refused",
            "processes",
            "processes_busy",
            "processes_queued",
            "queue_limit",
            "websockets",
        ),
        0,
    )
    requests: list[dict[str, Any]] = given.get("requests", [])
    for each in requests:
        if each["state"] in counts:
            counts[each["state"]] += 1
    return {
        "worker": worker,
        "pid": 4000 + worker,
        "up": 3700.0,
        "form": "compiled",
        "rss_bytes": 61_000_000,
        "loop_lag": 0.0004,
        "connections": {"http/1": 0, "http/2": 0, "websocket": 0},
        "limits": [],
        "residents": [],
        "threads": [thread("the event loop")],
        "requests": requests,
        "counters": {},
        **given,
        "counts": {**counts, "stopping": False, **given.get("counts", {})},
    }


def instance(*workers: dict[str, Any], **given: Any) -> dict[str, Any]:
    """Return a server with workers."""
    return {
        "name": "shop:app",
        "version": "0.1.0",
        "pid": 4000,
        "started": 1_796_000_000.0,
        "addresses": ["127.0.0.1:8000"],
        "workers": [*workers],
        "mute": [],
        "restarts": {},
        "ended": {},
        **given,
    }
