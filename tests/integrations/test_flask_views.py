"""Flask's coroutine functions run on the server's loop, and their requests hold no thread."""

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import Awaitable
from typing import Any

import httpx
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    current_app,
    g,
    render_template_string,
    request,
    request_started,
    session,
)
from flask.views import MethodView, View

import bide
from bide.integrations.flask import Bide
from tests.conftest import Serve
from tests.integrations.conftest import Run
from tests.served import DEADLINE, Gate, Log, answering, until


def made(name: str = "pages") -> Flask:
    """Make an application with the integration."""
    app = Flask(name)
    app.secret_key = "a secret"
    Bide(app)
    return app


def test_async_views_park_and_hold_no_thread(serve: Serve) -> None:
    """Fifty requests wait on one thread, which goes on meanwhile with another."""
    app, gate = made(), Gate()

    @app.get("/")
    async def slow() -> str:
        await asyncio.wrap_future(gate.promise())
        return "here"

    @app.get("/quick")
    def quick() -> str:
        return "quick"

    served = serve(app, threads=1)
    clients = [served.request() for _ in range(50)]
    served.until_waiting(50)
    until(lambda: served.status.threads_busy == 0)
    assert served.get("/quick").text == "quick"
    gate.open()
    assert {client.response().text for client in clients} == {"here"}


def test_a_declared_application_runs_its_async_views_on_the_loop_executor(serve: Serve) -> None:
    """``capable("async")`` is all that it takes: no thread is started."""
    app = made()

    @app.get("/")
    async def view() -> str:
        await asyncio.sleep(0)
        return str(threading.get_ident())

    served = serve(bide.capable("async")(app))
    assert served.get().text == str(served.thread)
    assert served.status.threads == 0


