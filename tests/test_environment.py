"""What each setting is called outside of Python, and how its value is read there."""

import pytest

from bide.environment import flag, read, unknown, variable, with_address
from bide.errors import SettingError, UsageError
from bide.settings import Settings
from tests.failures import Failures, same


def test_a_settings_flag_and_variable_follow_from_its_name() -> None:
    """So that nobody has to remember them."""
    assert flag("queue_timeout") == "--queue-timeout"
    assert variable("queue_timeout") == "BIDE_QUEUE_TIMEOUT"


def test_a_text_is_read_as_the_setting_is_declared() -> None:
    """Numbers, several addresses, one of a few words in any case, text."""
    with Failures() as failures:
        for name, text, value in [
            ("threads", "7", 7),
            ("queue_timeout", "2.5", 2.5),
            ("bind", "127.0.0.1:1 unix:/x", ("127.0.0.1:1", "unix:/x")),
            ("log_level", "WARNING", "warning"),
            ("health", "/Health", "/Health"),
        ]:
            with failures.of(name):
                same(read(name, text, "it"), value)


def test_a_text_that_cannot_be_read_is_named_with_its_source() -> None:
    """As the source calls the setting."""
    with pytest.raises(UsageError, match=r"^BIDE_THREADS is 'many': it must be a number$"):
        read("threads", "many", "BIDE_THREADS")
    says = r"^--executor is 'fast': it may be auto, loop, threads or processes$"
    with pytest.raises(UsageError, match=says):
        read("executor", "fast", "--executor")


def test_a_variable_that_stands_for_nothing_is_an_error_with_the_nearest_name() -> None:
    """Those that choose the compiled form, and name the file, are none of them."""
    known = {"BIDE_PURE": "1", "BIDE_COMPILE": "1", "BIDE_CONFIG": "a.toml", "BIDE_QUEUE": "1"}
    assert unknown(known | {"THREADS": "1"}) == []
    errors = unknown(known | {"BIDE_THREAD": "8", "BIDE_QQQQ_ZZZZ": "1"})
    assert [str(each) for each in errors] == [
        "there is no setting BIDE_THREAD; did you mean BIDE_THREADS?",
        "there is no setting BIDE_QQQQ_ZZZZ",
    ]


def test_an_address_goes_before_sockets_and_those_before_the_platforms_port() -> None:
    """The last is the default, which only this machine reaches."""
    given, none = Settings(bind=("127.0.0.1:1",)), Settings()
    with Failures() as failures:
        for settings, enough, port, bind in [
            (given, False, "5000", ("127.0.0.1:1",)),
            (given, True, "5000", ("127.0.0.1:1",)),
            (none, True, "5000", ()),
            (none, False, "5000", ("[::]:5000",)),
            (none, False, "", ("127.0.0.1:8000",)),
        ]:
            with failures.of(f"{settings.bind} {enough} {port}"):
                same(with_address(settings, enough, {"PORT": port}).bind, bind)
        for port in ("http", "-1", "65536", "٣"):
            with failures.of(port), pytest.raises(SettingError, match=f"PORT is '{port}': it must"):
                with_address(none, False, {"PORT": port})
