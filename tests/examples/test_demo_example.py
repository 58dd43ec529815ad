"""The demo's page and everything it asks for, over a real server."""

import asyncio
import concurrent.futures
import contextlib
import functools
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

import bide
from tests.examples.serving import DEADLINE, Example, LoopThread, Serve, Served, until
from tests.ports import free_port


@pytest.fixture
def demo(example: Example) -> Any:
    """Return the demo's module."""
    return example("demo.app")


def mounted(example: Example) -> dict[str, Any]:
    """Return what is beside the Flask site, by path."""
    loop = example("demo.loop")
    return {"/live": loop.live, "/echo": loop.echo}


@pytest.fixture
def serve_demo(serve: Serve, demo: Any, example: Example) -> Serve:
    """Return what serves the demo as its ``app`` does: the ASGI application beside Flask."""
    return functools.partial(serve, demo.site, mounted=mounted(example))


def post(served: Served, path: str) -> httpx.Response:
    return httpx.post(f"{served.url}{path}", timeout=DEADLINE, trust_env=False)


@contextlib.contextmanager
def parked(served: Served, path: str, clients: int = 1) -> Iterator[None]:
    """Keep ``clients`` requests for ``path`` under way."""
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            client = socket.create_connection((served.host, served.port), DEADLINE)
            stack.enter_context(client)
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        yield


