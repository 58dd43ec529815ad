"""Bide's worker class under a real arbiter: one flag changes, and gunicorn does what it does."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gunicorn")

from gunicorn.config import Config

from bide.errors import SettingError
from bide.hosts.gunicorn import _settings, _trusted
from tests.live.processes import Program, get
from tests.served import Client, Response, request, until

WORKER = "bide.hosts.gunicorn.Worker"

APP = """
import os, sys, threading, time
import bide

print("imported", file=sys.stderr, flush=True)
TEXT = "first"
lost = []


def say(text):
    print(text, file=sys.stderr, flush=True)


def read_gate():
    with open("gate") as gate:  # a FIFO: blocks until the test writes
        return gate.read()


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/wait":
        say("it waits")
        try:
            bide.wait(bide.in_thread(read_gate))
        finally:
            say("it waits no more")
    elif path == "/never":
        say("it waits")
        bide.wait(bide.waiting.outcome.Signal())
    elif path == "/block":
        say("it blocks")
        while True:
            time.sleep(60)
    elif path == "/fail":
        raise ValueError("this is the application's")
    elif path == "/lose":
        environ["kept"] = start_response("200 OK", [])
        environ["kept"].finish
        return None
    environ["app.user"] = "ann"
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Id", "seven")])
    if path == "/pid":
        return [str(os.getpid()).encode()]
    if path == "/scheme":
        return [environ["wsgi.url_scheme"].encode()]
    if path == "/client":
        told = environ.get("HTTP_X_FORWARDED_FOR", "nothing")
        return [f"{environ['REMOTE_ADDR']}, {told} was told".encode()]
    if path == "/environ":
        return [repr((environ["wsgi.multiprocess"], environ["wsgi.multithread"])).encode()]
    return [TEXT.encode()]


mounted = bide.mount({"/": app, "/shop": app})
together = bide.blocking(mounted)
looping = bide.capable("async", "threads", "processes")(lambda *args: app(*args))


async def asgi(scope, receive, send):
    pass
"""

HOOKS = """
import sys


def say(*words):
    print("hook:", *words, file=sys.stderr, flush=True)


def post_worker_init(worker):
    say("post_worker_init")


def pre_request(worker, req):
    say("pre_request", req.method, req.path)
    if req.path == "/refused":
        raise RuntimeError("the hook refuses")


def post_request(worker, req, environ, resp):
    say("post_request", req.path, environ["REQUEST_METHOD"], resp.status_code, worker.nr)
    if req.path == "/careless":
        raise RuntimeError("the hook is careless")


def worker_int(worker):
    say("worker_int")


def worker_abort(worker):
    say("worker_abort")


def worker_exit(server, worker):
    say("worker_exit")


def child_exit(server, worker):
    say("child_exit")
"""


class Gunicorn(Program):
    """A gunicorn with Bide's worker, on a free port of its own."""

    def __init__(self, directory: Path, *arguments: str, app: str = "app:app", **env: str) -> None:
        (directory / "app.py").write_text(APP)
        (directory / "gunicorn.conf.py").touch()
        if not (directory / "gate").exists():
            os.mkfifo(directory / "gate")
        self._directory = directory
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket"]
        kind = () if "-k" in arguments else ("-k", WORKER)
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        arguments = (*command, "-b", "127.0.0.1:0", *kind, *arguments, app)
        super().__init__(list(arguments), directory, (), **env)

    def listening(self) -> str:
        """Wait until it listens; give its first address, as for ``--bind``."""
        line = self.until("Listening at: ")
        return line.partition("Listening at: ")[2].split()[0].split(",")[0].removeprefix("http://")

    def end(self) -> None:
        """End it, and what it has started."""
        self.signal(signal.SIGSTOP)  # it starts no more
        for worker in _children(self._process.pid):
            os.kill(worker, signal.SIGKILL)
        self.close()

    def open_gate(self) -> None:
        """Fulfil the promise of the request that waits."""
        with (self._directory / "gate").open("w") as gate:
            gate.write("open")