class Steps:
    """What was called, on which thread."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.threads: set[int] = set()

    async def take(self, name: str) -> None:
        """Note a step, after a turn of the loop."""
        await asyncio.sleep(0)
        self.names.append(name)
        self.threads.add(threading.get_ident())


def with_every_function(steps: Steps) -> Flask:
    """Make an application whose functions are all coroutine functions, by a blueprint too."""
    app = made()
    part = Blueprint("part", __name__, url_prefix="/part")

    @part.before_request
    async def before_part() -> None:
        await steps.take("before the part")

    @part.errorhandler(KeyError)
    async def part_failed(error: KeyError) -> tuple[str, int]:
        await steps.take("the part's handler")
        return f"no {error.args[0]}", 404

    @part.get("/<name>")
    async def in_part(name: str) -> str:
        await steps.take("view")
        raise KeyError(name)

    @app.before_request
    async def before() -> Response | None:
        await steps.take("before")

        @after_this_request
        async def after_this(response: Response) -> Response:
            await steps.take("after this")
            return response

        return Response("stopped before") if request.path == "/stopped" else None

    @app.after_request
    async def after(response: Response) -> Response:
        await steps.take("after")
        return response

    @app.teardown_request
    async def teardown(error: BaseException | None) -> None:
        await steps.take("teardown")

    @app.teardown_appcontext
    async def teardown_app(error: BaseException | None) -> None:
        await steps.take("teardown of the application's context")

    @app.context_processor
    async def processor() -> dict[str, Any]:
        await steps.take("context processor")
        return {"name": "a template"}

    @app.errorhandler(404)
    async def not_found(error: Exception) -> tuple[str, int]:
        await steps.take("handler")
        return "not here", 404

    @app.errorhandler(500)
    async def broken(error: Exception) -> tuple[str, int]:
        await steps.take("handler")
        return "broken", 500

    @app.get("/")
    async def index() -> str:
        await steps.take("view")
        return "index"

    @app.get("/page")
    def page() -> str:
        return render_template_string("from {{ name }}")

    @app.get("/aborted")
    async def aborted() -> str:
        await steps.take("view")
        abort(404)

    @app.get("/broken")
    async def break_it() -> str:
        await steps.take("view")
        raise ValueError("broken by the view")

    class Shown(View):
        async def dispatch_request(self) -> str:  # type: ignore[override]
            await steps.take("view")
            return "shown"

    class Methods(MethodView):
        async def post(self) -> str:
            await steps.take("view")
            return (await asyncio.to_thread(request.get_data)).decode()

    app.add_url_rule("/shown", view_func=Shown.as_view("shown"))
    app.add_url_rule("/methods", view_func=Methods.as_view("methods"))
    app.register_blueprint(part)
    return app


FIRST = ["before"]
LAST = ["after this", "after", "teardown", "teardown of the application's context"]


@pytest.mark.parametrize(
    ("path", "answer", "between"),
    [
        ("/", (200, "index"), ["view"]),
        ("/page", (200, "from a template"), ["context processor"]),
        ("/stopped", (200, "stopped before"), []),
        ("/aborted", (404, "not here"), ["view", "handler"]),
        ("/nowhere", (404, "not here"), ["handler"]),
        ("/broken", (500, "broken"), ["view", "handler"]),
        ("/shown", (200, "shown"), ["view"]),
        ("/part/x", (404, "no x"), ["before the part", "view", "the part's handler"]),
    ],
)
def test_every_function_that_flask_calls_may_be_a_coroutine_function(
    path: str, answer: tuple[int, str], between: list[str], run: Run
) -> None:
    """In Flask's order, and all of them on the server's one loop."""
    steps = Steps()
    served = run(with_every_function(steps))
    response = served.get(path)
    assert (response.status, response.text) == answer
    served.until_idle()
    assert steps.names == [*FIRST, *between, *LAST]
    assert steps.threads == {served.thread}


def test_the_methods_of_a_class_may_be_coroutine_functions(run: Run) -> None:
    """Flask asks for each method when it is called."""
    served = run(with_every_function(Steps()))
    assert served.get("/methods", method="POST", body=b"posted").text == "posted"


def test_a_signal_may_be_received_by_a_coroutine_function(run: Run) -> None:
    """Flask gives its signals the same seam."""
    app, steps = made(), Steps()

    async def started(sender: Flask, **extra: Any) -> None:
        await steps.take("started")

    app.get("/")(lambda: "here")
    with request_started.connected_to(started, app):
        assert run(app).get().text == "here"
    assert steps.names == ["started"]


def test_flasks_contexts_are_seen_and_what_is_set_in_them_stays(run: Run) -> None:
    """The coroutine has the request's own objects: ``g`` and the session are not copies."""
    app = made()

    @app.before_request
    async def before() -> None:
        g.steps = ["before"]

    @app.get("/<name>")
    async def view(name: str) -> dict[str, str]:
        await asyncio.sleep(0)
        session["name"] = name
        g.steps.append("view")
        return {"path": request.path, "app": current_app.name, "session": session["name"]}

    @app.after_request
    def after(response: Response) -> Response:
        response.headers["Steps"] = ",".join([*g.steps, session.get("name", "")])
        return response

    with run(app).http() as client:
        response = client.get("/ada")
        assert response.json() == {"path": "/ada", "app": "pages", "session": "ada"}
        assert response.headers["Steps"] == "before,view,ada"
        assert "session" in client.cookies


def test_requests_that_wait_at_once_keep_their_contexts_apart(run: Run) -> None:
    """Each resumes with its own ``request`` and ``g``, though all share the loop and a thread."""
    app, gate = made(), Gate()

    @app.get("/<name>")
    async def view(name: str) -> str:
        g.name = name
        await asyncio.wrap_future(gate.promise())
        return f"{name} {g.name} {request.path}"

    served = run(app)
    clients = {str(n): served.request(f"/{n}") for n in range(20)}
    served.until_waiting(20)
    gate.open()
    for name, client in clients.items():
        assert client.response().text == f"{name} {name} /{name}"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


def test_context_variables_come_back_out_of_a_coroutine(run: Run) -> None:
    """As asgiref brings them back: those of an error's way out too, and into the next function."""
    app = made()

    @app.before_request
    async def before() -> None:
        variable.set("before")

    @app.get("/")
    async def view() -> str:
        seen = variable.get()
        variable.set("view")
        return seen

    @app.get("/failing")
    async def failing() -> str:
        variable.set("failing")
        raise KeyError

    @app.errorhandler(KeyError)
    def failed(error: KeyError) -> str:
        return variable.get()

    @app.after_request
    def after(response: Response) -> Response:
        response.headers["Variable"] = variable.get()
        return response

    served = run(app)
    for _ in range(2):
        response = served.get()
        assert (response.text, response.header("Variable")) == ("before", "view")
    assert served.get("/failing").text == "failing"


