"""The command line, in this process; nothing listens.

A server is started only where a test says so, and then by a fake that keeps what it was given.
"""

import asyncio
import dataclasses
import re
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bide
from bide import Settings, cli, starting
from bide.applications.mounts import Mounts
from bide.environment import flag
from bide.errors import BindError
from bide.process.signals import Signals
from bide.transports.handed_over import HandedOver
from tests.failures import Failures, same

Write = Callable[[str], None]


class Cli:
    """Runs the command line, and keeps what it says and what it would have served."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.served: list[tuple[Any, Settings]] = []
        self.fails: Exception | None = None
        self.name = ""
        self.out = ""
        self.err = ""

    def run(self, *arguments: str) -> int:
        """Run it; give its exit code."""
        with pytest.raises(SystemExit) as exited:
            cli.main(list(arguments))
        self.out, self.err = self._capsys.readouterr()
        code = exited.value.code
        assert isinstance(code, int)
        return code

    def serve(
        self,
        loop: asyncio.AbstractEventLoop,
        mounts: Mounts,
        settings: Settings,
        name: str,
        signals: Signals,
        handed_over: HandedOver,
        member: object = None,
    ) -> None:
        """Stand in for the server."""
        assert member is None
        loop.close()
        [mount] = mounts
        self.served.append((mount.application, settings))
        self.name = name or mount.name
        if self.fails is not None:
            raise self.fails

    @property
    def settings(self) -> Settings:
        """What the one server was given."""
        ((_, settings),) = self.served
        return settings


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return the command line."""
    command = Cli(capsys)
    monkeypatch.setattr(starting, "run_on", command.serve)
    monkeypatch.setattr(starting, "configure", lambda settings: None)
    return command


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return what writes ``webshop.py`` into the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text: str) -> None:
        (tmp_path / "webshop.py").write_text(textwrap.dedent(text), encoding="utf-8")

    write("def app(environ, start_response): pass\n")
    yield write
    sys.modules.pop("webshop", None)


APP = "webshop:app"


def test_the_version_is_printed(command: Cli) -> None:
    """Without an application; and whether it is compiled."""
    assert command.run("--version") == 0
    assert command.out == f"bide {bide.__version__} ({bide.status().form})\n"


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_setting(command: Cli, option: str) -> None:
    """Under its heading, with what it is for and what it is without being given."""
    assert command.run(option) == 0
    # A line may end at a hyphen, as that of "Server-Timing".
    said = " ".join(re.sub(r"(?<=\w-)\n +", "", command.out).split())
    for setting in dataclasses.fields(Settings):
        assert flag(setting.name) in said
        assert f"\n{setting.metadata['group']}:\n" in command.out
        default = setting.default
        if isinstance(default, tuple):
            default = " ".join(default)
        shown = f"{default:g}" if isinstance(default, float) else default
        expected = setting.metadata["help"] + (
            f" [default: {shown}]" if shown not in ("", False) else ""
        )
        assert " ".join(expected.split()) in said
    assert "MODULE:NAME" in said


def test_an_application_is_served_with_the_settings(write: Write, command: Cli) -> None:
    """Each option is a setting; those not given have their defaults."""
    assert (
        command.run(
            APP,
            *("--bind", "127.0.0.1:0"),
            *("-b", "unix:/run/x.sock"),
            *("-t", "8"),
            *("--queue-timeout", "2.5"),
            *("--executor", "threads"),
            *("--access-log", "-"),
        )
        == 0
    )
    ((application, settings),) = command.served
    assert application is sys.modules["webshop"].app
    assert command.name == APP
    assert settings == Settings(
        bind=("127.0.0.1:0", "unix:/run/x.sock"),
        threads=8,
        queue_timeout=2.5,
        executor="threads",
        access_log="-",
    )