Start = Callable[..., Gunicorn]


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a gunicorn in the test's directory, which ends with the test."""
    started: list[Gunicorn] = []

    def start(*arguments: str, **options: Any) -> Gunicorn:
        started.append(Gunicorn(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


def _children(pid: int) -> list[int]:
    """Return the processes that were started by one."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in text.split()]


def ask(address: str, path: str) -> Client:
    """Send a request; the answer is read later."""
    client = Client(address)
    client.send(request(path))
    return client


def fetch(address: str, path: str, *headers: str) -> Response:
    """Make one request with headers."""
    client = Client(address)
    try:
        client.send(request(path, headers=headers))
        return client.response()
    finally:
        client.close()


def test_one_flag_has_bide_serve_on_every_bind(gunicorn: Start, tmp_path: Path) -> None:
    """TCP and a Unix socket, shared by two workers; whoever waits holds no thread."""
    unix = f"unix:{tmp_path}/bide.sock"
    program = gunicorn("-b", unix, "-w", "2", "--threads", "1")
    tcp = program.listening()
    assert get(tcp).text == "first"
    assert get(unix).text == "first"
    assert fetch(tcp, "/environ").text == "(True, False)"
    assert fetch(tcp, "/scheme", "X-Forwarded-Proto: https").text == "https"
    # As gunicorn's own workers do, it passes on what it does not read.
    told = fetch(tcp, "/client", "X-Forwarded-For: 192.0.2.7")
    assert told.text == "127.0.0.1, 192.0.2.7 was told"
    pids: set[str] = set()

    def both() -> bool:
        clients = [ask(tcp, "/pid") for _ in range(4)]
        pids.update(client.response().text for client in clients)
        for client in clients:
            client.close()
        return len(pids) == 2

    until(both, "one worker has served them all")
    # More than there are threads, and then the one thread of each still answers.
    waiting = [ask(tcp, "/never") for _ in range(6)]
    for _ in waiting:
        program.until("it waits")
    assert get(tcp).text == "first"
    for client in waiting:
        client.close()
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert not Path(f"{tmp_path}/bide.sock").exists()


def test_gunicorn_finds_the_entry_point_of_the_distribution(gunicorn: Start) -> None:
    """``-k egg:bide#gunicorn``; plain ``-k bide`` it looks up in its own distribution only."""
    program = gunicorn("-k", "egg:bide#gunicorn")
    assert get(program.listening()).text == "first"
    named = gunicorn("-k", "bide")
    assert named.wait() != 0
    assert any("class uri 'bide' invalid or not found" in line for line in named.lines)


def test_a_hangup_brings_new_code_while_old_requests_end(gunicorn: Start, tmp_path: Path) -> None:
    """As the arbiter does it: new workers first, then the old ones stop gracefully."""
    program = gunicorn()
    address = program.listening()
    old = ask(address, "/wait")
    program.until("it waits")
    (tmp_path / "app.py").write_text(APP.replace("first", "second"))
    program.signal(signal.SIGHUP)
    until(lambda: get(address).text == "second", "the new code never answered")
    program.open_gate()
    assert old.response().text == "first"
    old.close()


def test_the_reloader_brings_new_code_and_waits_for_nobody(gunicorn: Start, tmp_path: Path) -> None:
    """With ``--reload`` nobody serves until the old worker is gone: it is not to wait for long."""
    program = gunicorn("--reload", "--reload-engine", "poll")
    address = program.listening()
    old = ask(address, "/never")
    program.until("it waits")
    path = tmp_path / "app.py"
    path.write_text(APP.replace("first", "second"))
    seen = threading.Event()

    def touch() -> None:
        # The reloader sees no change before its first look, which nothing tells.
        later = path.stat().st_mtime
        while not seen.wait(0.1):
            later += 1
            os.utime(path, (later, later))

    toucher = threading.Thread(target=touch)
    toucher.start()
    try:
        program.until("app.py modified")
    finally:
        seen.set()
        toucher.join()
    assert old.response().status == 503
    old.close()
    until(lambda: get(address).text == "second", "the new code never answered")


def test_no_request_is_lost_when_workers_have_had_enough(gunicorn: Start) -> None:
    """``max_requests``: each is replaced many times below this load, and all are answered."""
    program = gunicorn("-w", "2", "--max-requests", "15", "--max-requests-jitter", "10")
    address = program.listening()
    get(address)
    texts: list[str] = []

    def visit() -> None:
        texts.extend(get(address, "/pid").text for _ in range(60))

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for each in visitors:
        each.start()
    for each in visitors:
        each.join()
    assert len(texts) == 240, "a request was lost"
    assert "" not in texts
    assert len(set(texts)) > 4, "the workers were not replaced"
    program.until("Autorestarting worker after current request.")


def test_a_stop_finishes_what_is_in_progress(gunicorn: Start, tmp_path: Path) -> None:
    """SIGTERM: the request that waits is answered, then the hooks run and the arbiter ends."""
    (tmp_path / "gunicorn.conf.py").write_text(HOOKS)
    program = gunicorn()
    address = program.listening()
    client = ask(address, "/wait")
    program.until("it waits")
    program.signal(signal.SIGTERM)
    program.until("Handling signal: term")
    program.open_gate()
    assert client.response().text == "first"
    client.close()
    assert program.wait() == 0
    said = [line.removeprefix("hook: ") for line in program.lines if line.startswith("hook: ")]
    assert said == [
        "post_worker_init",
        "pre_request GET /wait",
        "post_request /wait GET 200 0",
        "worker_exit",
        "child_exit",
    ]


def test_what_does_not_finish_in_time_is_told_so(gunicorn: Start) -> None:
    """Before the arbiter kills: an answer to the client, and the application may clean up."""
    program = gunicorn("--graceful-timeout", "10")  # of which the last 2 s are for the end
    address = program.listening()
    client = ask(address, "/never")
    program.until("it waits")
    program.signal(signal.SIGTERM)
    assert client.response().status == 503
    client.close()
    assert program.wait() == 0
    assert not [line for line in program.lines if "SIGKILL" in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_waits_for_nobody(
    gunicorn: Start, tmp_path: Path, number: signal.Signals
) -> None:
    """Neither for a request that waits nor for a thread that is blocked; the hooks run still."""
    (tmp_path / "gunicorn.conf.py").write_text(HOOKS)
    program = gunicorn("--threads", "2")
    address = program.listening()
    clients = [ask(address, "/never"), ask(address, "/wait")]
    for _ in clients:
        program.until("it waits")
    program.signal(number)
    for client in clients:
        assert client.rest() == b""
        client.close()
    assert program.wait() == 0
    assert "hook: worker_int" in program.lines
    assert "hook: worker_exit" in program.lines
    assert "hook: child_exit" in program.lines


def test_a_worker_whose_loop_is_blocked_is_replaced(gunicorn: Start, tmp_path: Path) -> None:
    """Its heart beats on the loop: what blocks that stops all, so the arbiter's time-out counts."""
    (tmp_path / "gunicorn.conf.py").write_text(HOOKS)
    program = gunicorn("--timeout", "1", app="app:looping")
    address = program.listening()
    first = get(address, "/pid").text
    client = ask(address, "/block")
    program.until("WORKER TIMEOUT")
    program.until("hook: worker_abort")
    assert client.response().status == 500
    client.close()
    until(lambda: get(address, "/pid").text != first, "it was not replaced")


def test_a_worker_whose_lane_is_blocked_is_not_replaced(gunicorn: Start) -> None:
    """It serves others meanwhile; the monitor names what blocks, in gunicorn's error log."""
    program = gunicorn(
        "--timeout",
        "1",
        "--threads",
        "2",
        BIDE_BLOCKED_THREAD="1.8",
        BIDE_THREADS="7",
        BIDE_TRUST="127.0.0.0/30",
    )
    address = program.listening()
    # Whom Bide trusts, gunicorn's forwarded_allow_ips need not name, for the client and the scheme.
    told = fetch(address, "/client", "X-Forwarded-For: 1.1.1.1, 192.0.2.7")
    assert told.text == "192.0.2.7, 192.0.2.7 was told"
    forwarded = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https")
    assert fetch(address, "/scheme", *forwarded).text == "https"
    first = get(address, "/pid").text
    client = ask(address, "/block")
    line = program.until("GET /block of app")
    assert "[INFO]" in line
    assert not [each for each in program.lines if "WORKER TIMEOUT" in each]
    assert get(address, "/pid").text == first
    client.close()


def test_logs_are_gunicorns_in_its_formats(gunicorn: Start, tmp_path: Path) -> None:
    """The access log with what the application has put into headers and environ; errors too."""
    (tmp_path / "gunicorn.conf.py").write_text(
        "access_log_format = '%(h)s %(r)s %(s)s %(b)s %({x-id}o)s %({x-from}i)s %({host}i)s'\n"
        "accesslog = 'access.log'\n"
        "errorlog = 'error.log'\n"
        "forwarded_allow_ips = '10.0.0.0/8'\n"
        f"bind = ['127.0.0.1:0', 'unix:{tmp_path}/bide.sock']\n"
    )
    program = gunicorn("-b", f"unix:{tmp_path}/bide.sock")
    errors, accesses = tmp_path / "error.log", tmp_path / "access.log"
    until(lambda: errors.exists() and "Booting" in errors.read_text(), "it never began")
    text = errors.read_text()
    address = text.partition("http://")[2].split(",")[0].split()[0]

    # Believed of those that are listed, and of a Unix socket's peers.
    assert fetch(address, "/scheme", "X-Forwarded-Proto: https").text == "http"
    unix = f"unix:{tmp_path}/bide.sock"
    assert fetch(unix, "/scheme", "X-Forwarded-Proto: https").text == "https"
    both = ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off")
    assert fetch(unix, "/scheme", *both).text == "http"

    assert fetch(address, "/a?b=c", "X-From: here").text == "first"
    line = "127.0.0.1 GET /a?b=c HTTP/1.1 200 5 seven here test\n"
    until(lambda: line in accesses.read_text(), "not logged as the format says")

    assert get(address, "/fail").status == 500
    until(lambda: "GET /fail HTTP/1.1 500 " in accesses.read_text(), "the failure was not logged")
    until(lambda: "ValueError: this is the application's" in errors.read_text(), "no traceback")
    assert "[ERROR] the application failed: GET /fail of app" in errors.read_text()

    # finish can be called no more, though the log holds on to some of the environ.
    assert get(address, "/lose").status == 500
    until(lambda: "took finish() and lost it" in errors.read_text(), "it was not noticed")

    client = ask(address, "/never")
    until(lambda: "GET /never" not in accesses.read_text(), "it waits")
    client.close()
    until(lambda: "GET /never HTTP/1.1 499 " in accesses.read_text(), "its leaving was not logged")

    accesses.rename(tmp_path / "access.log.1")
    program.signal(signal.SIGUSR1)
    until(lambda: get(address, "/b").status and accesses.exists(), "the file was not reopened")


def test_hooks_around_a_request_that_fail_spoil_no_other(gunicorn: Start, tmp_path: Path) -> None:
    """One before it makes it fail, one after it is logged; the worker serves on."""
    (tmp_path / "gunicorn.conf.py").write_text(HOOKS)
    program = gunicorn()
    address = program.listening()
    assert get(address, "/refused").status == 500
    program.until("RuntimeError: the hook refuses")
    assert get(address, "/careless").text == "first"
    program.until("Exception in post_request hook")
    assert get(address, "/ok").text == "first"
    program.until("hook: post_request /ok GET 200 2")


def test_an_application_loaded_before_the_fork_serves_in_each_worker(gunicorn: Start) -> None:
    """``preload_app``: imported once, by the arbiter; waits work in its children."""
    # The second worker may be told to stop before it listens to signals: the arbiter then kills it.
    program = gunicorn("--preload", "-w", "2", "--graceful-timeout", "2")
    address = program.listening()
    client = ask(address, "/wait")
    program.until("it waits")
    program.open_gate()
    assert client.response().text == "first"
    client.close()
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.lines.count("imported") == 1


def test_a_prefix_in_the_environment_is_taken_off_the_path(gunicorn: Start) -> None:
    """``SCRIPT_NAME``, which gunicorn's own workers honour."""
    program = gunicorn("-e", "SCRIPT_NAME=/below")
    assert get(program.listening(), "/below/pid").text.isdecimal()


@pytest.mark.parametrize(
    ("arguments", "app", "variables", "line"),
    [
        (("--certfile", "x"), "app:app", {}, "has no certfile: use a proxy in front"),
        (("-c", "proxied.py"), "app:app", {}, "has no proxy_protocol: use a proxy"),
        ((), "app:asgi", {}, "ASGI"),
        ((), "app:app", {"BIDE_QUEUE": "many"}, "BIDE_QUEUE is 'many': it must be a number"),
        ((), "app:app", {"BIDE_REACTOR": "twisted"}, "start with bide --reactor twisted"),
    ],
    ids=["tls", "proxy-protocol", "asgi", "variable", "reactor"],
)
def test_what_cannot_be_served_ends_the_arbiter_with_a_line(
    gunicorn: Start,
    tmp_path: Path,
    arguments: tuple[str, ...],
    app: str,
    variables: dict[str, str],
    line: str,
) -> None:
    """Once, and not again for one worker after another."""
    (tmp_path / "x").touch()
    (tmp_path / "proxied.py").write_text("proxy_protocol = True\n")
    program = gunicorn(*arguments, app=app, **variables)
    assert program.wait() == 3
    found = [each for each in program.lines if line in each]
    assert len(found) == 1, program.lines
    assert sum("Booting worker" in each for each in program.lines) == 1


@pytest.mark.parametrize("arguments", [(), ("--preload",)])
def test_several_applications_are_refused_with_what_to_write(
    gunicorn: Start, arguments: tuple[str, ...]
) -> None:
    """Once, wherever gunicorn imports them."""
    program = gunicorn(*arguments, app="app:mounted")
    assert program.wait() != 0
    lines = [each for each in program.lines if "write bide.blocking(bide.mount({...}))" in each]
    assert len(lines) == 1, program.lines


def test_several_applications_are_served_as_one_and_wait_without_a_thread(gunicorn: Start) -> None:
    """As the refusal says; each at its path, below gunicorn's own prefix."""
    program = gunicorn("--threads", "1", "-e", "SCRIPT_NAME=/below", app="app:together")
    address = program.listening()
    client = ask(address, "/below/shop/wait")
    program.until("it waits")
    for path in ("/below/pid", "/below/shop/pid"):
        assert get(address, path).text.isdecimal()
    program.open_gate()
    assert client.response().text == "first"
    client.close()


def configured(**settings: Any) -> Config:
    """Make a gunicorn configuration."""
    config = Config()
    for name, value in settings.items():
        config.set(name, value)
    return config


def test_gunicorns_settings_are_bides_where_both_have_them() -> None:
    """And a variable counts where gunicorn's has its default, always where Bide alone has it."""
    plain = _settings(configured(), {})
    assert (plain.threads, plain.limit_connections, plain.queue) == (1, 1000, 1000)
    given = _settings(
        configured(threads=3, worker_connections=50, limit_request_fields=0),
        {"BIDE_THREADS": "8", "BIDE_LIMIT_REQUEST_LINE": "512", "BIDE_QUEUE": "5"},
    )
    assert (given.threads, given.limit_connections, given.limit_fields) == (3, 50, 32768)
    assert (given.limit_request_line, given.queue) == (512, 5)
    assert _settings(configured(), {"BIDE_THREADS": "8"}).threads == 8


def test_requests_are_cancelled_before_the_arbiter_kills() -> None:
    """Its time runs from the same moment; with the reloader everybody waits for the old worker."""
    assert _settings(configured(graceful_timeout=30), {}).graceful_timeout == 28.0
    assert _settings(configured(graceful_timeout=1), {}).graceful_timeout == 0.8
    assert _settings(configured(graceful_timeout=30, reload=True), {}).graceful_timeout == 1.0


def test_a_setting_that_bide_cannot_have_is_refused() -> None:
    """With Bide's own message."""
    with pytest.raises(SettingError, match="limit_request_line is 20: it must be 64 or more"):
        _settings(configured(limit_request_line=20), {})


@pytest.mark.parametrize(
    ("allowed", "address", "trusted"),
    [
        (["127.0.0.1", "::1"], "127.0.0.1", True),
        (["127.0.0.1", "::1"], "127.0.0.2", False),
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["*"], "192.0.2.1", True),
        ("127.0.0.1,fe80::/10", "fe80::1%eth0", True),
        (["10.0.0.0/8"], "", True),
        ([""], "127.0.0.1", False),
    ],
)
def test_proxies_are_believed_as_gunicorn_believes_them(
    allowed: Any, address: str, trusted: bool
) -> None:
    """``forwarded_allow_ips``: addresses, networks, or all; a Unix socket's peer always."""
    assert _trusted(allowed)(address) is trusted
