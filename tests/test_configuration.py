"""Where values come from: which source goes before which, and what an error calls a setting."""

import ast
import dataclasses
import inspect
import tomllib
from pathlib import Path
from typing import Any

import pytest

import bide
from bide import Settings
from bide.configuration import Configuration, from_keywords
from bide.environment import FIELDS
from bide.errors import SettingError, UsageError
from bide.keywords import Keywords
from tests.failures import Failures, same


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(
    options: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    file: str | None = None,
    path: str = "",
) -> Configuration:
    """Return what the sources give; ``file`` is the text of ``bide.toml``."""
    if file is not None:
        Path("bide.toml").write_text(file)
    configuration = Configuration()
    configuration.take_options(options or {})
    configuration.take_environment(environ or {})
    configuration.take_file(path)
    return configuration


def test_the_command_line_goes_before_the_environment_and_that_before_the_file() -> None:
    """And each of them before the default. What is not used is not read."""
    settings = configured(
        {"threads": "2", "bind": ()},
        {"BIDE_THREADS": "many", "BIDE_QUEUE": "3", "BIDE_HEALTH": ""},
        'threads = 9\nqueue = "nothing"\nbacklog = 4\nhealth = "/health"\n',
    ).settings()
    assert (settings.threads, settings.queue, settings.backlog) == (2, 3, 4)
    assert settings.health == "/health"
    assert settings.limit_pipeline == Settings().limit_pipeline
    assert settings.bind == Settings().bind


def test_a_file_has_toml_values() -> None:
    """Names as on the command line or as in Python; one address or several."""
    file = "queue-timeout = 2\nidle_timeout = inf\nbind = ['127.0.0.1:1', 'unix:/x']\n"
    settings = configured(file=file).settings()
    assert settings == Settings(
        queue_timeout=2, idle_timeout=float("inf"), bind=("127.0.0.1:1", "unix:/x")
    )
    assert configured(file="bind = '127.0.0.1:1'").settings().bind == ("127.0.0.1:1",)


def test_a_project_has_a_table_where_there_is_no_file_of_bides_own() -> None:
    """A project that does not speak of Bide may be anything."""
    project = Path("pyproject.toml")
    project.write_text("this is not TOML")
    assert configured().settings() == Settings()
    project.write_text("[tool.bide]\nthreads = 5\n")
    assert configured().settings().threads == 5
    assert configured(file="threads = 6").settings().threads == 6
    assert configured(path="pyproject.toml").settings().threads == 5
    Path("other.toml").write_text("threads = 7")
    assert configured(path="other.toml").settings().threads == 7


WRONG: list[tuple[dict[str, Any], dict[str, str], str, str]] = [
    ({"threads": "many"}, {}, "", "--threads is 'many': it must be a number"),
    ({"threads": "0"}, {}, "", "--threads is 0: it must be 1 or more"),
    ({}, {"BIDE_THREADS": "many"}, "", "BIDE_THREADS is 'many': it must be a number"),
    ({}, {"BIDE_THREADS": "0"}, "", "BIDE_THREADS is 0: it must be 1 or more"),
    ({}, {"BIDE_HEALTH": "up"}, "", "BIDE_HEALTH is 'up': it must be a path, like /health"),
    ({}, {}, "threads = 0", "threads in bide.toml is 0: it must be 1 or more"),
    ({}, {}, "threads = '4'", "threads in bide.toml is '4': it must be a number"),
    ({}, {}, "health = 4", "health in bide.toml is 4: it must be text"),
    ({}, {}, "bind = 80", "bind in bide.toml is 80: it must be text, or several texts"),
    ({}, {}, "bind = [80]", "bind in bide.toml is (80,): it must be text, or several texts"),
    ({}, {}, "socket-mode = 432", "socket-mode in bide.toml is 432: it must be three octal"),
    ({}, {}, "tread = 4", "there is no setting 'tread' in bide.toml; did you mean threads?"),
    ({}, {}, "queue-timeout = 1\nqueue_timeout = 2", "has queue-timeout and queue_timeout, which"),
    ({}, {}, "threads", "the settings in bide.toml are not TOML: "),
]


def test_an_error_calls_a_setting_as_its_source_does() -> None:
    """Whatever is wrong with it, and at whatever time that is found."""
    with Failures() as failures:
        for options, environ, file, says in WRONG:
            with failures.of(says):
                with pytest.raises(SettingError) as caught:
                    configured(options, environ, file).settings()
                assert says in str(caught.value), str(caught.value)


