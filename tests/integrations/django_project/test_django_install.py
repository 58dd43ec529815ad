"""Putting the integration in force: by one line, and with one clear error where it cannot be."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured

import bide.integrations.django as integration
from bide import StartError
from tests.integrations.django_project.conftest import Project
from tests.ports import free_port
from tests.served import DEADLINE, until

ROOT = Path(__file__).parent.parent.parent.parent
SETTINGS = "tests.integrations.django_project.settings"


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program that knows nothing of this process's Django."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**env, **variables},
        cwd=ROOT,
        timeout=DEADLINE,
        check=False,
    )


def test_an_older_django_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the version that is wanted."""
    monkeypatch.setattr("django.VERSION", (4, 2, 0, "final", 0))
    with pytest.raises(StartError, match=r"made for Django 5\.2 and later; this is \d"):
        integration.install()


def test_a_missing_django_is_named() -> None:
    """With what to install."""
    code = "import sys; sys.modules['django'] = None; import bide.integrations.django"
    result = python(code)
    assert result.stderr.rstrip().endswith(
        "StartError: bide.integrations.django needs Django: "
        "pip install 'django>=5.2', or bide[django]"
    )


def test_a_django_that_has_other_insides_is_named() -> None:
    """What is put in their place would not be looked at."""
    code = (
        "import asgiref.sync as sync; del sync._restore_context; "
        "import bide.integrations.django as integration; integration.install()"
    )
    result = python(code, DJANGO_SETTINGS_MODULE=SETTINGS)
    last = result.stderr.splitlines()[-1]
    assert "StartError: bide.integrations.django does not support Django" in last
    assert "_restore_context" in last


def test_a_django_without_settings_is_named() -> None:
    """With what to do."""
    result = python("import bide.integrations.django as integration; integration.install()")
    assert (
        "StartError: bide.integrations.django needs Django's settings: set"
        in (result.stderr.splitlines()[-1])
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "BIDE is a dictionary, not list"),
        ({"WAIT": True}, "BIDE has no 'WAIT'; it has WAIT_IN_ATOMIC, CONNECTIONS_PER_THREAD"),
        ({"WAIT_IN_ATOMIC": 0}, "is True or False, not 0"),
        ({"CONNECTIONS_PER_THREAD": 0}, "is a number, 1 or more, not 0"),
        ({"CONNECTIONS_PER_THREAD": True}, "is a number, 1 or more, not True"),
        ({"CONNECTION_TIMEOUT": -1}, "is a number of seconds, 0 or more, not -1"),
        ({"KEEP_CONNECTION": "ever"}, "is 'request' or 'transaction', not 'ever'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(project: Project, value: Any, message: str) -> None:
    """Before anything has been put in force."""
    project.options = value
    with pytest.raises(ImproperlyConfigured, match=message.replace("(", r"\(")):
        project.serve({})


def test_installing_twice_is_installing_once(project: Project) -> None:
    """As when both the settings and ``wsgi.py`` have it."""
    from asgiref.sync import AsyncToSync

    before = AsyncToSync.__call__
    take_back = integration.install()
    integration.install()()
    assert AsyncToSync.__call__ is not before
    take_back()
    assert AsyncToSync.__call__ is before


@pytest.fixture
def variables(django: None, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a program of the project's, with a database of its own."""
    variables = {
        "DJANGO_SETTINGS_MODULE": SETTINGS,
        "DJANGO_PROJECT_DIRECTORY": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    code = (
        "import django; django.setup(); from django.core.management import call_command; "
        "call_command('migrate', run_syncdb=True, verbosity=0)"
    )
    result = python(code, **variables)
    assert (result.returncode, result.stderr) == (0, "")
    return variables


@pytest.mark.parametrize(
    "command",
    [
        ["bide", f"{SETTINGS.rpartition('.')[0]}.wsgi:application", "--threads", "2"],
        ["django", "runserver", "--noreload", "--nothreading"],
    ],
    ids=["bide", "runserver"],
)
def test_the_project_is_served_from_the_command_line(
    variables: dict[str, str], command: list[str]
) -> None:
    """As it is, by one line in the settings; ``runserver`` has its own way, and goes on."""
    where = f"127.0.0.1:{free_port()}"
    words = [*command, "--bind", where] if command[0] == "bide" else [*command, where]
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        with httpx.Client(base_url=f"http://{where}", timeout=DEADLINE, trust_env=False) as client:

            def answers() -> bool:
                try:
                    return client.get("/add/one").text == "1"
                except httpx.ConnectError:
                    assert process.poll() is None, process.communicate()[0]
                    return False

            until(answers)
            assert client.get("/add/two").text == "1"
            assert client.get("/all").text == "one\ntwo\n"
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)
