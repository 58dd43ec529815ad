"""Every snippet of the README and the docs is run.

What is done with a fenced block depends on the word behind its fence:

- ``python``: a first line ``# name.py`` begins a module, a block without one goes on with the one
  before. A module that has ``app`` or ``application`` is served by a real server and fetched as
  ``VISITS`` says; any other is run as a program, and prints what ``PRINTS`` says. Those that pytest
  runs are run by it, in ``test_testing_page.py``.
- ``console``: commands behind ``$``, and what they print. ``bide`` is really started.
- ``sh``: commands that are there; what they do is tested elsewhere, or takes too long.
- ``text NAME``, ``ini``, ``nginx``, ``haproxy``, ``dockerfile``, ``yaml``, ``procfile``: by a check
  of their own.

A snippet that none of these takes fails ``test_every_snippet_has_a_test``.
"""

import asyncio
import configparser
import json
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

import bide
from bide import errors
from bide.applications.loading import load
from bide.cli import command as bide_command
from bide.cli import main
from bide.configuration import Configuration
from bide.exchange.trust import Trust
from bide.integrations import bottle, engineio, simple_websocket
from bide.process.instance import Instance
from bide.protocols.forwarded import KEYS, read
from bide.seeing.snapshot import snapshot
from bide.seeing.top_keys import View
from bide.seeing.top_picture import picture
from bide.serving.access_log import Entry, form_of
from bide.serving.counters import counters
from bide.serving.timing import ServerTiming
from bide.transports.certificates import Pair
from bide.waiting.cleanups import cleanup_time
from bide.waiting.outcome import Signal
from bide.waiting.thread_locals import kept
from bide.waiting.times import Sums
from tests.architecture.test_layers import LAYERS
from tests.conftest import Serve
from tests.docs.snippets import (
    PAGES,
    ROOT,
    Snippet,
    Written,
    modules_of,
    snippets_of,
    text_of,
    texts_of_the_source,
    write,
)
from tests.docs.terminal import Terminal, exchanges
from tests.docs.test_pages import targets
from tests.docs.tutorial import (
    asks_all_at_once,
    counts_its_readers,
    holds_a_thread,
    holds_no_thread,
    sends_what_comes_first,
)
from tests.failures import same
from tests.pools import own_pool, pool_of
from tests.seeing import viewed as made
from tests.served import DEADLINE, Environ, Gate, Served, until

__all__ = ["own_pool", "pool_of"]

SNIPPETS = [snippet for page in PAGES for snippet in snippets_of(page)]
MODULES = [module for page in PAGES for module in modules_of(page) if not module.tests]


@pytest.fixture(autouse=True)
def _taken_back() -> Iterator[None]:
    """Take back what the page's modules have installed in this process."""
    before = list(kept)
    yield
    bottle.uninstall()
    engineio.uninstall()
    simple_websocket.uninstall()
    kept[:] = before


# What the applications answer -------------------------------------------------------------------