def test_the_environment_gives_settings_and_the_command_line_goes_before_it(
    write: Write, command: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``BIDE_THREADS`` and so on; several addresses are parted by blanks."""
    monkeypatch.setenv("BIDE_THREADS", "8")
    monkeypatch.setenv("BIDE_QUEUE", "9")
    monkeypatch.setenv("BIDE_BIND", "127.0.0.1:1 127.0.0.1:2")
    assert command.run(APP, "--queue", "10") == 0
    assert command.settings.threads == 8
    assert command.settings.queue == 10
    assert command.settings.bind == ("127.0.0.1:1", "127.0.0.1:2")


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ("", "runs in threads, up to 4: webshop.app declares nothing, so it is assumed safe for"),
        (
            "app.__capabilities__ = frozenset({'async'})",
            "runs on the event loop: webshop.app declares async",
        ),
        (
            "app.__capabilities__ = frozenset({'processes'})",
            "runs in up to 4 child processes: webshop.app declares processes",
        ),
    ],
)
def test_explain_says_how_and_why_and_serves_nothing(
    write: Write, command: Cli, declared: str, line: str
) -> None:
    """One line for the mounted application."""
    write(f"def app(environ, start_response): pass\n{declared}\n")
    assert command.run(APP, "--explain") == 0
    assert command.out.startswith(f"/  webshop:app {line}")
    assert command.out.count("\n") == 1
    assert command.served == []


def test_explain_obeys_the_deployer(write: Write, command: Cli) -> None:
    """The reason is the option."""
    assert command.run(APP, "--explain", "--executor", "loop") == 0
    assert "runs on the event loop: --executor loop was given" in command.out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "Missing argument 'APP'."),
        ((APP, "--no-such"), "No such option"),
        ((APP, "--port", "http"), "'http' is not a valid integer"),
        ((APP, "--port", "1", "--bind", "127.0.0.1:1"), "either --bind, or --host and --port"),
        ((APP, "--certfiles", "x"), "No such option"),
    ],
)
def test_a_wrong_use_gets_one_line_and_code_2(
    write: Write, command: Cli, arguments: tuple[str, ...], line: str
) -> None:
    """And is told where the options are listed."""
    assert command.run(*arguments) == 2
    assert command.err.startswith("bide: ")
    assert line in command.err
    assert "bide --help lists the options" in command.err
    assert command.err.count("\n") == 1
    assert command.out == ""


def test_a_setting_that_cannot_be_read_gets_one_line_and_code_2(
    write: Write, command: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is called as its source calls it."""
    assert command.run(APP, "--threads", "many") == 2
    assert command.err == "bide: --threads is 'many': it must be a number\n"
    monkeypatch.setenv("BIDE_EXECUTOR", "both")
    assert command.run(APP) == 2
    assert (
        command.err == "bide: BIDE_EXECUTOR is 'both': it may be auto, loop, threads or processes\n"
    )
    monkeypatch.setenv("BIDE_EXECUTOR", "loop")
    (tmp_path / "bide.toml").write_text("thread = 5")
    assert command.run(APP) == 2
    assert command.err.startswith("bide: there is no setting 'thread' in bide.toml; did you mean")
    assert command.served == []


def test_several_applications_are_named_with_their_paths(write: Write, command: Cli) -> None:
    """And explained, each; what is not named so is refused."""
    write("def app(environ, start_response): ...\nasync def live(scope, receive, send): ...\n")
    assert command.run("/=webshop:app", "/live=webshop:live", "--explain") == 0
    first, second = command.out.splitlines()
    assert first.startswith("/  webshop:app runs in threads, up to 4: webshop.app declares nothing")
    assert second == (
        "/live  webshop:live runs on the event loop: it is an ASGI application, whose calls are "
        "tasks of the event loop; it is told of the server's start and end if it knows lifespans"
    )
    alone = ("/live=webshop:live", "--lifespan", "off", "--root-path", "/front")
    assert command.run(*alone, "--explain") == 0
    told, other, root = command.out.splitlines()
    assert told.endswith("; it is not told of the server's start and end (--lifespan off)")
    assert other == "/  no application: all other paths are answered 404"
    assert root == "/front stands before each path in SCRIPT_NAME and root_path (--root-path)"
    assert command.run(APP, "other") == 2
    assert command.err.startswith("bide: 'webshop:app' has no path or no application: write each")


def test_the_host_and_the_port_make_an_address(write: Write, command: Cli) -> None:
    """As people type them from habit; what is not given is as by default."""
    with Failures() as failures:
        for arguments, bind in [
            (("--port", "9000"), ("127.0.0.1:9000",)),
            (("--host", "0.0.0.0"), ("0.0.0.0:8000",)),
            (("--host", "::1", "--port", "0"), ("[::1]:0",)),
            ((), ()),
        ]:
            with failures.of(str(bind)):
                same(command.run(APP, *arguments), 0)
                same(command.served.pop()[1].bind, bind)


def test_the_file_gives_settings_and_another_one_can_be_named(
    write: Write, command: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an option, or by a variable."""
    for number, name in enumerate(["bide.toml", "other.toml", "third.toml"]):
        (tmp_path / name).write_text(f"threads = {number + 11}")
    monkeypatch.setenv("BIDE_CONFIG", "")
    for arguments in ((), ("--config", "other.toml")):
        assert command.run(APP, *arguments) == 0
    monkeypatch.setenv("BIDE_CONFIG", "third.toml")
    assert command.run(APP) == 0
    assert [settings.threads for _, settings in command.served] == [11, 12, 13]


def test_the_settings_are_printed_and_nothing_is_served(write: Write, command: Cli) -> None:
    """Each with where it comes from; no application is needed."""
    assert command.run("--print-settings", "--threads", "7") == 0
    assert "threads = 7  # --threads\n" in command.out
    assert "queue = 1000  # default\n" in command.out
    assert command.run("--print-settings", "--threads", "0") == 1
    assert command.err == "bide: --threads is 0: it must be 1 or more\n"
    assert command.served == []


def test_a_check_reports_all_that_is_wrong_at_once(
    write: Write, command: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Settings of every source, the application with its own frames, and what settings name."""
    write("raise OSError('no database')\n")
    (tmp_path / "bide.toml").write_text("thread = 5\nbind = ['nowhere', 'unix:no/dir/socket']")
    monkeypatch.setenv("BIDE_QUEUE", "many")
    monkeypatch.setenv("BIDE_REQUEST_ID", "Date")
    monkeypatch.setenv("BIDE_ACCESS_FORMAT", "{clint}")
    monkeypatch.setenv("BIDE_LOG_CONFIG", "no.json")
    assert command.run(APP, "--check", "--backlog", "0", "--access-log", "no/dir/log") == 1
    told = [line for line in command.err.splitlines() if line.startswith("bide: ")]
    assert [line.removeprefix("bide: ").partition(";")[0] for line in told] == [
        "BIDE_QUEUE is 'many': it must be a number",
        "there is no setting 'thread' in bide.toml",
        "--backlog is 0: it must be 1 or more",
        "cannot import webshop: OSError: no database",
        "the address 'nowhere' has no port: write nowhere:8000",
        f"cannot listen on unix:{tmp_path}/no/dir/socket: {tmp_path}/no/dir cannot be written to",
        "BIDE_ACCESS_FORMAT has {clint}: did you mean {client}?",
        f"cannot write the access log {tmp_path}/no/dir/log",
        "cannot read the log configuration no.json: No such file or directory",
        "BIDE_REQUEST_ID is 'Date': that header is used for something else",
    ]
    assert 'webshop.py", line 1, in <module>' in command.err
    assert command.served == []


def test_a_check_finds_nothing_where_nothing_is_wrong(
    write: Write, command: Cli, tmp_path: Path
) -> None:
    """Also while the server runs, and has the port. It says how the application would be run."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        log = tmp_path / "log"
        assert command.run(APP, "--check", "--bind", address, "--access-log", str(log)) == 0
    assert command.out.startswith("/  webshop:app runs in threads, up to 4: ")
    assert command.err == ""
    assert not log.exists()
    assert command.served == []


def test_a_check_tells_what_two_have_found_once(write: Write, command: Cli) -> None:
    """The address is looked at for itself, and to say how the application would be run."""
    assert command.run(APP, "--check", "--bind", "nowhere", "--bind", "no.such.invalid:0") == 1
    first, second = command.err.splitlines()
    assert first == "bide: the address 'nowhere' has no port: write nowhere:8000"
    assert second == "bide: cannot listen on no.such.invalid:0: the host is not known"


def test_a_check_finds_what_stands_where_a_socket_is_to_be(
    write: Write, command: Cli, tmp_path: Path
) -> None:
    """Though the directory can be written to."""
    (tmp_path / "shop").mkdir()
    assert command.run(APP, "--check", "--bind", f"unix:{tmp_path}/shop") == 1
    assert command.err == (
        f"bide: cannot listen on unix:{tmp_path}/shop: a directory exists already, and is not "
        f"removed; choose a path in it: unix:{tmp_path}/shop/bide.sock\n"
    )


@pytest.mark.parametrize("host", ["localhost:80", "http://localhost", "[::1]"])
def test_a_host_is_given_alone(command: Cli, host: str) -> None:
    """The port is another option."""
    assert command.run(APP, "--host", host) == 2
    assert f"--host is {host!r}: write a host alone, and --port for the port" in command.err


def test_a_check_asks_for_an_application(command: Cli) -> None:
    """It is one of the things that may be wrong."""
    assert command.run("--check") == 1
    assert "there is no application to import: write MODULE:NAME" in command.err


def test_the_application_is_imported_from_its_directory(
    write: Write, command: Cli, tmp_path: Path
) -> None:
    """And not from the current one, which may have a module of the same name."""
    there = tmp_path / "there"
    there.mkdir()
    (there / "webshop.py").write_text("def app(environ, start_response): return [b'there']\n")
    assert command.run(APP, "--app-dir", "there") == 0
    ((application, settings),) = command.served
    assert application({}, None) == [b"there"]
    assert settings.app_dir == str(there)
    assert command.run(APP, "--app-dir", "nowhere") == 1
    assert command.err == f"bide: {tmp_path}/nowhere is not a directory (--app-dir)\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((APP, "--threads", "0"), "bide: --threads is 0: it must be 1 or more\n"),
        (("no_such_module_at_all:app",), "bide: there is no module 'no_such_module_at_all'"),
        (("webshop:application",), "has no 'application'; it has app\n"),
    ],
)
def test_a_deployers_mistake_gets_one_line_and_code_1(
    write: Write, command: Cli, arguments: tuple[str, ...], line: str
) -> None:
    """What is wrong, and what there is."""
    assert command.run(*arguments) == 1
    assert line in command.err
    assert command.err.count("\n") == 1
    assert command.served == []


def test_an_address_in_use_gets_one_line_and_code_1(write: Write, command: Cli) -> None:
    """It is found when the server starts."""
    command.fails = BindError("cannot listen on 127.0.0.1:80: it is in use")
    assert command.run(APP) == 1
    assert command.err == "bide: cannot listen on 127.0.0.1:80: it is in use\n"


def test_an_error_in_the_users_module_shows_the_users_frames(write: Write, command: Cli) -> None:
    """From where their own code begins, and no further out; then the line."""
    write("def connect():\n    raise OSError('no database')\n\nconnect()\n")
    assert command.run(APP) == 1
    assert command.err.count("  File ") == 2
    assert 'webshop.py", line 4, in <module>' in command.err
    assert 'webshop.py", line 2, in connect' in command.err
    assert command.err.endswith("bide: cannot import webshop: OSError: no database\n")


def test_a_syntax_error_shows_its_line_and_a_caret(write: Write, command: Cli) -> None:
    """It is in no frame. Above it are those of the module that imports the one that has it."""
    write("def app(:\n")
    assert command.run(APP) == 1
    shown = command.err.splitlines()
    assert shown[0].endswith('webshop.py", line 1')
    assert shown[1:] == [
        "    def app(:",
        "            ^",
        "bide: cannot import webshop: SyntaxError: invalid syntax (webshop.py, line 1)",
    ]


def test_an_error_of_several_lines_gets_one(write: Write, command: Cli) -> None:
    """As those of database drivers, which end with a line break."""
    write("raise OSError('no database:\\n\\tis it running?\\n')\n")
    assert command.run(APP) == 1
    line = "bide: cannot import webshop: OSError: no database: is it running?"
    assert command.err.splitlines()[-1] == line


def test_an_error_of_the_server_is_not_swallowed(write: Write, command: Cli) -> None:
    """What is not a mistake of the deployer has its whole traceback."""
    command.fails = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main([APP])