def samples(lines: Iterator[str], names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield every sample of a live line."""
    for line in lines:
        if line.startswith("data: "):
            for sample in json.loads(line.removeprefix("data: "))["samples"]:
                yield dict(zip(("time", *names), sample, strict=True))


def test_the_page_is_complete_in_itself(serve_demo: Serve, demo: Any) -> None:
    """It needs no other file, and tells how many threads there are."""
    with serve_demo(threads=3) as served:
        response = served.get()
    assert response.status_code == 200
    assert 'data-threads="3"' in response.text
    assert "3 threads" in response.text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", response.text)
    assert "time.sleep(seconds())" in response.text  # the view's own source


def test_on_the_loop_the_page_says_so(serve_demo: Serve, demo: Any) -> None:
    """There are no threads to count, and the live line works."""
    with serve_demo(executor="loop") as served:
        assert "here on the <b>event loop</b>" in served.get().text
        with served.stream("/live") as lines:
            assert next(samples(lines, demo.NAMES))["threads_max"] == 0


def test_each_view_says_which_thread_ran_it(serve_demo: Serve, demo: Any) -> None:
    """The quick, the blocking and the waiting view answer with the same fields."""
    with serve_demo(threads=1) as served:
        answers = [served.get(f"{path}?seconds=0.01") for path in ("/quick", "/block", "/wait")]
    assert len({answer.json()["thread"] for answer in answers}) == 1
    assert all(answer.headers["cache-control"] == "no-store" for answer in answers)


def test_the_live_line_passes_through_proxies(serve_demo: Serve, demo: Any) -> None:
    """Its head forbids buffering and storing."""
    with (
        serve_demo() as served,
        httpx.stream("GET", f"{served.url}/live", timeout=DEADLINE, trust_env=False) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-cache"


def test_the_live_line_counts_its_viewers_and_other_waiting_requests(
    serve_demo: Serve, demo: Any
) -> None:
    """On one thread: the viewer itself, then three more, then the viewer alone again."""
    with serve_demo(threads=1) as served, served.stream("/live") as lines:
        live = samples(lines, demo.NAMES)
        first = next(sample for sample in live if sample["waiting"] == 1)
        assert first["threads_max"] == 1
        with parked(served, "/wait?seconds=10", 3):
            assert next(sample for sample in live if sample["waiting"] == 4)
        assert next(sample for sample in live if sample["waiting"] == 1)


def test_the_live_line_lists_the_oldest_requests(serve_demo: Serve, demo: Any) -> None:
    """What each does, and what it waits for; of the others it says how many there are."""
    with serve_demo(threads=1) as served, served.stream("/live") as lines:
        news = (json.loads(line[6:]) for line in lines if line.startswith("data: "))
        rows = [dict(zip(demo.COLUMNS, row, strict=True)) for row in next(news)["requests"]]
        assert [row["target"] for row in rows] == ["/live"], "the viewer alone"
        with parked(served, "/wait?seconds=10", demo.LISTED):
            full = next(each for each in news if each["more"])
        assert (full["more"], len(full["requests"])) == (1, demo.LISTED)
        first, *others = (dict(zip(demo.COLUMNS, row, strict=True)) for row in full["requests"])
        assert (first["target"], first["state"]) == ("/live", "waiting")
        for row in others:
            assert (row["method"], row["target"]) == ("GET", "/wait?seconds=10")
            assert (row["state"], row["waits_for"]) == ("waiting", "coroutine sleep")
            assert row["total"] >= row["waiting"] >= 0
        assert next(each for each in news if not each["more"] and len(each["requests"]) == 1)


def test_the_live_line_shows_a_blocked_thread(serve_demo: Serve, demo: Any) -> None:
    """A blocking view is running, not waiting, and takes a thread."""
    with serve_demo(threads=2) as served, served.stream("/live") as lines:
        live = samples(lines, demo.NAMES)
        with parked(served, "/block?seconds=1"):
            assert next(sample for sample in live if _one_runs_beside_the_viewer(sample))
        assert next(sample for sample in live if sample["threads_busy"] == 0)


def _one_runs_beside_the_viewer(sample: dict[str, Any]) -> bool:
    return (sample["waiting"], sample["running"], sample["threads_busy"]) == (1, 1, 1)


def test_the_live_line_goes_on_while_every_thread_is_blocked(
    serve_demo: Serve, demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread is left for the quick request, either; the echo comes back."""
    blocked = threading.Semaphore(0)
    release = threading.Event()

    def sleep(_: float) -> None:
        blocked.release()
        assert release.wait(DEADLINE)

    monkeypatch.setattr(demo, "time", SimpleNamespace(sleep=sleep))
    with serve_demo(threads=4, limit_threads=4) as served, contextlib.ExitStack() as stack:
        live = samples(stack.enter_context(served.stream("/live")), demo.NAMES)
        stack.callback(release.set)
        stack.enter_context(parked(served, "/block", 4))
        for _ in range(4):
            assert blocked.acquire(timeout=DEADLINE)
        assert next(sample for sample in live if sample["threads_busy"] == 4)
        stack.enter_context(parked(served, "/quick"))
        assert next(sample for sample in live if sample["queued"] == 1)
        with connect(f"ws://{served.host}:{served.port}/echo") as echo:
            echo.send("there and back")
            assert echo.recv(timeout=DEADLINE) == "there and back"
        assert served.get("/echo").status_code == 404  # it is nothing but a WebSocket
        release.set()
        assert next(sample for sample in live if sample["threads_busy"] == 0)


def test_the_live_line_has_a_heartbeat(serve_demo: Serve, demo: Any) -> None:
    """While nothing changes, the same numbers come again."""
    with serve_demo() as served, served.stream("/live") as lines:
        live = samples(lines, demo.NAMES)
        last = next(live)
        for sample in live:
            if [sample[name] for name in demo.NAMES] == [last[name] for name in demo.NAMES]:
                break
            last = sample
        assert sample["time"] > last["time"]


def test_the_live_line_ends_when_its_viewer_leaves(
    serve_demo: Serve, demo: Any, loop_thread: LoopThread
) -> None:
    """No request is left waiting, and nothing goes on looking at the numbers."""

    async def looking() -> list[str]:
        names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
        return [name for name in names if "pulse" in name]

    with serve_demo() as served:
        with served.stream("/live") as lines:
            next(samples(lines, demo.NAMES))
            assert loop_thread.run(looking())
        until(lambda: not bide.status().requests)
        until(lambda: not loop_thread.run(looking()))


def test_a_failing_status_ends_the_live_line(example: Example, loop_thread: LoopThread) -> None:
    """The viewer is told, instead of being left with a line that is silent for ever."""

    def status() -> Any:
        raise LookupError("no numbers today")

    async def follow() -> None:
        async for _ in example("demo.pulse").pulse(status):
            pass

    with pytest.raises(LookupError, match="no numbers today"):
        loop_thread.run(follow())


def test_a_crowd_waits_at_once_over_two_threads(
    serve_demo: Serve, demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More requests wait than there are threads, and the view that sent them is one of them."""
    monkeypatch.setattr(demo, "CROWD", 100)
    with serve_demo(threads=2, limit_threads=2) as served:
        response = post(served, "/crowd")
        assert response.status_code == 200, response.text
        report = response.json()
        assert report["answered"] == 100
        assert report["threads"] <= 2
        assert report["most"] > 2
        served.until_waiting(0)


def test_one_crowd_at_a_time(serve_demo: Serve, demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one is refused while the first is under way; then the next is welcome."""
    monkeypatch.setattr(demo, "CROWD", 5)
    monkeypatch.setattr(demo, "CROWD_SECONDS", 2)
    with serve_demo() as served, concurrent.futures.ThreadPoolExecutor(1) as clients:
        first = clients.submit(post, served, "/crowd")
        served.until_waiting(6)
        second = post(served, "/crowd")
        assert second.status_code == 409
        assert "one crowd at a time" in second.json()["error"]
        assert first.result().status_code == 200
        monkeypatch.setattr(demo, "CROWD_SECONDS", 0)
        assert post(served, "/crowd").status_code == 200


def test_a_crowd_goes_home_when_its_sender_leaves(
    serve_demo: Serve, demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving cancels the view's wait, that cancels the clients, and they end the waiting views."""
    monkeypatch.setattr(demo, "CROWD", 20)
    monkeypatch.setattr(demo, "CROWD_SECONDS", 10)
    with serve_demo(threads=1) as served:
        with socket.create_connection((served.host, served.port), DEADLINE) as sender:
            sender.sendall(b"POST /crowd HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n")
            served.until_waiting(21)
        served.until_waiting(0)
        monkeypatch.setattr(demo, "CROWD_SECONDS", 0)
        assert post(served, "/crowd").status_code == 200


def test_a_crowd_that_is_too_slow_is_a_504(
    serve_demo: Serve, demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline ends the clients too."""
    monkeypatch.setattr(demo, "CROWD", 2)
    monkeypatch.setattr(demo, "CROWD_SECONDS", 10)
    monkeypatch.setattr(demo, "CROWD_DEADLINE", 0.2)
    with serve_demo() as served:
        assert post(served, "/crowd").status_code == 504
        served.until_waiting(0)


def test_a_crowd_that_reaches_nobody_is_a_502(demo: Any) -> None:
    """The first failure is told."""
    environ = {
        "bide.status": lambda: SimpleNamespace(waiting=0),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(free_port()),
    }
    response = demo.site.test_client().post("/crowd", environ_overrides=environ)
    assert response.status_code == 502
    assert response.json["error"].startswith("failed: ")


def test_the_crowd_is_no_larger_than_the_open_files_allow(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files for each request, beside some for everything else; the soft limit is raised."""
    crowd = example("demo.crowd")
    limits = {"soft": 256, "hard": 1000}
    monkeypatch.setattr(
        crowd,
        "resource",
        SimpleNamespace(
            RLIMIT_NOFILE=7,
            RLIM_INFINITY=-1,
            getrlimit=lambda kind: (limits["soft"], limits["hard"]),
            setrlimit=lambda kind, pair: limits.update(soft=pair[0]),
        ),
    )
    assert crowd.crowd_size(1000) == 400
    assert limits["soft"] == 1000
    limits.update(soft=256, hard=-1)
    assert crowd.crowd_size(1000) == 1000
    assert limits["soft"] == 2200


def test_under_another_server_the_page_says_what_is_missing(demo: Any) -> None:
    """No live line is asked for, the crowd is not sent, and the views answer."""
    client = demo.site.test_client()
    page = client.get("/", environ_overrides={"SERVER_SOFTWARE": "Another/1.0"}).text
    assert "Another/1.0" in page
    assert "not available on this server" in page
    assert 'data-bide=""' in page
    assert client.post("/crowd").status_code == 501
    for path in ("/quick", "/block?seconds=0", "/wait?seconds=0"):
        assert client.get(path).status_code == 200


def test_on_a_socket_without_a_port_the_crowd_is_not_sent(demo: Any) -> None:
    """It could not find the way."""
    environ = {"bide.status": lambda: None, "SERVER_PORT": ""}
    response = demo.site.test_client().post("/crowd", environ_overrides=environ)
    assert response.status_code == 501
    assert "no port" in response.json["error"]


def test_everybody_on_the_page_hears_what_one_says(serve_demo: Serve, demo: Any) -> None:
    """By WebSockets, which hold no thread; a page of another site opens none."""
    with (
        serve_demo(threads=2, limit_threads=2) as served,
        contextlib.ExitStack() as stack,
    ):
        url = f"ws://{served.host}:{served.port}/talk"
        people = [stack.enter_context(connect(url, origin=Origin(served.url))) for _ in range(20)]
        assert served.get("/quick").status_code == 200
        served.until_waiting(20)
        people[3].send("x" * (demo.SAID + 1))
        for person in people:
            assert person.recv(timeout=DEADLINE) == "x" * demo.SAID
        with (
            pytest.raises(InvalidStatus, match="403"),
            connect(url, origin=Origin("http://other.example")),
        ):
            pass
        assert served.status is not None
        assert served.status().threads <= 2


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("given", "port"), [([], 8000), (["PORT=9000"], 9000)])
def test_make_demo_serves_both_applications_on_a_port(given: list[str], port: int) -> None:
    """8000, or the one that is asked for."""
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "demo", *given],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    command = done.stdout.splitlines()[-1]
    assert f" --bind 127.0.0.1:{port} " in command
    assert "bide examples.demo.app:app " in command
