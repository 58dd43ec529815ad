"""What ``bide top`` is shown: instances as the demo's, made by hand."""

from typing import Any

from tests.seeing import instances

STARTED = 1_700_000_000.0


def request(number: int, worker: int = 0, **values: Any) -> dict[str, Any]:
    """Return a request that waits on ``bide-thread-1``; its age is its number, in seconds."""
    waits = {
        "target": f"/wait?seconds={number}",
        "client": "127.0.0.1",
        "waits_for": "coroutine sleep",
        "thread": "bide-thread-1",
        "total": float(number),
        "queued": 0.0,
        "running": 0.0,
        "waiting": float(number),
    }
    return instances.request(number, worker, **{**waits, **values})


def thread(name: str, state: str = "idle", **values: Any) -> dict[str, Any]:
    """Return a thread that runs nothing."""
    return instances.thread(name, **{"state": state, "for": 0.5, **values})


def snapshot(
    requests: list[dict[str, Any]], threads: list[dict[str, Any]], worker: int = 0, **counts: int
) -> dict[str, Any]:
    """Return what one process says."""
    busy = sum(each["state"] in ("running", "blocked") for each in threads)
    kept = {"threads": len(threads), "threads_busy": busy, "threads_max": len(threads)}
    return instances.snapshot(
        worker,
        up=90.0,
        form="pure Python",
        rss_bytes=83_000_000,
        loop_lag=0.0012,
        counts={**kept, "connections": len(requests), **counts},
        threads=threads,
        requests=requests,
    )


def instance(*snapshots: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Return what a server says."""
    own = {"name": "shop", "started": STARTED, "addresses": ["http://127.0.0.1:8000"]}
    return instances.instance(*snapshots, **{**own, **values})


def parked_and_blocked(parked: int = 1000, blocked: int = 4) -> dict[str, Any]:
    """Return a server of which some requests wait and some block its threads."""
    lanes = [f"thread-{number}" for number in range(1, blocked + 1)]
    requests = [
        request(number, thread=lanes[number % blocked]) for number in range(1, parked + 1)
    ] + [
        request(
            parked + number,
            target="/block?seconds=600",
            state="running",
            waits_for="",
            thread=lane,
            total=12.3,
        )
        for number, lane in enumerate(lanes, 1)
    ]
    threads = [
        thread(
            lane,
            "blocked",
            **{"for": 12.3},
            request=f"0-{parked + number}",
            waiting=parked // blocked,
        )
        for number, lane in enumerate(lanes, 1)
    ]
    return instance(snapshot(requests, [thread("the event loop"), *threads]))
