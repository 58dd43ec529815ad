"""The integration is put on a Flask application in one line, and says what it cannot be put on."""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.sansio.app import App

from bide.integrations.flask import Bide
from tests.served import DEADLINE


class Quart(App):
    """What Quart's application derives from: Flask's part without input and output."""

    default_config = Flask.default_config


def plain(environ: Any, start_response: Any) -> list[bytes]:
    """A WSGI application that is not a Flask object."""
    return []


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (Quart("x"), "not tests.integrations.test_flask_install.Quart:"),
        (plain, "not function:"),
        (Flask, "not the class Flask:"),
        ("shop:app", "not str:"),
        (Flask("x").wsgi_app, "not method:"),
    ],
)
def test_what_is_no_flask_application_is_named(thing: Any, named: str) -> None:
    """In one line, with the remedy; nothing has been changed."""
    with pytest.raises(TypeError) as raised:
        Bide(thing)
    message = str(raised.value)
    assert message.startswith("Bide() takes a Flask application")
    assert named in message
    assert "give it the object that Flask(__name__) made" in message
    assert "\n" not in message


def program(directory: Path, text: str) -> "subprocess.CompletedProcess[str]":
    """Run a program with modules of a directory before all others."""
    return subprocess.run(
        [sys.executable, "-c", text],
        env={"PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize("version", ["2.3.3", "1.1.4"])
def test_a_flask_that_is_too_old_is_refused_on_import(version: str, tmp_path: Path) -> None:
    """One line names its version and the remedy; the version is that which is installed."""
    metadata = tmp_path / f"flask-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: flask\nVersion: {version}\n")
    result = program(tmp_path, "import bide.integrations.flask")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ImportError: bide.integrations.flask needs Flask 3.0 or later, with its "
        f"app.async_to_sync, and this is Flask {version}: install one that has it "
        "(pip install 'flask>=3.0')"
    )


def test_a_flask_of_the_future_without_the_seam_is_refused(tmp_path: Path) -> None:
    """Else the integration would do nothing, and say nothing."""
    result = program(
        tmp_path, "import flask; del flask.Flask.async_to_sync; import bide.integrations.flask"
    )
    assert "needs Flask 3.0 or later, with its app.async_to_sync" in result.stderr


def test_asgiref_is_not_needed(tmp_path: Path) -> None:
    """Flask alone asks for its extra ``async``; the integration has a loop of its own."""
    (tmp_path / "shop.py").write_text(
        "import sys\n"
        "sys.modules['asgiref'] = sys.modules['asgiref.sync'] = None\n"
        "from flask import Flask\n"
        "from bide.integrations.flask import Bide\n"
        "async def view():\n"
        "    return 'without asgiref'\n"
        "app = Flask(__name__)\n"
        "app.get('/')(view)\n"
        "Bide(app)\n"
        "print(app.test_client().get('/').text)\n"
    )
    result = program(tmp_path, "import shop")
    assert (result.stdout, result.stderr) == ("without asgiref\n", "")


def test_bide_imports_no_framework_by_itself(tmp_path: Path) -> None:
    """Who does not use one need not have it."""
    result = program(tmp_path, "import bide, sys; print('flask' in sys.modules)")
    assert (result.stdout, result.stderr) == ("False\n", "")


async def answer() -> str:
    """A view."""
    return "answered"


def by_constructor(app: Flask) -> None:
    """Install in one line."""
    Bide(app)


def by_factory(app: Flask) -> None:
    """Install as extensions are in an application factory."""
    Bide().init_app(app)


def twice(app: Flask) -> None:
    """Install once more."""
    Bide(app)
    Bide(app)


@pytest.mark.parametrize("install", [by_constructor, by_factory, twice])
@pytest.mark.parametrize("views_first", [True, False])
def test_one_line_puts_it_on_an_application(
    install: Callable[[Flask], None], views_first: bool
) -> None:
    """Before its views are there or after; other applications stay as they are."""
    app, other = Flask("one"), Flask("other")
    if views_first:
        app.get("/")(answer)
    install(app)
    if not views_first:
        app.get("/")(answer)
    assert isinstance(app.extensions["bide"], Bide)
    assert app.test_client().get("/").text == "answered"
    assert "async_to_sync" not in vars(other)
    assert "bide" not in other.extensions


def test_a_subclass_that_runs_coroutines_its_own_way_decides() -> None:
    """By Flask's documented ``ensure_sync``; the integration is then not asked."""
    calls = []

    class Own(Flask):
        def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
            calls.append(func)
            return lambda: "its own way"

    app = Own("own")
    Bide(app)
    app.get("/")(answer)
    assert app.test_client().get("/").text == "its own way"
    assert answer in calls


def test_a_decorator_may_call_the_next_function_by_ensure_sync() -> None:
    """The pattern of Flask's documentation, for views of both kinds."""
    app = Flask("decorated")
    Bide(app)

    def shouting(view: Callable[[], Awaitable[str]]) -> Callable[[], str]:
        return lambda: str(app.ensure_sync(view)()).upper()

    app.add_url_rule("/", "index", shouting(answer))
    assert app.test_client().get("/").text == "ANSWERED"
