"""Native Windows, simulated: waiting works, and a server is refused in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent


def on_windows(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that has what Windows has; return how it ended."""
    begin = "from tests.systems.windows import become_windows; become_windows()\n"
    command = [sys.executable, "-c", begin + script]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)


def test_waiting_works() -> None:
    """In a script, or under a server that runs there."""
    done = on_windows(
        "import asyncio, bide\n"
        "print(bide.wait(asyncio.sleep(0, 'slept')), bide.wait(bide.in_thread(len, 'four')))\n"
        "print(bide.wait_all(asyncio.sleep(0, 1), asyncio.sleep(0, 2), timeout=30))\n"
        "with bide.Lock(): pass\n"
    )
    assert (done.stdout, done.stderr) == ("slept 4\n[1, 2]\n", "")


def test_every_public_name_can_be_imported() -> None:
    """A library that names the server, for a hint of a type as it may be, can be loaded."""
    done = on_windows("from bide import *\nprint(wait.__name__, run.__name__, Server.__name__)")
    assert (done.stdout, done.stderr) == ("wait run Server\n", "")


@pytest.mark.parametrize("arguments", [["app:app"], ["app:app", "--check"], ["top"], ["stop"]])
def test_the_command_line_refuses_in_one_line(arguments: list[str]) -> None:
    """Before it loads what would fail with an AttributeError."""
    done = on_windows(f"import sys; sys.argv[1:] = {arguments}\nimport bide.cli\nbide.cli.main()")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "bide: Bide's server does not run on native Windows, which has no fork and few signals: "
        "use WSL or a Linux container\n"
    )


def test_the_command_line_still_tells_what_it_is() -> None:
    """Help, the version and the settings need no server."""
    for argument, said in (("--help", "Usage: bide"), ("--version", "bide 0."), ("-h", "Usage:")):
        done = on_windows(
            f"import sys; sys.argv[1:] = ['{argument}']\nimport bide.cli\nbide.cli.main()"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(said)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("bide.run(len)", "Bide's server"),
        ("asyncio.run(bide.Server(app, bind='127.0.0.1:0').start())", "Bide's server"),
        ("bide.in_process(len, 'four')", "bide.in_process"),
        ("bide.resident(dict)", "bide.resident"),
    ],
)
def test_what_needs_processes_or_a_server_raises_one_error(call: str, what: str) -> None:
    """It names what was asked for."""
    done = on_windows(
        "import asyncio, bide\n"
        "app = lambda environ, start_response: []\n"
        f"try:\n    {call}\nexcept bide.StartError as error:\n    print(error)"
    )
    assert done.stdout.startswith(f"{what} does not run on native Windows"), done.stderr
