"""Every setting is declared once; its values are checked in one line for the deployer."""

import asyncio
import dataclasses
import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest

from bide import Server, Settings
from bide.declarations import setting, taken
from bide.environment import flag, variable
from bide.errors import SettingError, StartError
from tests.failures import Failures, same

DOCS = Path(__file__).parent.parent / "docs"
FIELDS = dataclasses.fields(Settings)
NUMBERS = [each for each in FIELDS if each.metadata["minimum"] is not None]
CHOICES = [each for each in FIELDS if each.metadata["choices"]]


def settings(**options: Any) -> Settings:
    """Make settings from what a deployer gave."""
    return Settings(**options)


def test_the_defaults_are_valid() -> None:
    """With a free choice of none."""
    assert Settings().bind == ()
    assert Settings().threads == 4


def test_every_setting_has_help() -> None:
    """A sentence, and a word for its value."""
    with Failures() as failures:
        for field in FIELDS:
            with failures.of(field.name):
                assert field.metadata["help"].endswith(".")
                assert field.metadata["help"][0].isupper()
                switch = isinstance(field.default, bool)
                assert switch or field.metadata["metavar"] or field.metadata["choices"]


def test_no_two_settings_have_the_same_letter() -> None:
    """Nor is a letter -h, which is the help's; -w is kept for workers, as people type it."""
    letters = {field.name: field.metadata["short"] for field in FIELDS if field.metadata["short"]}
    assert len(set(letters.values())) == len(letters)
    assert "h" not in letters.values()
    assert {"bind": "b", "threads": "t"}.items() <= letters.items()
    assert {name for name, letter in letters.items() if letter == "w"} <= {"workers"}


def test_the_page_of_settings_is_up_to_date() -> None:
    """docs/settings.md is made from the settings: run docs/make_settings.py."""
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    assert spec is not None
    assert spec.loader is not None
    make_settings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_settings)
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == make_settings.page()
    for field in FIELDS:
        assert f"## `{flag(field.name)}`\n" in written
        assert f"`{variable(field.name)}`" in written
        assert field.metadata["help"] in written


@pytest.mark.parametrize("given", ["127.0.0.1:80", ["127.0.0.1:80"], ("127.0.0.1:80",)])
def test_bind_takes_one_address_or_several(given: Any) -> None:
    """A string is one address, not several of one letter."""
    assert settings(bind=given).bind == ("127.0.0.1:80",)


def test_a_number_below_the_least_is_refused() -> None:
    """The least itself is taken."""
    with Failures() as failures:
        for field in NUMBERS:
            least = field.metadata["minimum"]
            kind: type = int if isinstance(field.default, int) else float
            below = least - 1
            with failures.of(field.name):
                same(getattr(settings(**{field.name: kind(least)}), field.name), least)
                with pytest.raises(SettingError) as caught:
                    settings(**{field.name: below})
                same(str(caught.value), f"{field.name} is {below!r}: it must be {least:g} or more")


def test_what_is_no_number_is_refused() -> None:
    """Also true and false, which Python counts as numbers."""
    values: tuple[Any, ...] = ("4", None, True, [4])
    with Failures() as failures:
        for field in NUMBERS:
            for value in values:
                with (
                    failures.of(f"{field.name}={value!r}"),
                    pytest.raises(SettingError, match=f"{field.name} is .*: it must be a number"),
                ):
                    settings(**{field.name: value})


def test_not_a_number_is_refused() -> None:
    """It is a float, and less and more than nothing."""
    with pytest.raises(SettingError, match="queue_timeout is nan: it must be 0 or more"):
        settings(queue_timeout=float("nan"))


def test_a_count_is_whole_and_seconds_may_be_fractions() -> None:
    """As the defaults are."""
    with pytest.raises(SettingError, match=r"threads is 2\.5: it must be a number"):
        settings(threads=2.5)
    assert settings(queue_timeout=2.5).queue_timeout == 2.5
    assert settings(queue_timeout=2).queue_timeout == 2


