"""The command line, in this process; nothing listens.

A server is started only where a test says so, and then by a fake that keeps what it was given.
"""

import asyncio
import dataclasses
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bide
from bide import Settings, cli
from bide.errors import BindError
from bide.process.signals import Signals
from bide.settings import flag

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
        application: Any,
        settings: Settings,
        name: str,
        signals: Signals,
    ) -> None:
        """Stand in for the server."""
        loop.close()
        self.served.append((application, settings))
        self.name = name
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
    monkeypatch.setattr(cli, "run_on", command.serve)
    monkeypatch.setattr(cli, "configure", lambda settings: None)
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
    """Without an application."""
    assert command.run("--version") == 0
    assert command.out == f"bide {bide.__version__}\n"


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_setting(command: Cli, option: str) -> None:
    """Under its heading, with what it is for and what it is without being given."""
    assert command.run(option) == 0
    said = " ".join(command.out.split())
    for setting in dataclasses.fields(Settings):
        assert flag(setting.name) in said
        assert f"\n{setting.metadata['group']}:\n" in command.out
        default = setting.default
        if isinstance(default, tuple):
            default = " ".join(default)
        shown = f"{default:g}" if isinstance(default, float) else default
        expected = setting.metadata["help"] + (f" [default: {shown}]" if shown != "" else "")
        assert " ".join(expected.split()) in said
    assert "MODULE:NAME" in said


def test_an_application_is_served_with_the_settings(write: Write, command: Cli) -> None:
    """Each option is a setting; those not given have their defaults."""
    assert (
        command.run(
            APP,
            *("--bind", "127.0.0.1:0"),
            *("--bind", "unix:/run/x.sock"),
            *("--threads", "8"),
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
            "runs one request at a time, on a thread of its own: webshop.app declares proc",
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
        ((APP, "--workers", "4"), "No such option"),
        ((APP, "--threads", "many"), "'many' is not a valid integer"),
        ((APP, "--executor", "both"), "'both' is not one of 'auto', 'loop', 'threads'"),
        ((APP, "other"), "unexpected extra argument (other)"),
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


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((APP, "--threads", "0"), "bide: threads is 0: it must be 1 or more\n"),
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


def test_an_error_that_has_no_frame_of_the_users_gets_the_line_alone(
    write: Write, command: Cli
) -> None:
    """As a syntax error, which has no frame: the message says where it is."""
    write("def app(:\n")
    assert command.run(APP) == 1
    assert command.err.startswith("bide: cannot import webshop: SyntaxError")


def test_an_error_of_several_lines_gets_one(write: Write, command: Cli) -> None:
    """As those of database drivers, which end with a line break."""
    write("raise OSError('no database:\\n\\tis it running?\\n')\n")
    assert command.run(APP) == 1
    line = "bide: cannot import webshop: OSError: no database: is it running?"
    assert command.err.splitlines()[-1] == line


def test_an_error_of_the_server_is_not_swallowed(write: Write, command: Cli) -> None:
    """What is no mistake of the deployer's has its whole traceback."""
    command.fails = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main([APP])
