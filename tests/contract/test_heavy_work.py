"""Requests that have other processes compute: answers, departures, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bide
from bide.waiting.process_bounds import ProcessCounts
from bide.waiting.processes import ProcessPool
from tests.conftest import Serve
from tests.pools import Keep, own_pool, pool_of, processes_of, resident
from tests.served import Environ, answering, until
from tests.waiting import heavy
from tests.waiting.tame import Animal

__all__ = ["own_pool", "pool_of", "resident"]


def test_callers_get_their_own_answers_while_others_leave(
    serve: Serve, own_pool: ProcessPool, tmp_path: Path
) -> None:
    """Those that left are ended, queued or running; a quick request waits for none of them."""

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/quick":
            return "quick"
        number = int(environ["PATH_INFO"][1:])
        path = str(tmp_path / ("never" if number % 2 else "now"))
        return str(bide.wait(bide.in_process(heavy.until, path, number)))

    served = serve(answering(answer), process_pool=2, process_queue=18)
    clients = {number: served.request(f"/{number}") for number in range(20)}
    served.until_waiting(20)
    until(lambda: own_pool.counts() == ProcessCounts(2, 2, 18))
    assert served.get("/quick").text == "quick"
    for number in range(1, 20, 2):
        clients.pop(number).close()
    served.until_waiting(10)
    (tmp_path / "now").touch()
    assert [client.response().text for client in clients.values()] == list(map(str, clients))
    until(lambda: own_pool.counts().busy == 0)
    assert own_pool.counts().queued == 0


def test_one_call_too_many_is_refused_by_the_settings(
    serve: Serve, own_pool: ProcessPool, tmp_path: Path
) -> None:
    """Its request is answered as one too many."""
    path = str(tmp_path / "now")
    served = serve(
        answering(lambda environ: str(bide.wait(bide.in_process(heavy.until, path, 5)))),
        process_pool=1,
        process_queue=1,
    )
    waiting = [served.request() for _ in range(2)]
    until(lambda: own_pool.counts() == ProcessCounts(1, 1, 1))
    refused = served.get()
    assert (refused.status, refused.header("Retry-After")) == (503, "1")
    (tmp_path / "now").touch()
    assert [client.response().text for client in waiting] == ["5", "5"]


def test_a_resident_answers_and_streams_while_others_leave(
    serve: Serve, resident: Keep, tmp_path: Path
) -> None:
    """What is nobody's any more reaches nobody; a stream is closed when its reader has left."""
    kept = resident(Animal)
    now, told = tmp_path / "now", tmp_path / "told"

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        what = environ["PATH_INFO"][1:]
        if what == "endless":
            return (b"%d\n" % each for each in bide.iterate(kept.count(10**9, str(told))))
        if what == "stream":
            return (b"%d\n" % each for each in bide.iterate(kept.acount(3)))
        return [str(bide.wait(kept.until(str(now), what))).encode()]

    served = serve(application, process_queue=3)
    endless = served.request("/endless")
    endless.head()
    assert endless.chunk() == b"0\n"
    endless.close()
    until(told.exists)
    assert served.get("/stream").body == b"0\n1\n2\n"
    clients = []
    for number in range(4):
        clients.append(served.request(f"/{number}"))
        served.until_waiting(number + 1)
    until(lambda: processes_of(kept).counts() == ProcessCounts(1, 1, 3))
    refused = served.get("/more")
    assert (refused.status, refused.header("Retry-After")) == (503, "1")
    for each in (0, 2):
        clients[each].close()
    served.until_waiting(2)
    now.touch()
    assert [clients[each].response().text for each in (1, 3)] == ["1", "3"]
