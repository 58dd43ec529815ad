"""``bide MODULE:NAME`` as its user meets it: a process, its lines and its exit code."""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

import bide
from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import until

SOURCE = '''
import bide

def app(environ, start_response):
    """Say hello."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"app " + environ["QUERY_STRING"].encode()]

def make(greeting="made", *, name=""):
    def made(environ, start_response):
        start_response("200 OK", [])
        return [(greeting + name).encode()]
    return made

@bide.capable("async")
def asynchronous(environ, start_response):
    start_response("200 OK", [])
    return [b"asynchronous"]

@bide.capable("processes")
def alone(environ, start_response):
    start_response("200 OK", [])
    return [b"alone"]

async def coroutine(environ, start_response):
    start_response("200 OK", [])
    return [b"coroutine"]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"asgi"})

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

def unclear(*args):
    pass

class Site:
    def handle(self, environ, start_response):
        start_response("200 OK", [])
        return [b"handled"]

site = Site()
number = 7

def wrong(one):
    pass
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> Path:
    """Write the module ``mysite``, which is importable where it stands."""
    path = tmp_path / "mysite.py"
    path.write_text(SOURCE)
    (tmp_path / "plain.py").write_text(SOURCE.replace("def app(", "def application("))
    return path


@pytest.mark.parametrize(
    ("arguments", "body", "how"),
    [
        (["mysite:app"], b"app ", "in up to 4 threads"),
        (["mysite"], b"app ", "in up to 4 threads"),
        (["plain"], b"app ", "in up to 4 threads"),
        (["mysite:make()"], b"made", "in up to 4 threads"),
        (["mysite:make('hi', name=' you')", "--threads", "2"], b"hi you", "in up to 2 threads"),
        (["mysite:site.handle"], b"handled", "in up to 4 threads"),
        (["mysite:asynchronous"], b"asynchronous", "on the event loop"),
        (["mysite:coroutine"], b"coroutine", "on the event loop"),
        (["mysite:asgi"], b"asgi", "on the event loop"),
        (
            ["/=mysite:asgi", "/app=mysite:app"],
            b"asgi",
            "loop, /app in up to 4 threads",
        ),
        (["mysite:app", "--executor", "loop"], b"app ", "on the event loop"),
        (["mysite:asynchronous", "--executor", "threads"], b"asynchronous", "in up to 4 threads"),
        (["mysite:alone"], b"alone", "in up to 4 child processes"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_the_first_line_says_where_it_listens_and_how_it_runs(
    start: Start, arguments: list[str], body: bytes, how: str
) -> None:
    """And it is served there, that way."""
    program = start(*arguments, "--bind", "127.0.0.1:0")
    address = program.serving()
    assert len(program.lines) == 1
    assert program.lines[0].endswith(how)
    assert get(address).body == body


def test_the_installed_program_is_the_same(start: Start, tmp_path: Path) -> None:
    """``bide`` beside the interpreter, without the current directory in Python's own path."""
    name = os.path.join(os.path.dirname(sys.executable), "bide")
    program = start("mysite:app", "--bind", "127.0.0.1:0", program=[name])
    assert get(program.serving(), "/?x").body == b"app x"


def test_several_addresses_are_listened_on(start: Start, tmp_path: Path) -> None:
    """`--bind` may be repeated; each is named."""
    path = tmp_path / "socket"
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--bind", f"unix:{path}")
    address = program.serving()
    assert f"unix:{path}" in program.lines[0]
    assert get(address).body == get(f"unix:{path}").body == b"app "


def test_the_environment_gives_settings(start: Start) -> None:
    """`BIDE_BIND`, `BIDE_THREADS` and the others; the command line goes before them."""
    program = start(
        "mysite:app", "--threads", "3", BIDE_BIND="127.0.0.1:0", BIDE_THREADS="2", BIDE_QUEUE="5"
    )
    assert get(program.serving()).status == 200
    assert program.lines[0].endswith("in up to 3 threads")


def test_a_program_in_python_reads_the_environment_and_names_its_application(
    start: Start, tmp_path: Path
) -> None:
    """As the command line does; its keywords go before. The application sees the log configured."""
    script = tmp_path / "script.py"
    script.write_text("import bide\nbide.run('mysite:app', threads=3)\n")
    variables = {"BIDE_BIND": "127.0.0.1:0", "BIDE_THREADS": "2", "BIDE_HEALTH": "/up"}
    program = start(str(script), program=[sys.executable], **variables)
    address = program.serving()
    assert "serving mysite:app on " in program.lines[0]
    assert program.lines[0].endswith("in up to 3 threads")
    assert get(address, "/up").body != get(address).body == b"app "


def test_a_server_in_python_reads_the_environment_and_names_its_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is served where a variable says."""
    path = tmp_path / "socket"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("BIDE_BIND", f"unix:{path}")

    async def serve() -> None:
        async with bide.Server("mysite:app", threads=3) as server:
            assert server.dispatcher.name == "mysite:app"
            assert (await asyncio.to_thread(get, f"unix:{path}")).body == b"app "

    try:
        asyncio.run(serve())
        with pytest.raises(bide.StartError, match="there is no module 'mysit'"):
            bide.Server("mysit:app")
    finally:
        sys.modules.pop("mysite", None)


def test_a_wrong_variable_is_named(start: Start) -> None:
    """In one line."""
    program = start("mysite:app", BIDE_THREADS="many", BIDE_THRED="4")
    assert program.wait() == 2
    assert program.lines == ["bide: BIDE_THREADS is 'many': it must be a number"]


def test_the_access_log_goes_to_standard_output(start: Start) -> None:
    """A line for each request, and none of the server's own."""
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--access-log", "-")
    address = program.serving()
    assert get(address, "/path?query").status == 200
    until(lambda: program.output)
    assert program.output[0].startswith('127.0.0.1 "GET /path?query HTTP/1.1" 200 9 ')


def test_the_log_has_its_level_and_its_form(start: Start, tmp_path: Path) -> None:
    """At the level debug it says which form of Bide runs; at warning, not even where it listens."""
    path = tmp_path / "socket"
    program = start(
        *("mysite:app", "--bind", "127.0.0.1:0"), *("--log-level", "debug", "--log-format", "json")
    )
    assert json.loads(program.until("serving mysite:app"))["level"] == "info"
    assert "debug" in [json.loads(line)["level"] for line in program.lines]
    program = start("mysite:app", "--bind", f"unix:{path}", "--log-level", "warning")
    until(lambda: path.exists() and reached(path))
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.lines == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mysite:app"], "in threads, up to 4: mysite.app declares nothing"),
        (["mysite:asynchronous"], "on the event loop: mysite.asynchronous declares async"),
        (["mysite:alone"], "in up to 4 child processes: mysite.alone declares processes"),
        (["mysite:app", "--executor", "loop"], "--executor loop was given"),
        (["mysite:coroutine"], "coroutine function"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_explain_prints_the_decision_and_its_reason(
    start: Start, arguments: list[str], says: str
) -> None:
    """On standard output, and serves nothing."""
    program = start(*arguments, "--explain")
    assert program.wait() == 0
    assert program.lines == []
    assert len(program.output) == 1
    assert program.output[0].startswith(f"/  {arguments[0]} runs ")
    assert says in program.output[0]


def test_the_version_is_printed(start: Start) -> None:
    """And nothing else."""
    program = start("--version")
    assert program.wait() == 0
    assert program.output[0].startswith("bide ")
    assert (len(program.output), program.lines) == (1, [])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "APP"),
        (["mysite:app", "--treads", "4"], 2, "--threads"),
        (["mysite:app", "--threads", "0"], 1, "threads"),
        (["mysite:app", "--threads", "some"], 2, "some"),
        (["mysite:app", "--executor", "fast"], 2, "fast"),
        (["mysite:app", "--access-logfile", "-"], 2, "--access-log"),
        (["mysite:app", "--access-format", "{x}"], 1, "--access-format has {x}: the fields are"),
        (["mysite:app", "--config", "no.toml"], 2, "no.toml: No such file"),
        (["mysite:app", "--bind", "127.0.0.1"], 1, "has no port: write 127.0.0.1:8000"),
        (["mysite:app", "--bind", "::1:8000"], 1, "[::1]:8000"),
        (["mysite:app", "--bind", "127.0.0.1:99999"], 1, "99999"),
        (["mysite:app", "--bind", "192.0.2.1:0"], 1, "no such address"),
        (["mysite:app", "--bind", "no.such.host.invalid:0"], 1, "not known"),
        (["mysite:app", "--bind", "unix:/no/such/directory/socket"], 1, "directory is not there"),
        (["mysite:app", "--access-log", "/no/such/directory/log"], 1, "/no/such/directory/log"),
        (["mysit:app"], 1, "there is no module 'mysit'"),
        (["mysit:app"], 1, "there is mysite"),
        (["mysite.app"], 1, "no module 'mysite.app'"),
        (["mysite:ap"], 1, "it has app, "),
        (["mysite.py"], 1, "mysite:app"),
        (["mysite:number"], 1, "int is not callable"),
        (["mysite:unclear"], 1, "write wsgi:mysite:unclear or asgi:mysite:unclear"),
        (["mysite:failing"], 1, "mysite:failing has failed to start: no database"),
        (
            ["mysite:app", "mysite:asgi"],
            2,
            "write each of several applications as /PATH=MODULE:NAME",
        ),
        (["mysite:make"], 1, "mysite:make()"),
        (
            ["mysite:asgi", "--executor", "processes"],
            1,
            "is an ASGI application, which runs on the",
        ),
        (["mysite:wrong"], 1, "does not take (environ, start_response)"),
        (["mysite:app("], 1, "neither a name nor a call"),
        (["os"], 1, "neither app nor application"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_a_mistake_gets_one_line_and_a_non_zero_exit(
    start: Start, arguments: list[str], code: int, says: str
) -> None:
    """It says what is wrong, and what there is."""
    program = start(*arguments)
    assert program.wait() == code
    assert program.output == []
    assert len(program.lines) == 1, program.lines
    assert program.lines[0].startswith("bide: ")
    assert says in program.lines[0]


def test_an_address_in_use_is_named_in_one_line(start: Start) -> None:
    """And the one that has it goes on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        program = start("mysite:app", "--bind", address)
        assert program.wait() == 1
        assert len(program.lines) == 1
        assert f"cannot listen on {address}: it is in use" in program.lines[0]


def test_a_full_disk_under_the_access_log_is_told_and_the_server_goes_on(start: Start) -> None:
    """In one line, however many requests come."""
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--access-log", "/dev/full")
    address = program.serving()
    for _ in range(3):
        assert get(address).status == 200
    program.until("ERROR cannot write the access log: No space left on device; its lines are lost")
    assert get(address).status == 200
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert sum("No space left" in line for line in program.lines) == 1


def test_a_full_disk_under_the_log_itself_ends_nothing(start: Start, tmp_path: Path) -> None:
    """Nobody is left to be told."""
    path = tmp_path / "socket"
    command = ["sh", "-c", f'exec {sys.executable} -m bide "$@" 2>/dev/full', "bide"]
    program = start("mysite:app", "--bind", f"unix:{path}", program=command)
    until(lambda: path.exists() and reached(path))
    for _ in range(3):
        assert get(f"unix:{path}", "/?x").body == b"app x"
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.lines == []


def reached(path: Path) -> bool:
    """Whether a server listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


BROKEN = """
def helper():
    return undefined_name

app = helper()
"""


@pytest.mark.parametrize(
    ("source", "spec", "says", "frames"),
    [
        (BROKEN, "broken:app", "NameError", 2),
        ("import no_such_package\n", "broken:app", "no_such_package", 1),
        ("def app(:\n", "broken:app", "SyntaxError", 1),
        ("raise SystemExit(3)\n", "broken:app", "SystemExit: 3", 1),
        ("def make():\n    raise LookupError('no')\n", "broken:make()", "LookupError: no", 1),
    ],
    ids=["NameError", "import", "syntax", "exit", "factory"],
)
def test_an_error_in_the_user_s_module_shows_the_user_s_own_frames(
    start: Start, tmp_path: Path, source: str, spec: str, says: str, frames: int
) -> None:
    """None of Bide's, none of the import system's; the last line says it in one."""
    (tmp_path / "broken.py").write_text(source)
    program = start(spec)
    assert program.wait() == 1
    shown = [line for line in program.lines if line.strip().startswith("File ")]
    assert len(shown) == frames, program.lines
    assert all("broken.py" in line for line in shown)
    assert program.lines[-1].startswith("bide: ")
    assert says in program.lines[-1]