def test_an_async_error_handler_sees_the_error_that_is_handled(run: Run) -> None:
    """As an ordinary one does: ``logger.exception`` logs it, and ``raise`` raises it again."""
    app = made()
    records: list[logging.LogRecord] = []
    app.logger = logging.Logger("handled")
    app.logger.addHandler(handler := logging.Handler())
    handler.emit = records.append  # type: ignore[assignment, method-assign]

    @app.get("/<name>")
    async def view(name: str) -> str:
        raise {"key": KeyError, "index": IndexError}[name](name)

    @app.errorhandler(KeyError)
    async def logged(error: KeyError) -> str:
        await asyncio.sleep(0)
        app.logger.exception("it is handled")
        return "handled"

    @app.errorhandler(IndexError)
    async def again(error: IndexError) -> str:
        raise

    served = run(app)
    assert served.get("/key").text == "handled"
    assert [record.exc_info and record.exc_info[0] for record in records] == [KeyError]
    assert served.get("/index").status == 500
    assert records[-1].exc_info
    assert records[-1].exc_info[0] is IndexError


def test_an_error_that_was_handled_leaves_nothing_to_the_collector(run: Run) -> None:
    """No cycle of task, error and frame: what an error refers to is freed with its request."""
    app = made()
    errors: list[weakref.ref[BaseException]] = []

    class RefusedError(Exception):
        pass

    @app.get("/")
    async def view() -> str:
        error = RefusedError()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error  # else the view's own frame is the cycle

    @app.errorhandler(RefusedError)
    async def refused(error: RefusedError) -> str:
        await asyncio.sleep(0)
        return "refused"

    served = run(app)
    gc.collect()
    gc.disable()
    try:
        assert served.get().text == "refused"
        served.until_idle()
        until(lambda: errors[0]() is None, "the error is still there")
    finally:
        gc.enable()


def test_clients_of_asyncio_are_made_once_and_used_by_all_requests(run: Run, serve: Serve) -> None:
    """One loop: a queue, a lock and a client's connections belong to it for good."""
    app = made()
    upstream = serve(answering(lambda environ: f"asked {environ['PATH_INFO']}"))
    client = httpx.AsyncClient(base_url=upstream.url, timeout=DEADLINE, trust_env=False)
    queue: asyncio.Queue[str] = asyncio.Queue()
    lock = asyncio.Lock()
    inside = [0]

    @app.get("/take")
    async def take() -> str:
        return await queue.get()

    @app.get("/put/<what>")
    async def put(what: str) -> str:
        await queue.put(what)
        return "put"

    @app.get("/ask/<what>")
    async def ask(what: str) -> str:
        async with lock:
            inside[0] += 1
            assert inside == [1]
            text = (await client.get(f"/{what}")).text
            inside[0] -= 1
        return text

    served = run(app)
    taking = served.request("/take")
    served.until_waiting(1)
    assert served.get("/put/this").text == "put"
    assert taking.response().text == "this"
    clients = {str(n): served.request(f"/ask/{n}") for n in range(12)}
    for name, each in clients.items():
        assert each.response().text == f"asked /{name}"
    assert upstream.status.connections == 1, "the client's connection was not kept"
    asyncio.run_coroutine_threadsafe(client.aclose(), served.loop).result(DEADLINE)


def test_a_task_that_a_view_starts_outlives_its_request(run: Run) -> None:
    """The loop is not the call's own, so that nothing ends with the call."""
    app, gate = made(), Gate()
    tasks: list[asyncio.Task[str]] = []

    async def later(path: str) -> str:
        await asyncio.wrap_future(gate.promise())
        return f"after {path}"

    @app.get("/begin")
    async def begin() -> str:
        tasks.append(asyncio.create_task(later(request.path)))
        return "begun"

    @app.get("/end")
    async def end() -> str:
        return await tasks[0]

    served = run(app)
    assert served.get("/begin").text == "begun"
    ending = served.request("/end")
    served.until_waiting(1)
    gate.open()
    assert ending.response().text == "after /begin"


