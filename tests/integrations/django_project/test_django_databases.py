"""The ORM on lanes: each request has its own connection, on its own thread.

The order is forced by gates: one request parks, with one lane for all, and others run meanwhile.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections, transaction
from django.db.utils import OperationalError
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings

from bide import ClientDisconnected, wait
from bide.integrations.django.databases import held_here
from tests.integrations.django_project.conftest import Project
from tests.integrations.django_project.postgres import MISSING, programs
from tests.served import Gate, Log, happened, until

needs_postgres = pytest.mark.skipif(programs() is None, reason=MISSING)


def notes(alias: str) -> Any:
    """Return the notes of a database; the model can be imported once Django has been set up."""
    from tests.integrations.django_project.models import Note

    return Note.objects.using(alias)


def texts(alias: str) -> list[str]:
    """Read the notes, on the test's own connection."""
    return list(notes(alias).order_by("id").values_list("text", flat=True))


class Parking:
    """A view that writes a note in a transaction, and parks there."""

    def __init__(self, alias: str, fails: bool) -> None:
        self.alias = alias
        self.fails = fails
        self.gate = Gate()
        self.connection: Any = None

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Write, wait, and commit or roll back."""
        with transaction.atomic(using=self.alias):
            self.connection = connections[self.alias]
            notes(self.alias).create(text="parked")
            wait(self.gate.promise())
            assert connections[self.alias] is self.connection
            if self.fails:
                transaction.set_rollback(True, using=self.alias)
        self.connection = None
        return HttpResponse("through")


@pytest.mark.parametrize("fails", [False, True], ids=["commits", "rolls back"])
def test_a_transaction_that_is_open_across_a_wait_is_its_requests_alone(
    project: Project, alias: str, fails: bool
) -> None:
    """Another request of the same thread sees nothing of it, before it has been committed."""
    parked = Parking(alias, fails)

    def other(request: HttpRequest) -> HttpResponse:
        assert connections[alias] is not parked.connection
        assert not connections[alias].in_atomic_block
        return HttpResponse(str(notes(alias).count()))

    served = project.serve({"parked": parked, "other": other}, threads=1)
    client = served.request("/parked")
    served.until_waiting(1)
    assert served.get("/other").text == "0"
    parked.gate.open()
    assert client.response().text == "through"
    assert served.get("/other").text == ("0" if fails else "1")


@needs_postgres
def test_the_rollback_of_a_request_does_not_touch_what_another_has_written(
    project: Project,
) -> None:
    """Both write, on one lane, within each other's time; each has its own end."""
    alias = "postgres"
    parked = Parking(alias, fails=True)

    def other(request: HttpRequest) -> HttpResponse:
        with transaction.atomic(using=alias):
            notes(alias).create(text="other")
        return HttpResponse("written")

    served = project.serve({"parked": parked, "other": other}, threads=1)
    client = served.request("/parked")
    served.until_waiting(1)
    assert served.get("/other").text == "written"
    parked.gate.open()
    assert client.response().text == "through"
    assert texts(alias) == ["other"]


@needs_postgres
def test_many_parked_transactions_of_one_lane_end_each_in_its_own_way(project: Project) -> None:
    """Ten are open at once; every other one fails."""
    alias = "postgres"
    gate = Gate()

    def view(request: HttpRequest) -> HttpResponse:
        number = int(request.GET["n"])
        try:
            with transaction.atomic(using=alias):
                notes(alias).create(text=f"{number}")
                wait(gate.promise())
                if number % 2:
                    raise LookupError
        except LookupError:
            return HttpResponse("failed")
        return HttpResponse("written")

    served = project.serve({"view": view}, threads=1)
    clients = [served.request(f"/view?n={number}") for number in range(10)]
    served.until_waiting(10)
    gate.open()
    answers = [client.response().text for client in clients]
    assert answers == ["written", "failed"] * 5
    assert sorted(texts(alias)) == ["0", "2", "4", "6", "8"]