def upstream(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Stand for the other service that the snippets ask, over a real connection."""
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/slow":
        bide.wait(Signal())  # nobody fires it; its client's leaving ends the wait
    elif path == "/news":
        yield b"first\n"
        yield b"second\n"
    else:
        yield json.dumps({"price": 3 if query else 2}).encode()


def says(text: str, path: str = "/", status: int = 200) -> Callable[[Served], None]:
    """Check that a path is answered with exactly this text."""

    def check(served: Served) -> None:
        response = served.get(path)
        assert (response.status, response.text) == (status, text)
        assert response.complete

    return check


def says_by_its_name(text: str, path: str) -> Callable[[Served], None]:
    """Check the same, asked with the server's own address as the host."""

    def check(served: Served) -> None:
        assert httpx.get(f"http://{served.address}{path}", trust_env=False).text == text

    return check


def has(text: str, path: str) -> Callable[[Served], None]:
    """Check that a path's answer has this text in it."""

    def check(served: Served) -> None:
        response = served.get(path)
        assert response.status == 200
        assert text in response.text

    return check


def echoes(served: Served) -> None:
    """Check the echo."""
    with connect(f"ws://{served.address}" + "/echo") as client:
        client.send("hello")
        assert client.recv(timeout=DEADLINE) == "you said hello"


def talks(served: Served) -> None:
    """Check the echo, and that a message reaches all in the room, but no other site's page."""
    url = f"ws://{served.address}"
    echoes(served)
    with connect(url + "/room") as one, connect(url + "/room") as two:
        served.until_waiting(2)
        one.send("to all")
        assert [each.recv(timeout=DEADLINE) for each in (one, two)] == ["to all", "to all"]
    with pytest.raises(InvalidStatus, match="403"), connect(url + "/room", origin=OTHER_SITE):
        pass


OTHER_SITE = Origin("http://other.example")


def waits_for_a_hundred(served: Served) -> None:
    """All wait at once, on a few threads, and are all answered; the second lasts until they do."""
    gate = Gate()
    module: Any = sys.modules["app"]
    module.asyncio = SimpleNamespace(sleep=lambda seconds: gate.promise())
    clients = [served.request("/slow") for _ in range(100)]
    until(lambda: served.status.waiting == 100, "a hundred never waited at once")
    assert served.status.threads <= 64
    gate.open()
    assert {client.response().text for client in clients} == {"Hello, a second later.\n"}


def gives_up_for_a_client_that_leaves(served: Served) -> None:
    """Its wait is cancelled, and it notes that."""
    client = served.request("/job")
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert served.get("/jobs").text == "started, given up"


def stops_when_its_reader_leaves(served: Served) -> None:
    """Its stream at /news waits for long; leaving ends it."""
    client = served.request("/news")
    client.head()
    assert client.chunk() == b"first\n"
    client.close()
    served.until_idle()
    module: Any = sys.modules["shop"]
    assert module.log == ["nobody reads on"]


def cleans_up_for_a_client_that_leaves(served: Served) -> None:
    """The wait within ``finally`` is allowed."""
    client = served.request("/")
    client.head()
    assert client.chunk() == b"Wait for it.\n"
    client.close()
    served.until_idle()
    assert served.get("/log").text == "ticket released"


def counts_one_by_one(served: Served) -> None:
    """The lock is held over the wait; no visit is lost."""
    clients = [served.request("/add") for _ in range(20)]
    totals = {client.response().text for client in clients}
    assert totals == {f"{number}\n" for number in range(1, 21)}


def refreshes_once_for_all_whoever_leaves(served: Served) -> None:
    """The first client leaves, alone at first; all the others have the one result."""
    gate = Gate()
    module: Any = sys.modules["rates"]
    asleep: Any = SimpleNamespace(**vars(asyncio))
    asleep.sleep = lambda seconds: asyncio.wrap_future(gate.promise())
    module.asyncio = asleep
    first = served.request("/rate")
    served.until_waiting(1)
    until(lambda: module.refreshing is not None)
    first.close()
    served.until_idle()
    others = [served.request("/rate") for _ in range(5)]
    served.until_waiting(5)
    others.pop().close()
    served.until_waiting(4)
    gate.open()
    assert {client.response().text for client in others} == {"1 EUR is 1.01 USD\n"}


def sends_events_and_heartbeats(served: Served) -> None:
    """What is said comes; in between, a comment shows that the stream lives."""
    client = served.request("/events")
    head = client.head()
    assert head.header("X-Accel-Buffering") == "no"
    assert client.chunk() == b"retry: 1000\n\n"
    assert client.chunk() == b": still here\n\n"
    assert served.get("/say/hello", method="POST").text == "said\n"
    while (chunk := client.chunk()) == b": still here\n\n":
        pass
    assert chunk == b"data: hello\n\n"
    served.begin_stop()  # the stream comes to its end by itself
    while client.chunk():
        pass


def keeps_apart(name: str, texts: dict[str, str]) -> Callable[[Served], None]:
    """Check that requests which wait at once are answered each with its own text."""

    def check(served: Served) -> None:
        gate = Gate()
        module: Any = sys.modules[name]
        module.asyncio = SimpleNamespace(sleep=lambda seconds: gate.promise())
        clients = {path: served.request(path) for path in texts}
        served.until_waiting(len(texts))
        gate.open()
        assert {path: client.response().text for path, client in clients.items()} == texts

    return check


def tells_its_status(path: str) -> Callable[[Served], None]:
    """Check that the status is there, as JSON."""

    def check(served: Served) -> None:
        numbers = json.loads(served.get(path).text)
        assert numbers["threads_max"] == 4
        assert numbers["stopping"] is False

    return check


def tells_what_each_request_does(served: Served) -> None:
    """What waits is named with what it waits for; what tells it runs."""
    client = served.request("/slow")
    served.until_waiting(1)
    told = {each["target"]: each for each in json.loads(served.get("/requests").text)}
    assert (told["/requests"]["state"], told["/requests"]["waits_for"]) == ("running", "")
    slow = told["/slow"]
    assert (slow["state"], slow["waits_for"]) == ("waiting", "coroutine fetch")
    assert slow["thread"].startswith("bide-thread-")
    client.close()
    served.until_idle()


def answers_and_goes_on(served: Served) -> None:
    """The answer does not wait for the mail."""
    response = served.get("/register/ada", method="POST")
    assert (response.status, response.text) == (202, "Look into your mail.\n")
    until(lambda: served.status.spawned == 0)


def is_counted_by_its_route(served: Served) -> None:
    """The route is the application's, and is there when the request has ended."""
    assert served.get("/items/3").text == "Item 3.\n"
    counted = counters()
    until(lambda: "/items/<int:number>" in str(counters()), f"not in {counted}")


def is_seen_to_wait(path: str) -> Callable[[Served], None]:
    """Check that a request that waits is shown as the page does."""

    def visit(served: Served) -> None:
        client = served.request(path)
        served.until_waiting(1)
        (worker,) = json.loads(page_of_instance())["workers"]
        told = snapshot()
        (seen,) = told["requests"]
        same({**seen, "waits_for": worker["requests"][0]["waits_for"]}, seen)
        same(list(told["threads"][0]), list(worker["threads"][0]))
        client.close()

    return visit


def page_of_instance() -> str:
    """Return what the page shows of an instance."""
    (snippet,) = [each for each in SNIPPETS if each.words == ["text", "instance"]]
    return snippet.text


VISITS: Final[dict[str, list[Callable[[Served], None]]]] = {
    "docs/hosts.md:anywhere": [says("3\n")],
    "docs/hosts.md:waits": [says("3\n")],
    "docs/hosts.md:mounted": [says("")],  # under ASGI in tests/hosts
    "README.md:app": [says_by_its_name("Hello, a second later.\n", "/"), waits_for_a_hundred],
    "README.md:waiting": [
        says('{"price":5,"shop":"there"}\n', "/price/there"),
        says_by_its_name('{"price":4,"shop":"here"}\n', "/cheapest"),
    ],
    "README.md:promising": [says("the quick part\nthe slow part\n")],
    "README.md:pushing": [says("pushed by a timer\n")],
    "README.md:able": [says("from the event loop\n")],
    "docs/guide.md:pooled": [says("1.08\n", "/rate"), says_by_its_name("2.16\n", "/price")],
    "docs/guide.md:shop": [
        says("2 EUR\n", "/price"),
        says("The other service takes too long.\n", "/patient", 504),
        says("2 here, 3 there\n", "/compare"),
        says("first\nsecond\n", "/news"),
        has("in_thread(slow_file, __file__)", "/self"),
    ],
    "docs/guide.md:promising": [says("Hang on.\nHere it is.\nA promise must bring bytes.\n")],
    "docs/guide.md:asynchronous": [says("one\ntwo\n")],
    "docs/guide.md:pushing": [says("3\n2\n1\n")],
    "docs/guide.md:typed": [says("15\n")],
    "docs/guide.md:able": [says("from the event loop\n")],
    "docs/guide.md:leaving": [gives_up_for_a_client_that_leaves],
    "docs/guide.md:tenants": [
        keeps_apart("tenants", {f"/{each}": f"{each}\n" for each in "abcdef"})
    ],
    "docs/guide.md:registering": [answers_and_goes_on],
    "docs/guide.md:counting": [counts_one_by_one],
    "docs/guide.md:reporting": [says("done\n", "/report")],
    "docs/guide.md:rates": [refreshes_once_for_all_whoever_leaves],
    "docs/guide.md:cleaning": [cleans_up_for_a_client_that_leaves],
    "docs/guide.md:events": [sends_events_and_heartbeats],
    "docs/guide.md:health": [tells_its_status("/health")],
    "docs/guide.md:watched": [tells_what_each_request_does],
    "docs/frameworks.md:notes": [
        keeps_apart("notes", {f"/note/{n}": f"{n} at /note/{n}\n" for n in "123456"})
    ],
    "docs/frameworks.md:pages": [
        keeps_apart("pages", {f"/page/{n}": f"/page/{n} is /page/{n}\n" for n in "123456"})
    ],
    "docs/frameworks.md:watched": [says("watched\n", "/watched")],
    "docs/asgi.md:shop": [says("from Flask\n")],
    "docs/asgi.md:live": [says("from Starlette, at /now\n", "/now")],
    "docs/asgi.md:echo": [echoes],
    "docs/asgi.md:both": [says("200, by the client of the lifespan\n")],
    "docs/from-asgi.md:shop": [
        says("slow, and no thread was held\n", "/slow"),
        says("0\n1\n2\n", "/stream"),
    ],
    "docs/mounting.md:shop": [says("the shop, at /\n")],
    "docs/mounting.md:live": [says("live, at /now\n", "/now")],
    "docs/engines.md:rendering": [says("PAGE", "/render/page")],
    "docs/from-gevent.md:shop": [says("4\n", "/one"), says("4 and 5\n", "/both")],
    "docs/from-gunicorn.md:shop": [says("the shop\n")],
    "docs/from-uwsgi.md:shop": [says("first\nsecond\n")],
    "docs/websockets.md:talking": [talks],
    "docs/websockets.md:rooms": [has('"sid"', "/socket.io/?EIO=4&transport=polling")],
    "docs/heavy-work.md:shop": [says("14\n", "/report/4")],
    "docs/heavy-work.md:oracle": [
        says('{"value":2.0}\n', "/predict/2.0/4.0"),
        says("TO BIDE ", "/words?prompt=to+bide"),
    ],
    "docs/integrations.md:shop": [
        says("2 EUR\n", "/price"),
        says("2 USD\n", "/price?currency=USD"),
        says("The other service takes too long.\n", "/patient", 504),
        says("first for ada\nsecond for ada\n", "/news?reader=ada"),
    ],
    "docs/seeing.md:routed": [is_counted_by_its_route],
    "docs/seeing.md:shop": [says("Welcome.\n"), is_seen_to_wait("/prices")],
    "docs/testing.md:talk": [echoes],
    "docs/testing.md:shop": [says("2 EUR\n", "/price"), stops_when_its_reader_leaves],
    "docs/proxies.md:shop": [says("http, from 127.0.0.1 by nobody\n")],
    "docs/deployment.md:shop": [says("http, from 127.0.0.1\n"), tells_its_status("/health")],
    "docs/tutorial.md:blocking": [holds_a_thread("/stock")],
    "docs/tutorial.md:waiting": [holds_no_thread("/stock")],
    "docs/tutorial.md:together": [asks_all_at_once("/stock")],
    "docs/tutorial.md:streaming": [sends_what_comes_first("/stock")],
    "docs/tutorial.md:live": [has("EventSource", "/"), counts_its_readers("/events")],
}
PRINTS: Final = {
    "docs/integrations.md:careful": "",  # served by the page's commands
    "docs/integrations.md:library": "",
    "docs/guide.md:script": "waited in a script\n",
    "docs/guide.md:program": "served from a program\n",
}


@pytest.fixture
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory that is the current one, and forget what was imported from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def close_clients(module: ModuleType, served: Served) -> None:
    """Close the HTTP clients that a module keeps, on the loop that they belong to."""
    for value in vars(module).values():
        if isinstance(value, httpx.AsyncClient):
            asyncio.run_coroutine_threadsafe(value.aclose(), served.loop).result(DEADLINE)


@pytest.mark.usefixtures("own_pool")
@pytest.mark.parametrize("module", [each for each in MODULES if each.serves], ids=str)
def test_an_application_answers_as_the_page_says(
    module: Written, importing: Path, serve: Serve
) -> None:
    """It is imported as the command line does it, and served by a real server."""
    write(module, importing, serve(upstream).url)
    application = load(module.name)
    served = serve(application)
    try:
        for check in VISITS[str(module)]:
            check(served)
    finally:
        if served.status.stopping is False:
            close_clients(sys.modules[module.name], served)


@pytest.mark.parametrize("module", [each for each in MODULES if not each.serves], ids=str)
def test_a_program_prints_what_the_page_says(module: Written, importing: Path) -> None:
    """It is run as one."""
    write(module, importing)
    result = subprocess.run(
        [sys.executable, "-W", "error", f"{module.name}.py"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (result.stdout, result.stderr) == (PRINTS[str(module)], "")


def test_every_route_of_a_page_is_visited() -> None:
    """A snippet that goes on with a module brings something to visit."""
    for module in MODULES:
        assert (str(module) in VISITS) != (str(module) in PRINTS), f"{module} has no check"
        for part in module.parts[1:]:
            assert re.search(r"\.(?:get|post|route)\(\"/", part.text), (
                f"{part} brings nothing to visit"
            )
    source = Path(__file__).read_text(encoding="utf-8")
    for module in MODULES:
        for route in re.findall(r"@app\.(?:get|post|route)\(\"(/\w*)", module.text):
            assert f'"{route}' in source, f"{module}: nobody visits {route}"


def test_no_check_is_left_without_its_module() -> None:
    """A module that was renamed or dropped takes its check along."""
    assert {str(module) for module in MODULES} == {*VISITS, *PRINTS}


# Commands ---------------------------------------------------------------------------------------

CONSOLES = [
    page for page in PAGES if any(s.page == page and s.language == "console" for s in SNIPPETS)
]


@pytest.mark.parametrize("page", CONSOLES)
def test_the_commands_of_a_page_print_what_it_says(page: str, tmp_path: Path) -> None:
    """They are really run, in a directory that has the page's modules."""
    for module in modules_of(page):
        write(module, tmp_path)
    terminal = Terminal(tmp_path)
    try:
        for snippet in SNIPPETS:
            if snippet.page == page and snippet.language == "console":
                for command, output in exchanges(snippet):
                    assert terminal.run(command) == output, f"{snippet}: {command}"
    finally:
        terminal.close()


SHELL_WORDS: Final = (
    ["python3", "-m", "venv", ".venv"],
    [".", ".venv/bin/activate"],
    ["checkout=$(pwd)"],
    ["mkdir", "../hello"],
    ["cd", "../hello"],
)
"""What needs no check."""


def check_shell(snippet: Snippet) -> None:
    """Check that what the commands name is there."""
    project = text_of("pyproject.toml")
    for line in snippet.text.splitlines():
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words[0] == "make":
                assert words[1] in targets()
            elif words[0] == "bide":
                bide_command.make_context("bide", words[1:])  # refuses what is not an option
            elif words[:2] == ["pip", "install"]:
                assert words[2] in (".", "bide", "$checkout")
                assert all(f'"{name}>=' in project for name in words[3:])
            elif words[:2] == ["openssl", "req"]:
                check_certificate(words)
            elif words[0] == "curl":
                assert urlsplit(words[-1]).scheme == "https"
            else:
                assert words in SHELL_WORDS


def check_certificate(words: list[str]) -> None:
    """Check that OpenSSL makes a certificate by this command, and that a server takes it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(words, cwd=directory, check=True, capture_output=True)
        made = Pair(f"{directory}/cert.pem", f"{directory}/key.pem")
        assert made.names == ("localhost",)
        made.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


# The other blocks -------------------------------------------------------------------------------


def check_unit(snippet: Snippet) -> None:
    """Check a systemd unit: it can be read, and its command can be run."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(snippet.text)
    if "Socket" in unit:
        assert unit["Socket"]["ListenStream"].startswith("/run/")
        return
    service = unit["Service"]
    check_command(shlex.split(service["ExecStart"]))
    if "RuntimeDirectory" not in service:  # it is handed over a socket
        assert service["Type"] == "notify"
        return
    runtime = f"unix:/run/{service['RuntimeDirectory']}/"
    assert runtime in service["ExecStart"]
    if "TimeoutStopSec" in service:
        enough = bide.Settings().graceful_timeout + cleanup_time.seconds
        assert int(service["TimeoutStopSec"]) > enough


def check_command(words: list[str]) -> None:
    """Check that ``bide`` takes this command, up to the point where it would listen."""
    assert Path(words[0]).name == "bide"
    with pytest.raises(SystemExit) as ended:
        main([*words[1:], "--explain"])
    assert ended.value.code == 0


def check_log_config(snippet: Snippet) -> None:
    """Check a configuration of logging: a process takes it, and writes each line once."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(snippet.text)
        file.flush()
        code = (
            "import sys; from bide.serving.log_config import apply; print(*apply(sys.argv[1])); "
            "from bide.serving.loggers import access, log; "
            "log.warning('a line'); access.info('a request')"
        )
        command = [sys.executable, "-c", code, file.name]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "bide.access" in ended.stdout.split()
    assert ended.stderr.splitlines() == ["WARNING bide a line", "INFO bide.access a request"]


def check_settings(snippet: Snippet) -> None:
    """Check a file of settings: all of it is read, and taken."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(snippet.text)
        file.flush()
        configuration = Configuration()
        configuration.take_file(file.name)
    configuration.settings()
    assert configuration.values


def check_nginx(snippet: Snippet) -> None:
    """Check an nginx configuration: its form, and that it asks the unit's socket."""
    lines = [line.strip() for line in snippet.text.splitlines() if line.strip()]
    depth = 0
    for line in lines:
        assert line.endswith(("{", "}", ";")), line
        depth += line.endswith("{") - (line == "}")
        assert depth >= 0
    assert depth == 0
    (socket,) = re.findall(r"server (unix:\S+);", snippet.text)
    units = [s for s in SNIPPETS if s.page == snippet.page and s.language == "ini"]
    assert f"--bind {socket}" in units[0].text
    (upstream_name,) = re.findall(r"upstream (\w+)", snippet.text)
    assert f"proxy_pass http://{upstream_name};" in snippet.text
    (kept,) = re.findall(r"keepalive_timeout (\d+)s", snippet.text)
    assert int(kept) < bide.Settings().idle_timeout


def check_haproxy(snippet: Snippet) -> None:
    """Check a configuration of HAProxy: it closes before Bide does; HAProxy reads it, if there."""
    for seconds in re.findall(r"(?:http-keep-alive|pool-purge-delay) (\d+)s", snippet.text):
        assert int(seconds) < bide.Settings().idle_timeout
    if "httpchk" in snippet.text:
        (asked,) = re.findall(r"uri (\S+)", snippet.text)
        (told, delay) = re.findall(r"`--ready (\S+) --drain-delay (\d+)`", text_of(snippet.page))[0]
        (every,) = re.findall(r"inter (\d+)s fall 1 ", snippet.text)
        assert (asked, int(delay) > int(every)) == (told, True)
    if shutil.which("haproxy"):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(snippet.text)
            file.flush()
            subprocess.run(["haproxy", "-c", "-f", file.name], check=True, capture_output=True)


def check_manifests(snippet: Snippet) -> None:
    """Check Kubernetes' manifests: the command, what the probes ask, the time that an end has."""
    (args,) = re.findall(r"args: (\[.*\])", snippet.text)
    command: list[str] = json.loads(args)
    check_command(command)
    options = dict(zip(command[2::2], command[3::2], strict=True))
    for probe, option in [
        ("startup", "--health"),
        ("liveness", "--health"),
        ("readiness", "--ready"),
    ]:
        asked = f"{probe}Probe:\n            httpGet: {{path: {options[option]}, port: 8000}}"
        assert asked in snippet.text
    assert options["--bind"].endswith(":8000")
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", snippet.text)
    taken = float(options["--drain-delay"]) + bide.Settings().graceful_timeout
    assert int(grace) > taken + cleanup_time.seconds


def check_procfile(snippet: Snippet) -> None:
    """Check the command of a platform's process."""
    kind, _, words = snippet.text.strip().partition(": ")
    assert kind == "web"
    check_command(shlex.split(words))


def check_chain(snippet: Snippet) -> None:
    """Check the hops of a header: the client is the one that the page names."""
    name, _, value = snippet.text.strip().partition(": ")
    told = read({KEYS[name.lower()]: value}, Trust(["10.0.0.0/8"]).trusts)
    assert told.client is not None
    assert f"that is {told.client.address}. " in text_of(snippet.page)


def check_dockerfile(snippet: Snippet) -> None:
    """Check a Dockerfile: instructions, the wheel's name, and its command."""
    lines = dict(line.split(" ", 1) for line in snippet.text.splitlines())
    assert set(lines) == {"FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "CMD"}
    assert f"bide-{bide.__version__}-py3-none-any.whl" in lines["RUN"]
    command = json.loads(lines["CMD"])
    check_command(command)
    assert command[-1].endswith(f":{lines['EXPOSE']}")
    version = re.search(r"python:3\.(\d+)", lines["FROM"])
    assert version
    assert int(version[1]) >= 11


def check_tree(snippet: Snippet) -> None:
    """Check that the tree of exceptions is the source's."""
    assert errors.__doc__ is not None
    drawn = re.search(r"::\n\n((?:    .*\n)+)", errors.__doc__)
    assert drawn
    assert [line[4:] for line in drawn[1].splitlines()] == snippet.text.splitlines()


def check_modules(snippet: Snippet) -> None:
    """Check that the modules are those that there are."""
    named = []
    package = ""
    for line in snippet.text.splitlines()[1:]:
        indent, name = re.match(r"( +)(\S+)", line).groups()  # type: ignore[union-attr]
        if name.endswith("/"):
            package = name
        else:
            named.append(f"{package}{name}" if len(indent) > 2 else name)
    source = ROOT / "src" / "bide"
    there = [path.relative_to(source).as_posix() for path in source.rglob("*.py")]
    packages = {name for name in there if name.endswith("/__init__.py")}
    assert sorted(named) == sorted(set(there) - packages)


def check_layers(snippet: Snippet) -> None:
    """Check that the layers are those that are tested."""
    drawn = [sorted(line.split()) for line in snippet.text.splitlines()]
    assert drawn == [sorted(layer) for layer in reversed(LAYERS[:-1])]


def check_way(snippet: Snippet) -> None:
    """Check that what the diagram names is in the source."""
    pattern = r"\b[A-Z]\w+\.\w+|\b[a-z_]+(?=\()|\b[a-z]+_[a-z_]+\b"
    names = set(re.findall(pattern, snippet.text)) - {"call_soon"}  # asyncio's
    assert len(names) > 4
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for name in names:
        owner, _, method = name.rpartition(".")
        assert re.search(rf"\bdef {method}\(", source), name
        assert not owner or re.search(rf"\bclass {owner}\b", source), name


def check_access_log(snippet: Snippet) -> None:
    """Check that the lines are as they would be written."""
    for line in snippet.text.splitlines():
        parts = re.fullmatch(
            r'(\S+) "(\S+) (\S+) HTTP/(\S+)" (\S+) (\d+) ([\d.]+)s((?: \w+=[\d.]+)*) \[.*\]', line
        )
        assert parts, line
        client, method, target, version, code, size, seconds, times = parts.groups()
        spent = [float(each) for each in re.findall(r"=([\d.]+)", times)]
        entry = Entry(
            client.strip("-"),
            f"{method} {target} HTTP/{version}",
            None if code == "-" else int(code),
            int(size),
        )
        entry.sums = Sums(*spent) if spent else Sums(0.0, float(seconds), 0.0, 0.0)
        assert line.startswith(f"{form_of('times' if spent else 'plain')(entry)} [")


def check_log(snippet: Snippet) -> None:
    """Check the lines of a log against the texts in the source; the stack is left out."""
    formats = []
    for text in texts_of_the_source():
        form = text.removesuffix("\n…")
        if "…" in form and len(form.replace("…", "")) > 20:  # else it fits anything
            formats.append(re.escape(form).replace("…", ".+"))
    for line in snippet.text.splitlines():
        if not line.startswith("  "):
            message = re.sub(r"^\S+ \S+ [A-Z]+ ", "", line)
            assert any(re.fullmatch(each, message) for each in formats), message


def check_server_timing(snippet: Snippet) -> None:
    """Check that the header is as it would be sent, with these figures."""
    seconds = [float(each) / 1000 for each in re.findall(r"dur=([\d.]+)", snippet.text)]
    times: Any = SimpleNamespace(sums=lambda _: (None, Sums(*seconds), True))
    assert snippet.text.strip() == ": ".join(ServerTiming(times, 0.0)())


def check_top(snippet: Snippet) -> None:
    """Check that a screen of `bide top` is drawn so."""
    waiting = [104, 141, 162, 93, *[10] * 60]  # on each thread
    waits = [
        made.request(number, total=5.58, target="/wait?seconds=10", thread=f"thread-{number}")
        for number in range(1, 1001)
    ]
    blocks = [
        made.request(number, total=5.04, target="/block?seconds=8", state="running")
        for number in range(1001, 1005)
    ]
    threads = []
    for number, count in enumerate(waiting, 1):
        threads.append(made.thread(f"thread-{number}", waiting=count) | {"for": 0.0})
        if number <= len(blocks):
            threads[-1] |= {"state": "blocked", "for": 5.04, "request": f"0-{1000 + number}"}
    threads.append(made.thread("the event loop"))
    worker = made.snapshot(waits + blocks, threads, threads_max=4)
    found = made.instance(worker, name="examples.demo.app", pid=7542, addresses=["127.0.0.1:8000"])
    lines = picture(found, View(now=made.STARTED + 8.25), 80, 24).lines
    assert [each.plain.rstrip() for each in lines] == snippet.text.splitlines()


def check_instance(snippet: Snippet) -> None:
    """Check that it has what a server tells of itself, and nothing else."""
    shown = json.loads(snippet.text)
    told = Instance("shop", list).describe([snapshot()])
    (worker,), (real,) = shown["workers"], told["workers"]
    same(list(shown), list(told))
    same(list(worker), list(real))
    same(worker["counts"].keys() - real["counts"].keys(), set())
    (seen,) = worker["requests"]
    same(list(seen), [each.name for each in fields(bide.RequestStatus)])
    parts = sum(seen[each] for each in ("queued", "running", "waiting", "sending"))
    same(round(seen["total"] - parts, 6), 0.0)


TEXTS: Final[dict[str, Callable[[Snippet], None]]] = {
    "the-tree": check_tree,
    "modules": check_modules,
    "layers": check_layers,
    "the-way": check_way,
    "a-wait": check_way,
    "access-log": check_access_log,
    "server-timing": check_server_timing,
    "instance": check_instance,
    "forwarded-for": check_chain,
    "a-blocked-thread": check_log,
    "a-blocked-loop": check_log,
    "a-burst": check_log,
    "top": check_top,
}
CHECKS: Final[dict[str, Callable[[Snippet], None]]] = {
    "sh": check_shell,
    "ini": check_unit,
    "nginx": check_nginx,
    "haproxy": check_haproxy,
    "yaml": check_manifests,
    "procfile": check_procfile,
    "toml": check_log_config,
    "dockerfile": check_dockerfile,
}


def check_of(snippet: Snippet) -> Callable[[Snippet], None] | None:
    """Find the check of a snippet that is neither Python nor a console."""
    if snippet.language == "text" and len(snippet.words) == 2:
        return TEXTS.get(snippet.words[1])
    if snippet.text.startswith("# bide.toml\n"):
        return check_settings
    return CHECKS.get(snippet.language)


def test_every_snippet_has_a_test() -> None:
    """One that has none may say what is not so."""
    assert len(SNIPPETS) > 30
    for snippet in SNIPPETS:
        known = snippet.language in ("python", "console") or check_of(snippet) is not None
        assert known, f"{snippet} has no test: ```{' '.join(snippet.words)}"


@pytest.mark.parametrize("snippet", [each for each in SNIPPETS if check_of(each)], ids=str)
def test_other_snippets_are_as_the_code_is(snippet: Snippet, importing: Path) -> None:
    """Each kind has its own check."""
    # The pages about platforms go on with the application of the page on deployment.
    for module in modules_of(snippet.page) or modules_of("docs/deployment.md"):
        write(module, importing)
    check = check_of(snippet)
    assert check is not None
    check(snippet)