def test_a_coroutine_function_can_be_called_from_ordinary_code(run: Run) -> None:
    """By ``app.ensure_sync``, as Flask's documentation says for decorators; it parks as well."""
    app, gate = made(), Gate()

    async def price(of: str, *, vat: int) -> str:
        await asyncio.wrap_future(gate.promise())
        return f"{of} {vat} {request.path}"

    @app.get("/")
    def view() -> str:
        return str(current_app.ensure_sync(price)("tea", vat=7))

    served = run(app)
    client = served.request()
    served.until_waiting(1)
    until(lambda: served.status.threads_busy == 0)
    gate.open()
    assert client.response().text == "tea 7 /"


def test_other_awaitables_are_taken_where_asyncio_takes_them(run: Run) -> None:
    """What a function returns may be any awaitable; one of another library's loop is refused."""
    app = made()

    class Ready:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return "ready"

    class Foreign:
        def __await__(self) -> Any:
            yield "a request to another kind of loop"

    def ready() -> Awaitable[str]:
        return Ready()

    @app.get("/ready")
    def view() -> str:
        return str(app.async_to_sync(ready)())  # type: ignore[arg-type]

    @app.get("/foreign")
    async def foreign() -> str:
        try:
            await Foreign()
        except RuntimeError as error:
            return str(error)
        return "it went on"

    served = run(app)
    assert served.get("/ready").text == "ready"
    assert "Task got bad yield" in served.get("/foreign").text


def test_wait_below_an_async_view_says_what_to_do(run: Run) -> None:
    """It would stop the loop that the view runs on; and so would another coroutine function."""
    app = made()

    async def other() -> None:
        raise AssertionError("it was started")

    def library() -> None:
        bide.wait(other())

    @app.get("/wait")
    async def waiting() -> str:
        library()
        return "it waited"

    @app.get("/nested")
    async def nested() -> str:
        app.ensure_sync(other)()
        return "it waited"

    @app.context_processor
    async def processor() -> dict[str, Any]:
        return {}

    @app.get("/template")
    async def template() -> str:
        return render_template_string("it waited")

    @app.errorhandler(bide.WaitError)
    def refused(error: bide.WaitError) -> str:
        return str(error)

    served = run(app)
    for path in ("/wait", "/nested", "/template"):
        assert "use `await` here, or wait in a thread" in served.get(path).text


def test_threads_of_an_async_view_may_wait(run: Run) -> None:
    """They block by themselves, on the server's loop all the same, with the request's context."""
    app = made()

    async def on_loop() -> int:
        return threading.get_ident()

    def blocking() -> tuple[str, int]:
        return request.path, bide.wait(on_loop())

    @app.get("/")
    async def view() -> dict[str, Any]:
        path, ident = await asyncio.to_thread(blocking)
        return {"path": path, "loop": ident}

    served = run(app)
    with served.http() as client:
        assert client.get("/").json() == {"path": "/", "loop": served.thread}


def test_asgirefs_bridges_nest_in_views_both_ways(serve: Serve) -> None:
    """What others have built on asgiref goes on: each of its ways, within each kind of view."""
    app = made()

    async def inner() -> str:
        await asyncio.sleep(0)
        return request.path

    def between() -> str:
        return async_to_sync(inner)()

    @app.get("/ordinary")
    def ordinary() -> str:
        return between()

    @app.get("/async")
    async def view() -> str:
        return await sync_to_async(between)()

    @app.get("/free")
    async def free() -> str:
        return await sync_to_async(between, thread_sensitive=False)()

    served = serve(app)
    for path in ("/ordinary", "/async", "/free"):
        assert served.get(path).text == path


def test_system_exit_in_a_coroutine_ends_its_request_alone(run: Run, log: Log) -> None:
    """A task would let it end the loop, and the server with it."""
    app = made()

    @app.get("/")
    async def view() -> str:
        raise SystemExit(3)

    app.get("/more")(lambda: "more")
    served = run(app)
    assert served.get().status == 500
    record = log.failure()
    assert record.exc_info
    assert record.exc_info[0] is SystemExit
    assert served.get("/more").text == "more"