def test_a_file_that_is_named_must_be_there() -> None:
    """While one that is looked for may be missing."""
    with pytest.raises(UsageError, match=r"cannot read the settings in no\.toml: No such file"):
        configured(path="no.toml").settings()
    Path("pyproject.toml").write_text("[tool]\nbide = 4\n")
    with pytest.raises(UsageError, match=r"\[tool.bide\] of pyproject.toml must be a table"):
        configured().settings()


def test_all_that_is_wrong_is_told_at_once() -> None:
    """What cannot be read, what is unknown, and what is refused; the rest is taken."""
    configuration = configured(
        {"threads": "many", "queue": "-1", "backlog": "5"},
        {"BIDE_THRED": "1", "BIDE_LOG_LEVEL": "loud"},
        "health = 'up'\nquue = 1\nsocket-mode = '999'",
    )
    settings, wrong = configuration.checked()
    assert settings is not None
    assert settings.backlog == 5
    assert [str(each).partition(":")[0] for each in wrong] == [
        "--threads is 'many'",
        "BIDE_LOG_LEVEL is 'loud'",
        "there is no setting BIDE_THRED; did you mean BIDE_THREADS?",
        "there is no setting 'quue' in bide.toml; did you mean queue?",
        "socket-mode in bide.toml is '999'",
        "--queue is -1",
        "health in bide.toml is 'up'",
    ]


def test_the_printed_settings_are_a_file_that_says_where_they_come_from() -> None:
    """It can be saved, and read as it is."""
    configuration = configured(
        {"bind": ("127.0.0.1:1", "unix:/x")},
        {"BIDE_IDLE_TIMEOUT": "inf"},
        'health = "/a\\"b"\nqueue-timeout = 2.5',
    )
    lines = list(configuration.lines())
    assert 'bind = ["127.0.0.1:1", "unix:/x"]  # --bind' in lines
    assert "idle_timeout = inf  # BIDE_IDLE_TIMEOUT" in lines
    assert "queue_timeout = 2.5  # bide.toml" in lines
    assert "threads = 4  # default" in lines
    assert Settings(**tomllib.loads("\n".join(lines))) == configuration.settings()
    assert len(lines) == len(FIELDS)


def test_a_program_in_python_has_keywords_and_the_environment() -> None:
    """But reads no file. Settings as a whole are all of it."""
    Path("bide.toml").write_text("threads = 9")
    environ = {"BIDE_THREADS": "5", "BIDE_QUEUE": "6"}
    assert from_keywords(None, {"queue": 7}, environ) == Settings(threads=5, queue=7)
    assert from_keywords(Settings(queue=7), {}, environ) == Settings(queue=7)
    with pytest.raises(SettingError, match=r"^BIDE_THREADS is 0: it must be 1 or more"):
        from_keywords(None, {}, {"BIDE_THREADS": "0"})
    with pytest.raises(SettingError, match=r"^threads is 0: it must be 1 or more"):
        from_keywords(None, {"threads": 0}, environ)
    with pytest.raises(SettingError, match="there is no setting BIDE_THREAD"):
        from_keywords(None, {}, {"BIDE_THREAD": "1"})
    with pytest.raises(TypeError, match=r"there is no setting 'tread'; did you mean threads\?"):
        from_keywords(None, {"tread": 1}, environ)
    with pytest.raises(TypeError, match="give either settings or threads"):
        from_keywords(Settings(), {"threads": 1}, environ)


def test_bide_run_and_bide_server_take_every_setting_as_a_keyword_with_its_type() -> None:
    """src/bide/keywords.py is made by docs/make_settings.py: run that."""
    types = {name: ast.unparse(ast.parse(str(each.type))) for name, each in FIELDS.items()}
    assert Keywords.__annotations__.keys() == types.keys()
    with Failures() as failures:
        for name, annotation in inspect.get_annotations(Keywords).items():
            one = "str | PathLike[str]" if FIELDS[name].metadata["path"] else "str"
            wider = {"str": one, "tuple[str, ...]": f"{one} | Iterable[{one}]"}
            with failures.of(name):
                same(annotation.__forward_arg__, wider.get(types[name], types[name]))
        for function in (bide.run, bide.Server.__init__):
            with failures.of(function.__qualname__):
                same(inspect.signature(function).parameters["options"].annotation, UNPACKED)


UNPACKED = "Unpack[Keywords]"


def test_a_path_may_be_a_path(directory: Path) -> None:
    """Of pathlib, in Python."""
    assert dataclasses.replace(Settings(), access_log=Path("a")).access_log == f"{directory}/a"  # type: ignore[arg-type]