def test_a_choice_is_one_of_those_that_there_are() -> None:
    """The message lists them."""
    with Failures() as failures:
        for field in CHOICES:
            with failures.of(field.name):
                for choice in field.metadata["choices"]:
                    same(getattr(settings(**{field.name: choice}), field.name), choice)
                with pytest.raises(SettingError) as caught:
                    settings(**{field.name: "other"})
                for choice in field.metadata["choices"]:
                    assert choice in str(caught.value)


def test_the_health_path_is_a_path() -> None:
    """Else no request could ask for it."""
    with pytest.raises(SettingError, match="health is 'health': it must be a path, like /health"):
        settings(health="health")
    with pytest.raises(SettingError, match="ready is 'ok': it must be a path, like /ready"):
        settings(ready="ok")
    with pytest.raises(SettingError, match="ready is '/ok', and so is health"):
        settings(health="/ok", ready="/ok")


def test_a_declaration_says_how_a_value_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One text of several, paths, and what is on or off."""
    monkeypatch.chdir(tmp_path)
    table = dataclasses.make_dataclass(
        "Table",
        [
            ("files", tuple[str, ...], setting("G", (), "Files.", path=True)),
            ("on", bool, setting("G", False, "On.")),
        ],
    )
    files, on = dataclasses.fields(table)
    with Failures() as failures:
        for given, kept in [
            ("a", (f"{tmp_path}/a",)),
            (Path("a"), (f"{tmp_path}/a",)),
            (["a", Path("/b")], (f"{tmp_path}/a", "/b")),
            ("", ()),
        ]:
            with failures.of(repr(given)):
                same(taken(files, given), kept)
        with failures.of("on"):
            same(taken(on, True), True)
    for each, wrong, says in [
        (files, 4, "files is 4: it must be text, or several texts"),
        (files, ["a", 4], "it must be text, or several texts"),
        (on, "yes", "on is 'yes': it must be true or false"),
    ]:
        with pytest.raises(SettingError, match=says):
            taken(each, wrong)


def test_an_unknown_setting_is_a_type_error() -> None:
    """As for any function."""
    with pytest.raises(TypeError, match="walkers"):
        settings(walkers=4)


def test_settings_cannot_be_changed() -> None:
    """A server has read them."""
    chosen = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen.threads = 5  # type: ignore[misc]


def test_the_log_level_is_one_of_loggings() -> None:
    """By its number."""
    assert [settings(log_level=each).level for each in ("debug", "info", "warning", "error")] == [
        logging.DEBUG,
        logging.INFO,
        logging.WARNING,
        logging.ERROR,
    ]


def test_a_server_does_not_pretend_to_run_the_reactor() -> None:
    """It takes the loop that it is given; only what makes the loop can make it the reactor's."""

    async def start() -> None:
        await Server(
            lambda environ, start_response: [], bind="127.0.0.1:0", reactor="twisted"
        ).start()

    with pytest.raises(StartError, match="Twisted's reactor is not on this event loop"):
        asyncio.run(start())


@pytest.mark.parametrize("mode", ["", "rw", "0888", "66", "07777", 0o660])
def test_the_rights_of_a_socket_are_octal_digits(mode: Any) -> None:
    """As text: 660 in Python is another number than 0o660."""
    with pytest.raises(SettingError, match="must be three octal digits, like 0660, as text"):
        Settings(socket_mode=mode)


def test_relative_paths_are_made_absolute_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard output is none, nor is the name of an abstract socket, nor a host."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(bind=("unix:a", "unix:@a", "unix:/a", "a:1"), access_log="a.log")
    assert settings.bind == (f"unix:{tmp_path}/a", "unix:@a", "unix:/a", "a:1")
    assert settings.access_log == f"{tmp_path}/a.log"
    assert Settings(access_log="-").access_log == "-"