def test_atomic_requests_covers_the_calls_of_coroutines(project: Project, alias: str) -> None:
    """They are made on the same connection: what they write is rolled back with the view."""
    project.set(alias, ATOMIC_REQUESTS=True)

    async def write(text: str) -> bool:
        await notes(alias).acreate(text=text)
        inside: bool = await sync_to_async(lambda: connections[alias].in_atomic_block)()
        return inside

    def view(request: HttpRequest) -> HttpResponse:
        inside = [async_to_sync(write)("by async_to_sync"), wait(write("by wait"))]
        if "fail" in request.GET:
            transaction.set_rollback(True, using=alias)
        return HttpResponse(str(inside))

    served = project.serve({"view": view}, threads=1)
    assert served.get("/view?fail").text == "[True, True]"
    assert texts(alias) == []
    assert served.get("/view").text == "[True, True]"
    assert texts(alias) == ["by async_to_sync", "by wait"]


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_the_orm_of_an_async_view_keeps_to_one_connection(
    project: Project, alias: str, executor: str
) -> None:
    """Also with others between its calls; on the event loop's executor in a thread beside it."""
    gate = Gate()
    begun: list[int] = []

    async def view(request: HttpRequest) -> HttpResponse:
        seen: list[int] = []
        for _ in range(3):
            await notes(alias).acreate(text="written")
            seen.append(await sync_to_async(lambda: id(connections[alias].connection))())
            begun.append(seen[-1])
            await asyncio.wrap_future(gate.promise())
        return HttpResponse(f"{seen[0]}" if len(set(seen)) == 1 else "several")

    served = project.serve({"view": view}, executor=executor, threads=1)
    clients = [served.request("/view") for _ in range(5)]
    until(lambda: len(begun) == 5)
    served.until_waiting(5)
    gate.open()
    answers = {client.response().text for client in clients}
    assert len(answers) == 5
    assert "several" not in answers
    assert len(texts(alias)) == 15


