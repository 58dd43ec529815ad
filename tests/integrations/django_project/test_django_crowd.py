"""A crowd whose requests commit, roll back, stream and leave, all at once, on few connections."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from bide import wait
from bide.integrations.django.databases import Pool, held_here
from tests.integrations.django_project.conftest import Project
from tests.integrations.django_project.postgres import MISSING, programs
from tests.integrations.django_project.test_django_databases import notes, texts
from tests.served import Served, until

CLIENTS, REQUESTS = 10, 12
DAWDLES = 0.005  # seconds for which a request waits, so that others come between


class Crowd:
    """What each client has done: the notes whose requests were answered, by how they ended."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.committed: set[str] = set()
        self.rolled_back: set[str] = set()

    def client(self, number: int) -> None:
        """Make requests, each of a kind that the number decides; from a thread of its own."""
        choices = random.Random(number)
        for count in range(REQUESTS):
            note = f"{number}-{count}"
            match choices.choice(["commit", "roll back", "stream", "leave", "leave the stream"]):
                case "commit":
                    assert self.served.get(f"/write?note={note}").text == "written"
                    self.committed.add(note)
                case "roll back":
                    assert self.served.get(f"/write?note={note}&fail").text == "written"
                    self.rolled_back.add(note)
                case "stream":
                    response = self.served.get("/stream")
                    assert (response.complete, response.text.count("\n")) == (True, 3)
                case "leave":
                    leaving = self.served.request(f"/write?note={note}")
                    until(lambda: choices.random() < 0.1)
                    leaving.close()
                case "leave the stream":
                    leaving = self.served.request("/stream")
                    leaving.head()
                    leaving.close()


@pytest.mark.skipif(programs() is None, reason=MISSING)
@pytest.mark.parametrize("executor", ["threads", "loop"])
@pytest.mark.parametrize("keep", ["request", "transaction"])
def test_every_request_of_a_crowd_has_its_own_end(
    project: Project, executor: str, keep: str
) -> None:
    """What was answered is there, what was rolled back is not, and no connection is lost."""
    project.options = {"CONNECTIONS_PER_THREAD": 2, "KEEP_CONNECTION": keep}
    pools: set[Pool] = set()

    async def count() -> int:
        number: int = await notes("postgres").acount()
        await asyncio.sleep(DAWDLES)
        return number

    def write(note: str, fail: bool) -> None:
        held = held_here()
        assert held is not None
        pools.add(held.pool)
        with transaction.atomic(using="postgres"):
            notes("postgres").create(text=note)
            if executor == "threads":  # where a wait parks
                wait(asyncio.sleep(DAWDLES))
                async_to_sync(count)()
            transaction.set_rollback(fail, using="postgres")

    async def view(request: HttpRequest) -> HttpResponse:
        await count()
        await sync_to_async(write)(request.GET["note"], "fail" in request.GET)
        await count()
        return HttpResponse("written")

    async def stream(request: HttpRequest) -> StreamingHttpResponse:
        async def lines() -> Any:
            for _ in range(3):
                yield f"{await count()}\n"

        return StreamingHttpResponse(lines())

    served = project.serve({"write": view, "stream": stream}, executor=executor, threads=2)
    crowd = Crowd(served)
    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(crowd.client, range(CLIENTS)))
    served.until_idle()
    there = texts("postgres")
    assert crowd.committed <= set(there)
    assert not crowd.rolled_back & set(there)
    assert len(there) == len(set(there))
    assert pools
    for pool in pools:
        until(lambda pool=pool: not pool.lent["postgres"], "a connection is still lent")  # type: ignore[misc]
        assert not pool.queue["postgres"]
        assert len(pool.idle["postgres"]) <= 2