@pytest.mark.parametrize("age", [0, 60])
def test_a_connection_is_used_again_as_conn_max_age_says(
    project: Project, alias: str, age: int
) -> None:
    """On the same thread, by the requests that come after; with 0 each has a new one."""
    project.set(alias, CONN_MAX_AGE=age)
    kept: list[Any] = []

    def view(request: HttpRequest) -> HttpResponse:
        notes(alias).count()
        kept.append(connections[alias].connection)
        return HttpResponse(str(threading.get_ident()))

    served = project.serve({"view": view}, threads=1)
    assert len({served.get("/view").text for _ in range(3)}) == 1
    served.until_idle()
    assert len({id(each) for each in kept}) == (1 if age else 3)


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_connections_are_closed_on_their_own_thread(
    project: Project, alias: str, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of requests that have ended, and those that are kept, when the thread ends."""
    wrapper = type(connections[alias])
    closed: list[tuple[int, int]] = []
    close = wrapper._close

    def noted(self: Any) -> None:
        if self.connection is not None:
            closed.append((self._thread_ident, threading.get_ident()))
        close(self)

    monkeypatch.setattr(wrapper, "_close", noted)

    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(await notes(alias).acount()))

    served = project.serve({"view": view}, executor=executor, threads=4)
    for _ in range(4):
        assert served.get("/view").text == "0"
    project.set(alias, CONN_MAX_AGE=0)
    assert served.get("/view").text == "0"
    served.stop()
    project.undo()
    until(lambda: closed)
    assert all(made == here for made, here in closed)
    assert threading.get_ident() not in {here for _, here in closed}


def test_a_client_that_leaves_rolls_back_and_leaves_the_connection_healthy(
    project: Project, alias: str
) -> None:
    """The view is left in the midst of its transaction; the next request has the connection."""
    used: list[Any] = []

    def view(request: HttpRequest) -> HttpResponse:
        used.append(connections[alias])
        with transaction.atomic(using=alias):
            notes(alias).create(text="lost")
            wait(asyncio.sleep(3600))
        return HttpResponse("never")

    def after(request: HttpRequest) -> HttpResponse:
        used.append(connections[alias])
        notes(alias).create(text="kept")
        return HttpResponse(str(connections[alias].in_atomic_block))

    served = project.serve({"view": view, "after": after}, threads=1)
    client = served.request("/view")
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert served.get("/after").text == "False"
    assert texts(alias) == ["kept"]
    assert used[0] is used[1]


def test_a_view_that_is_left_closes_its_connection_as_conn_max_age_says(
    project: Project, alias: str
) -> None:
    """Django is not told of its end: it has no response to be closed."""
    project.set(alias, CONN_MAX_AGE=0)
    used: list[Any] = []

    def view(request: HttpRequest) -> HttpResponse:
        notes(alias).count()
        used.append(connections[alias])
        wait(asyncio.sleep(3600))
        return HttpResponse("never")

    served = project.serve({"view": view}, threads=1)
    client = served.request("/view")
    served.until_waiting(1)
    assert used[0].connection is not None
    client.close()
    served.until_idle()
    assert used[0].connection is None


def test_a_request_does_not_find_the_queries_of_another(project: Project) -> None:
    """With ``DEBUG`` Django keeps them with the connection, and forgets them between requests."""

    def view(request: HttpRequest) -> HttpResponse:
        notes("default").count()
        return HttpResponse(str(len(connection.queries)))

    served = project.serve({"view": view}, threads=1)
    with override_settings(DEBUG=True):
        assert [served.get("/view").text for _ in range(3)] == ["1", "1", "1"]


def test_a_client_that_leaves_an_async_view_rolls_back_what_its_call_has_begun(
    project: Project, alias: str
) -> None:
    """The call waits inside ``atomic()``; the coroutine waits for the call."""
    events: list[str] = []

    def call() -> None:
        try:
            with transaction.atomic(using=alias):
                notes(alias).create(text="lost")
                events.append("written")
                wait(asyncio.sleep(3600))
        except ClientDisconnected:
            events.append(f"in a transaction: {connections[alias].in_atomic_block}")
            raise

    async def view(request: HttpRequest) -> HttpResponse:
        await sync_to_async(call)()
        return HttpResponse("never")

    def after(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(notes(alias).count()))

    served = project.serve({"view": view, "after": after}, threads=1)
    client = served.request("/view")
    until(lambda: events)
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert events == ["written", "in a transaction: False"]
    assert served.get("/after").text == "0"


def test_a_transaction_that_was_never_left_does_not_reach_the_next_request(
    project: Project, alias: str
) -> None:
    """Entered by hand; when its request has ended nobody can leave it."""

    def view(request: HttpRequest) -> HttpResponse:
        transaction.atomic(using=alias).__enter__()
        notes(alias).create(text="lost")
        return HttpResponse("forgotten")

    def after(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"{connections[alias].in_atomic_block} {notes(alias).count()}")

    served = project.serve({"view": view, "after": after}, threads=1)
    assert served.get("/view").text == "forgotten"
    served.until_idle()
    assert served.get("/after").text == "False 0"


def test_a_stream_may_use_the_database_to_its_end(project: Project, alias: str) -> None:
    """Between blocks it parks, with its cursor; the next request has another connection."""
    gate = Gate()
    for number in range(5):
        notes(alias).create(text=f"{number}")

    def view(request: HttpRequest) -> StreamingHttpResponse:
        def lines() -> Any:
            for note in notes(alias).order_by("id").iterator(chunk_size=1):
                yield f"{note.text}\n"
                wait(gate.promise())

        return StreamingHttpResponse(lines())

    def other(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(notes(alias).count()))

    served = project.serve({"view": view, "other": other}, threads=1)
    client = served.request("/view")
    client.head()
    assert client.chunk() == b"0\n"
    assert served.get("/other").text == "5"
    gate.open()
    assert [client.chunk() for _ in range(5)] == [b"1\n", b"2\n", b"3\n", b"4\n", b""]


def test_an_async_iterator_of_the_orm_streams(project: Project, alias: str) -> None:
    """Each chunk is fetched on the request's thread, by its connection."""
    for number in range(5):
        notes(alias).create(text=f"{number}")

    async def view(request: HttpRequest) -> StreamingHttpResponse:
        async def lines() -> Any:
            async for note in notes(alias).order_by("id").aiterator(chunk_size=2):
                yield f"{note.text}\n"

        return StreamingHttpResponse(lines())

    served = project.serve({"view": view}, threads=1)
    assert served.get("/view").text == "0\n1\n2\n3\n4\n"


# How many connections there are -------------------------------------------------------------------


def test_a_request_that_finds_no_connection_free_waits_parked(project: Project, alias: str) -> None:
    """The thread goes on meanwhile, so the others can give theirs back."""
    project.options = {"CONNECTIONS_PER_THREAD": 2}
    gate = Gate()
    seen: list[int] = []

    def view(request: HttpRequest) -> HttpResponse:
        notes(alias).count()
        held = held_here()
        assert held is not None
        seen.append(len(held.pool.lent[alias]) + len(held.pool.idle[alias]))
        wait(gate.promise())
        return HttpResponse(str(notes(alias).count()))

    def plain(request: HttpRequest) -> HttpResponse:
        return HttpResponse("no database")

    served = project.serve({"view": view, "plain": plain}, threads=1)
    clients = [served.request("/view") for _ in range(6)]
    served.until_waiting(6)
    assert len(seen) == 2
    assert served.get("/plain").text == "no database"
    gate.open()
    assert [client.response().text for client in clients] == ["0"] * 6
    assert max(seen) == 2


def test_a_request_that_waits_too_long_for_a_connection_is_told_why(
    project: Project, log: Log
) -> None:
    """By an error of Django's, which applications know."""
    project.options = {"CONNECTIONS_PER_THREAD": 1, "CONNECTION_TIMEOUT": 0.05}
    gate = Gate()

    def holds(request: HttpRequest) -> HttpResponse:
        notes("default").count()
        wait(gate.promise())
        return HttpResponse("held")

    def wants(request: HttpRequest) -> HttpResponse:
        try:
            notes("default").count()
        except OperationalError as error:
            return HttpResponse(str(error))
        return HttpResponse("found one")

    served = project.serve({"holds": holds, "wants": wants}, threads=1)
    client = served.request("/holds")
    served.until_waiting(1)
    assert "all 1 connections that one thread may have" in served.get("/wants").text
    gate.open()
    assert client.response().text == "held"
    assert served.get("/wants").text == "found one"


def test_a_client_that_leaves_while_its_request_waits_for_a_connection_loses_none(
    project: Project, alias: str
) -> None:
    """Whether it leaves before it has one or when it has just been given one."""
    project.options = {"CONNECTIONS_PER_THREAD": 1}
    gate = Gate()

    def view(request: HttpRequest) -> HttpResponse:
        notes(alias).count()
        wait(gate.promise())
        return HttpResponse("held")

    served = project.serve({"view": view}, threads=1)
    first, leaving, last = (served.request("/view") for _ in range(3))
    served.until_waiting(3)
    leaving.close()
    served.until_waiting(2)
    gate.open()
    assert first.response().text == "held"
    assert last.response().text == "held"
    served.until_idle()
    assert served.get("/view").text == "held"


def test_a_request_that_has_closed_its_connections_counts_no_more(
    project: Project, alias: str
) -> None:
    """It is done with the database, and may wait for as long as it likes."""
    project.options = {"CONNECTIONS_PER_THREAD": 1}
    gate = Gate()

    def view(request: HttpRequest) -> HttpResponse:
        count = notes(alias).count()
        connections.close_all()
        wait(gate.promise())
        return HttpResponse(str(count + notes(alias).count()))

    served = project.serve({"view": view}, threads=1)
    clients = [served.request("/view") for _ in range(10)]
    served.until_waiting(10)
    gate.open()
    assert [client.response().text for client in clients] == ["0"] * 10


def test_kept_for_transactions_few_connections_do_for_many_that_wait(
    project: Project, alias: str
) -> None:
    """What waits outside of a transaction lends its connection to others."""
    project.options = {"CONNECTIONS_PER_THREAD": 2, "KEEP_CONNECTION": "transaction"}
    gate = Gate()
    parked = Parking(alias, fails=False)

    def view(request: HttpRequest) -> HttpResponse:
        before = notes(alias).count()
        assert connections[alias] is not parked.connection
        wait(gate.promise())
        return HttpResponse(str(before))

    served = project.serve({"view": view, "parked": parked}, threads=1)
    client = served.request("/parked")
    served.until_waiting(1)
    clients = [served.request("/view") for _ in range(10)]
    served.until_waiting(11)
    gate.open()
    assert [client.response().text for client in clients] == ["0"] * 10
    parked.gate.open()
    assert client.response().text == "through"
    assert texts(alias) == ["parked"]


def test_kept_for_transactions_a_connection_with_an_open_cursor_is_kept(
    project: Project, alias: str
) -> None:
    """Its rows are still to be read."""
    project.options = {
        "CONNECTIONS_PER_THREAD": 1,
        "KEEP_CONNECTION": "transaction",
        "CONNECTION_TIMEOUT": 0.05,
    }
    gate = Gate()

    def reads(request: HttpRequest) -> HttpResponse:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            wait(gate.promise())
            return HttpResponse(str(cursor.fetchone()[0]))

    def wants(request: HttpRequest) -> HttpResponse:
        try:
            return HttpResponse(str(notes(alias).count()))
        except OperationalError:
            return HttpResponse("none free")

    served = project.serve({"reads": reads, "wants": wants}, threads=1)
    client = served.request("/reads")
    served.until_waiting(1)
    assert served.get("/wants").text == "none free"
    gate.open()
    assert client.response().text == "1"
    assert served.get("/wants").text == "0"


# Waits inside atomic() ----------------------------------------------------------------------------


def test_a_wait_inside_atomic_is_refused_where_the_setting_says_so(
    project: Project, alias: str
) -> None:
    """By one error, at its line, whatever waits there; outside it is allowed."""
    project.options = {"WAIT_IN_ATOMIC": False}

    async def nothing() -> str:
        return "waited"

    waits: dict[str, Callable[[], Any]] = {
        "wait": lambda: wait(nothing()),
        "async_to_sync": async_to_sync(nothing),
        "below a call": lambda: async_to_sync(sync_to_async(lambda: wait(nothing())))(),
    }

    def view(request: HttpRequest) -> HttpResponse:
        answers = []
        for waiting in waits.values():
            try:
                with transaction.atomic(using=alias):
                    answers.append(waiting())
            except RuntimeError as error:
                answers.append(str(error))
            answers.append(waiting())
        return HttpResponse("\n".join(answers))

    served = project.serve({"view": view}, threads=1)
    answers = served.get("/view").text.splitlines()
    assert answers[1::2] == ["waited"] * 3
    for answer in answers[::2]:
        assert answer.startswith(f"a wait inside atomic() of the database '{alias}' would keep")


def test_a_wait_is_refused_under_atomic_requests_but_for_views_that_are_exempt(
    project: Project, log: Log
) -> None:
    """The remedy that the error names."""
    project.set("default", ATOMIC_REQUESTS=True)
    project.options = {"WAIT_IN_ATOMIC": False}

    def view(request: HttpRequest) -> HttpResponse:
        wait(asyncio.sleep(0))
        return HttpResponse("waited")

    @transaction.non_atomic_requests  # type: ignore[untyped-decorator]
    def exempt(request: HttpRequest) -> HttpResponse:
        wait(asyncio.sleep(0))
        return HttpResponse("waited")

    served = project.serve({"view": view, "exempt": exempt})
    assert served.get("/view").status == 500
    assert served.get("/exempt").text == "waited"


def test_waiting_for_a_connection_inside_atomic_is_no_wait_of_the_applications(
    project: Project,
) -> None:
    """It asked for a second database, not for a wait."""
    if programs() is None:
        pytest.skip(MISSING)
    project.options = {"WAIT_IN_ATOMIC": False, "CONNECTIONS_PER_THREAD": 1}
    gate = Gate()

    def holds(request: HttpRequest) -> HttpResponse:
        notes("postgres").count()
        wait(gate.promise())
        return HttpResponse("held")

    def wants(request: HttpRequest) -> HttpResponse:
        with transaction.atomic(using="default"):
            return HttpResponse(str(notes("postgres").count()))

    served = project.serve({"holds": holds, "wants": wants}, threads=1)
    holding = served.request("/holds")
    served.until_waiting(1)
    wanting = served.request("/wants")
    served.until_waiting(2)
    gate.open()
    assert holding.response().text == "held"
    assert wanting.response().text == "0"


# Outside of requests ------------------------------------------------------------------------------


def test_threads_of_the_application_have_djangos_own_connections(project: Project) -> None:
    """One for each thread, as ever; the integration knows requests only."""

    def view(request: HttpRequest) -> HttpResponse:
        theirs: list[Any] = []

        def thread() -> None:
            theirs.append(connections["default"])
            assert held_here() is None
            connection.close()

        started = threading.Thread(target=thread)
        started.start()
        started.join()
        return HttpResponse(str(theirs[0] is not connections["default"]))

    served = project.serve({"view": view})
    assert served.get("/view").text == "True"


def test_connections_can_be_put_and_taken_in_a_request(project: Project) -> None:
    """As Django's handler has it; one that was taken out is not given to others."""
    gone: list[Any] = []

    def view(request: HttpRequest) -> HttpResponse:
        notes("default").count()
        gone.append(connections["default"])
        del connections["default"]
        gone[0].close()
        assert connections["default"] is not gone[0]
        with pytest.raises(AttributeError):
            del connections["unknown"]
        return HttpResponse(str(notes("default").count()))

    def after(request: HttpRequest) -> HttpResponse:
        held = held_here()
        assert held is not None
        assert connections["default"] is not gone[0]
        return HttpResponse(str(gone[0] not in held.pool.idle["default"]))

    served = project.serve({"view": view, "after": after}, threads=1)
    assert served.get("/view").text == "0"
    assert served.get("/after").text == "True"


def test_without_the_integration_requests_of_a_lane_share_a_connection(project: Project) -> None:
    """This is what it is for: the other request is in the parked one's transaction."""
    parked = Parking("default", fails=False)
    ended = threading.Event()

    def other(request: HttpRequest) -> HttpResponse:
        ended.set()
        return HttpResponse(str(connections["default"] is parked.connection))

    served = project.serve({"parked": parked, "other": other}, install=False, threads=1)
    client = served.request("/parked")
    served.until_waiting(1)
    assert served.get("/other").text == "True"
    happened(ended)
    parked.gate.open()
    client.response()
